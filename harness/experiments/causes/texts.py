"""Which texts serve what: parts of training prompts, halves of human-like texts, and sentences to be repeated.

Everything is split by group. What heads do and hand on is learned from one part of the model's own texts, the loss is
matched on a second part and reported on a third; held-out prompts are only continued.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from harness.core.seeds import derive_seed
from harness.data.splits import Prompt

LEARN, MATCH, REPORT = "learn", "match", "report"
LONGEST, SHORTEST = 24, 4  # words of a sentence that is repeated
_ENDS = re.compile(r"(?<=[.!?;:])\s+|\s*\n+\s*")


def parted(groups: Iterable[str], parts: Sequence[str], seed: int) -> dict[str, str]:
    """Group -> part: groups in random order, each part as many as the others but one.

    Raises:
        ValueError: fewer groups than parts.
    """
    names = sorted(set(groups))
    if len(names) < len(parts):
        raise ValueError(f"{len(names)} groups cannot be split into {len(parts)} parts")
    order = np.random.default_rng(derive_seed(seed, "causes", *parts)).permutation(len(names))
    return {names[int(place)]: parts[number % len(parts)] for number, place in enumerate(order)}


def taken(prompts: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """At most so many prompts, drawn at random, in their order."""
    if len(prompts) <= count:
        return list(prompts)
    rng = np.random.default_rng(derive_seed(seed, "causes", "texts", len(prompts)))
    return [prompts[place] for place in sorted(rng.permutation(len(prompts))[:count].tolist())]


def sentence_of(text: str) -> str:
    """The first sentence or line of a text that has at least four words, or the whole text; cut where it is long."""
    pieces = [piece.strip() for piece in _ENDS.split(text) if piece.strip()]
    whole = next((piece for piece in pieces if len(piece.split()) >= SHORTEST), text.strip())
    words = whole.split()
    return whole if len(words) <= LONGEST else " ".join(words[:LONGEST])


def set_up(text: str, repeats: int) -> str:
    """A sentence of a text, so many times."""
    return " ".join([sentence_of(text)] * repeats)
