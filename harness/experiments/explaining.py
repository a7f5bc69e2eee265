"""One model explained: a config of heads, heads replaced, repeated sentences and repetition that fits a time.

Speed is measured on the model itself, decoding and reading apart. What the parts cost in these terms was read off runs
of SmolLM2; the estimate is printed and errs by as much as a factor of two on other models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
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
ARMS, CHOOSING = 1 + len(NULLS), 2
"""Arms whose losses are measured, and texts of each strategy on which the best null is chosen."""
LENGTH = 160
"""Tokens of a text that heads are read on."""
FEWEST = 12
"""Prompts without which nothing can be split, fitted and judged."""
READ = 30.0
"""Passes over a text that fitting and scoring the heads of all layers is worth, by experiments on SmolLM2."""


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
    Size(FEWEST, 32, 3, 4, 4),
    Size(18, 48, 4, 4, 4),
    Size(24, 64, 6, 6, 4),
    Size(36, 96, 8, 8, 6),
    Size(60, 96, 12, 8, 8),
    Size(90, 128, 30, 12, 8),
    Size(150, 128, 100, 12, 12),
)


@dataclass(frozen=True)
class Speed:
    """Of one model on this machine.

    Attributes:
        decoding, reading: seconds per token.
        layers: how many it has.
    """

    decoding: float
    reading: float
    layers: int

    def seconds(self, size: Size) -> float:
        """What a size takes, by estimate."""
        texts = len(STRATEGIES) * size.prompts
        length = min(LENGTH, 48 + size.tokens)
        share = min(1.0, size.layers / self.layers)
        decoded = texts * size.tokens * self.decoding
        read = texts * length * self.reading * READ * share
        lost = ARMS * len(SHARES) * 2 * len(STRATEGIES) * (size.texts + CHOOSING) * length * self.reading
        repeated = size.prompts * 16 * size.repetitions * self.reading * 20
        return decoded + read + lost + repeated + 60.0

    def largest(self, seconds: float) -> Size:
        """The largest size that fits a time; the smallest one where none does."""
        return next((size for size in reversed(SIZES) if self.seconds(size) <= seconds), SIZES[0])


def measure(model: Any, tokenizer: Any) -> Speed:
    """Decode and read a few made-up tokens, three times each.

    Args:
        model, tokenizer: of `harness.models`.
    """
    import torch

    from harness.models.language_model import generate

    settings = model.config.get_text_config()
    ids = np.random.default_rng(0).integers(0, int(settings.vocab_size), (16, 32))
    window = int(getattr(settings, "max_position_embeddings", None) or 256)
    prompts = [row[: max(1, min(32, window // 4))].tolist() for row in ids]
    new = max(1, min(12, window // 4))
    decoding, reading = [], []
    for attempt in range(3):
        begun = time.perf_counter()
        generate(model, tokenizer, prompts, temperature=1.0, max_new_tokens=new, seed=attempt, ignore_eos=True)
        decoding.append((time.perf_counter() - begun) / (len(prompts) * new))
        text = torch.as_tensor(ids.ravel()[: min(128, window // 2)], device=model.device)[None]
        begun = time.perf_counter()
        with torch.inference_mode():
            model(text, use_cache=False)
        reading.append((time.perf_counter() - begun) / text.shape[1])
    return Speed(median(decoding), median(reading), int(settings.num_hidden_layers))


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


def chosen_prompts(source: str | Path, count: int) -> list[dict[str, Any]]:
    """So many prompts, evenly spread over a file; of a group all that fit.

    Args:
        source: a file of {id, kind, text}, or of the shipped ones.
        count: at most.

    Raises:
        UsageError: fewer than `FEWEST` prompts.
    """
    from harness.config.load import shipped_configs

    path = str(shipped_configs() / PROMPTS) if source == PROMPTS else str(Path(source).resolve())
    given = {"name": "explain", "models": ["smollm2-135m"], "prompts": path, "held_out": 0.34, "experiments": [_SELF]}
    loaded = load_config(given)
    found = [prompt for prompt in load_prompts(loaded) if not prompt.chat]
    if len(found) < FEWEST:
        raise UsageError(f"{source}: {len(found)} prompts without chat; {FEWEST} or more are needed to explain a model")
    places = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).astype(int))
    return [
        {"id": one.id, "kind": one.kind, "text": one.text, "group": one.group}
        for one in (found[int(place)] for place in places)
    ]


_SELF: dict[str, Any] = {"kind": "self-reinforcement"}


def config_of(model: str, prompts: list[dict[str, Any]], size: Size, layers: int, neutral: str) -> dict[str, Any]:
    """The config of a size, as `harness.run` takes it.

    Args:
        model: alias, hub id or folder.
        prompts: of `chosen_prompts`.
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
