"""What the units cost that several experiments plan, and how long the texts are that a unit reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

from harness.runs.costs import Cost
from harness.runs.units import Unit

RECORDED = 1.5
"""Passes over a text that recording the scores of its tokens is worth."""
FITTED = {
    "distance": 0.002, "ccmc-weights": 0.01, "pccmc-weights": 0.015, "pccmc-scaled": 0.2, "ccmc-fit": 0.05,
    "pccmc-fit": 0.22, "exact-keys": 0.01, "exact-queries": 0.01,
}  # fmt: skip
"""Seconds of fitting a surrogate to one head, per thousand tokens."""
STATIC = 0.07
"""Seconds of storing what takes the place of one head."""
PASS, ARM = 1.2, 1.35
"""Passes over a text that one with captured attention is worth, and one with heads replaced."""


class Texts(NamedTuple):
    """Texts that a unit reads: (split, prompt's tokens, all tokens) of each."""

    lengths: tuple[tuple[str, int, int], ...]

    def tokens(self, split: str | None = None, longest: int | None = None) -> int:
        """How many tokens, of one split or all; of each text at most the longest."""
        own = (whole for of, _, whole in self.lengths if split is None or of == split)
        return sum(whole if longest is None else min(whole, longest) for whole in own)

    def count(self, split: str | None = None) -> int:
        return sum(split is None or of == split for of, _, _ in self.lengths)


CONTINUED = "continuations:continue_prompts"


def texts_of(units: Iterable[Unit]) -> Texts:
    """The texts that units write, as long as they can become; other units have none."""
    found: list[tuple[str, int, int]] = []
    for unit in units:
        if unit.task.endswith(CONTINUED):
            new = unit.settings["max_new_tokens"]
            for prompt, ids in zip(unit.settings["prompts"], unit.local["tokens"], strict=True):
                found.append((prompt["split"], len(ids), len(ids) + new))
        elif unit.task.endswith("given_texts:keep_texts"):
            found += [(piece["split"], len(piece["tokens"]), len(piece["tokens"])) for piece in unit.local["pieces"]]
    return Texts(tuple(found))


def decoding(tokens: Sequence[Sequence[int]], new: int, batch: int, seeds: int = 1) -> Cost:
    """Continuing prompts, without loading the model.

    Args:
        tokens: ids of the prompts.
        new: tokens of a continuation.
        batch: prompts that are continued together.
        seeds: continuations of each.
    """
    steps = ceil(len(tokens) / batch) * new
    return Cost(steps * seeds, len(tokens) * new * seeds, sum(map(len, tokens)) * seeds)


@lru_cache(maxsize=16)
def shape(path: str) -> tuple[int, int]:
    """(layers, heads of a layer) of a model's folder."""
    from pathlib import Path

    from harness.models.loading import load_config

    config = load_config(Path(path))
    return int(config.num_hidden_layers), int(config.num_attention_heads)


def heads_fitted(unit: Unit, surrogates: Iterable[str], tokens: float) -> Cost:
    """Fitting surrogates to the heads of a unit's layers, after a pass over the training texts.

    Args:
        unit: with `layers` among its settings.
        surrogates: by name.
        tokens: of the training texts.
    """
    layers, heads = shape(unit.local["path"])
    own = unit.settings["layers"]
    fits = sum(FITTED.get(name, 0.0) for name in surrogates)
    read = tokens * PASS * (1 + max(own)) / layers
    return Cost(read=read, seconds=fits * len(own) * heads * tokens / 1000)


def cost(unit: Unit) -> Cost | None:
    """What a unit of this room costs."""
    s: dict[str, Any] = unit.settings
    task = unit.task.partition(":")[2]
    if task == "continue_prompts":
        own = decoding(unit.local["tokens"], s["max_new_tokens"], s["batch_size"])
        beams = int(s["options"].get("beams", 1))
        recorded = RECORDED * own.decoded if s["record"] and beams > 1 else 0.0
        return Cost(own.steps * beams, own.decoded * beams, own.read * beams + recorded)
    if task == "fit":
        stored = STATIC * len(s["layers"]) * shape(unit.local["path"])[1]
        train = texts_of(unit.needs).tokens("train", s["max_length"])
        return heads_fitted(unit, s["surrogates"], train) + Cost(seconds=stored)
    return Cost(seconds=0.1)
