"""One model explained: configs of heads, heads replaced, repeated sentences and repetition, from small to large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.load import load_config
from harness.core.errors import UsageError
from harness.data.prompts import load_prompts

PROMPTS = "prompts/repetition.yaml"
STRATEGIES: tuple[Any, ...] = ("greedy", {"temperature": 0.7}, {"temperature": 1.0})
LADDER = ("counts", "recency", "followed-by-1", "followed-by-2", "followed-by-3")
NEUTRAL = ("\n", " the", ".", "a")
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
NULLS = ("counts", "mean-row")
CHOOSING = 2
"""Texts of each strategy on which the best null is chosen."""
LENGTH = 160
"""Tokens of a text that heads are read on."""
FEWEST = 12
"""Prompts without which nothing can be split, fitted and judged."""


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        prompts: of which a third is held out.
        tokens: of a continuation.
        layers: whose heads are read and replaced, evenly spread.
        repetitions: of a sentence.
        texts: held-out ones of each strategy on which losses are measured.
    """

    prompts: int
    tokens: int
    layers: int
    repetitions: int
    texts: int


SIZES = (
    Size(15, 32, 3, 4, 5),  # five of them held out: fewer carry no interval
    Size(18, 48, 4, 4, 6),
    Size(24, 64, 6, 6, 6),
    Size(36, 96, 8, 8, 6),
    Size(60, 96, 12, 8, 8),
    Size(90, 128, 30, 12, 8),
    Size(150, 128, 100, 12, 12),
)


def neutral_context(tokenizer: Any, texts: Sequence[str]) -> str:
    """A text of at least one token after which base transitions are read off: a line break, or what there is.

    Raises:
        UsageError: the tokenizer knows nothing.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    for text in (*NEUTRAL, *(word for one in texts for word in one.split()[:1])):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if any(token != unknown for token in ids):
            return text
    raise UsageError("the model's tokenizer has no token for any word of the prompts")


def all_prompts(source: str | Path) -> list[dict[str, Any]]:
    """The prompts of a file that are no turns of a chat.

    Args:
        source: a file of {id, kind, text}, or of the shipped ones.

    Raises:
        UsageError: fewer than `FEWEST` prompts.
    """
    from harness.config.load import shipped_configs

    path = str(shipped_configs() / PROMPTS) if source == PROMPTS else str(Path(source).resolve())
    given = {"name": "explain", "models": ["smollm2-135m"], "prompts": path, "held_out": 0.34, "experiments": [_SELF]}
    found = [prompt for prompt in load_prompts(load_config(given)) if not prompt.chat]
    if len(found) < FEWEST:
        raise UsageError(f"{source}: {len(found)} prompts without chat; {FEWEST} or more are needed to explain a model")
    return [{"id": one.id, "kind": one.kind, "text": one.text, "group": one.group} for one in found]


def spread(prompts: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many prompts, evenly spread over all.

    Args:
        prompts: of `all_prompts`.
        count: at most.
    """
    places = np.unique(np.linspace(0, len(prompts) - 1, min(count, len(prompts))).astype(int))
    return [prompts[int(place)] for place in places]


_SELF: dict[str, Any] = {"kind": "self-reinforcement"}


def config_of(model: str, prompts: list[dict[str, Any]], size: Size, layers: int, neutral: str) -> dict[str, Any]:
    """The config of a size, as `harness.run` takes it.

    Args:
        model: alias, hub id or folder.
        prompts: that are continued.
        size: how much is done.
        layers: how many layers the model has.
        neutral: context after which base transitions are read off.
    """
    read = sorted({round(float(x)) for x in np.linspace(0, layers - 1, min(size.layers, layers))})
    wanted: Any = "all" if len(read) == layers else read
    return {
        "name": "explain",
        "models": [model],
        "prompts": prompts,
        "held_out": 0.34,
        "generation": {
            "max_new_tokens": size.tokens, "strategies": list(STRATEGIES), "seeds": 1, "batch_size": 25,
        },
        "experiments": [
            {
                "kind": "heads", "layers": wanted, "surrogates": ["counts", "distance", "pccmc-weights"],
                "max_length": LENGTH,
            },
            {
                "kind": "in-the-loop", "layers": wanted, "surrogates": ["pccmc-weights"], "leaders": ["pccmc-weights"],
                "sets": ["share"], "shares": list(SHARES), "generate": [], "nulls": list(NULLS),
                "controls": [], "real_first_position": False, "training_texts": CHOOSING,
                "held_out_texts": size.texts, "max_length": LENGTH,
            },
            {**_SELF, "length": 8 if size.repetitions < 8 else 16, "repetitions": size.repetitions, "neutral": neutral},
            {
                "kind": "repetition", "statistics": list(LADDER), "laws": ["decoded"], "rollout_seeds": 2,
                "surrogates": ["unigram", "bigram", "suffix", "context-logit"], "choice_prompts": 40,
                "neutral": [neutral],
            },
        ],
    }  # fmt: skip
