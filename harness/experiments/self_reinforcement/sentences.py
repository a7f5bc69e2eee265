"""Sentences and the texts that repeat them: natural, random and self-written ones, with a preamble or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.core.seeds import derive_seed
from harness.data.texts import FloatArray, IntArray
from harness.experiments._shared.continuations import Continuation, read_continuations
from harness.runs.units import Work

NO_OTHER = "no other held-out prompt has a preamble of this length"


@dataclass(frozen=True)
class Repeated:
    """A text that holds a sentence several times.

    Attributes:
        prompt, group: of the held-out prompt that it belongs to.
        kind: of the sentence.
        preamble: how many tokens of another prompt come before it.
        before: [B] what every text of the model begins with, and the preamble; may be empty.
        sentence: [L].
        times: how often it is there, K + 1.
        missing: why there is no text; None where there is one.
    """

    prompt: str
    group: str
    kind: str
    preamble: int
    before: IntArray
    sentence: IntArray
    times: int
    missing: str | None = None

    @cached_property
    def tokens(self) -> IntArray:
        """[T] of the whole text."""
        return np.concatenate([self.before, np.tile(self.sentence, self.times)])

    @property
    def first(self) -> int:
        """The first position of a repetition whose token has a context."""
        return max(len(self.before), 1)

    def table(self, came: FloatArray) -> FloatArray:
        """[K + 1, L] by repetition and place in the sentence; NaN where a token has no context.

        Args:
            came: [T - first] of the tokens from `first` on.
        """
        whole = np.full(self.times * len(self.sentence), np.nan)
        whole[self.first - len(self.before) :] = came
        return whole.reshape(self.times, -1)


def training_texts(work: Work) -> list[Continuation]:
    """The texts that surrogates are fitted to: continuations of training prompts."""
    return [c for c in _continuations(work) if c.split == "train" and len(c.continuation)]


def _continuations(work: Work) -> list[Continuation]:
    folders = [folder for folder in work.inputs if (folder / "trajectories.parquet").exists()]
    return [c for folder in folders for c in read_continuations(folder)]


def repeated_texts(work: Work) -> list[Repeated]:
    """All texts of a unit, prompt by prompt; those that cannot be made say why.

    Args:
        work: of a unit with prompts, sentences, length, repetitions, preambles and seed among its settings, the ids of
            the prompts (`natural`) and what texts begin with (`start`) in `local`, and continuations among its inputs.
    """
    s = work.settings
    made = _continuations(work)
    written = {c.prompt: c.continuation for c in made if c.split == "held_out"}  # greedy ones: the plan makes no others
    natural = {prompt["id"]: np.asarray(work.local["natural"][prompt["id"]], dtype=np.int64) for prompt in s["prompts"]}
    tokens, weight = _unigram([c for c in made if c.split == "train"])
    start = np.asarray(work.local["start"], dtype=np.int64)
    found = []
    for prompt in s["prompts"]:
        own = prompt["id"]
        for kind in s["sentences"]:
            if kind == "natural":
                source, what = natural[own], "the prompt"
            elif kind == "random":
                rng = np.random.default_rng(derive_seed(s["seed"], "random sentence", own))
                source, what = rng.choice(tokens, s["length"], p=weight), "the sentence"
            else:
                source, what = written.get(own, natural[own][:0]), "the model's continuation"
            short = None if len(source) >= s["length"] else f"{what} has fewer than {s['length']} tokens"
            for preamble in s["preambles"]:
                other = _preamble(s["prompts"], prompt, natural, preamble)
                missing = short or (NO_OTHER if other is None else None)
                before = start if other is None else np.concatenate([start, other])
                sentence = source[: s["length"]]
                group = prompt.get("group", own)
                found.append(Repeated(own, group, kind, preamble, before, sentence, s["repetitions"] + 1, missing))
    return found


def _unigram(train: Sequence[Continuation]) -> tuple[IntArray, FloatArray]:
    """The tokens that the model wrote on training prompts, and their frequencies."""
    tokens, counts = np.unique(np.concatenate([c.continuation for c in train]), return_counts=True)
    if not len(tokens):
        raise ValueError("the model ended every training prompt at once; there is nothing to fit")
    return tokens, counts / counts.sum()


def _preamble(
    prompts: Sequence[dict[str, Any]], own: dict[str, Any], natural: dict[str, IntArray], length: int
) -> IntArray | None:
    """The first tokens of the next prompt of another group that has so many; None where none has."""
    if length == 0:
        return np.empty(0, dtype=np.int64)
    place = [prompt["id"] for prompt in prompts].index(own["id"])
    group = own.get("group", own["id"])
    for other in [*prompts[place + 1 :], *prompts[:place]]:
        if other.get("group", other["id"]) != group and len(natural[other["id"]]) >= length:
            return natural[other["id"]][:length]
    return None
