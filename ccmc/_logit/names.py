"""Names of statistics and of the weights that belong to them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ccmc._data.types import IntArray

# The numbers are those of `state`, which is compiled and not imported here.
KINDS = {
    "present": 0, "log-count": 1, "recency": 2, "longest-match": 3, "log-longest-match": 4,
    "followed-by": 5, "log-followed-by": 6, "shrunk-followed-by": 7, "latest-after": 8, "recent": 9,
    "suffix": 10, "log-suffix": 11, "recency-squared": 12, "match-squared": 13, "unigram": 14, "base-by-match": 15,
    "similarity": 16, "base-inside": 17,
}  # fmt: skip
WITH_ORDER = ("followed-by", "log-followed-by", "shrunk-followed-by", "latest-after", "recent")
TOPIC = 32  # last tokens that `similarity` compares with
GATE = 100  # a kind that counts in matches of L tokens or more has L times this added
GATED = (
    "longest-match", "log-longest-match", "followed-by", "log-followed-by", "shrunk-followed-by", "latest-after",
    "suffix", "log-suffix", "match-squared", "base-by-match",
)  # fmt: skip
"""Kinds that can: those of tokens that followed the last one earlier."""
ABOUT = {
    "counts": "is the token in the context, and log of how often (two weights)",
    "recency": "log of the number of tokens since it last occurred",
    "followed-by-K": "share of the earlier occurrences of the last K tokens that it followed",
    "log-followed-by-K": "log(1 + how often it followed the last K tokens earlier)",
    "shrunk-followed-by-K": "the share with two followers more in the total",
    "latest-after-K": "did it follow the latest earlier occurrence of the last K tokens",
    "longest-match": "length of the longest earlier match of the end of the context that it followed",
    "log-longest-match": "log(1 + that length)",
    "suffix": "is no earlier match of the end of the context longer than the one that it followed",
    "log-suffix": "log(1 + the length of that longest match), 0 for all other tokens",
    "recency-squared": "square of recency",
    "match-squared": "square of log-longest-match",
    "unigram": "log frequency of the token, by the mean of all base transitions",
    "base-by-match": "log base transition times log-longest-match",
    "base-inside": "log base transition: by it the weight of base transitions in the context is another than outside",
    "similarity": f"cosine of the token's embedding with the mean of those of the last {TOPIC} tokens, by the output "
    "embeddings of a model whose base transitions are kept as logits",
    "recent-K": "log of its count where an occurrence fades by 1/e within K tokens",
    "NAME-in-match-K": "a statistic of tokens that followed the last one earlier, where the longest earlier match of "
    "the end of the context has at least K tokens, else 0: its weight is another inside a loop",
}


@dataclass(frozen=True)
class Columns:
    """Columns of features, as kernels need them.

    Attributes:
        names: D names of weights.
        kinds, orders, slots: [D]; a slot is a place in `levels`.
        levels: [K] different orders.
    """

    names: tuple[str, ...]
    kinds: IntArray
    orders: IntArray
    slots: IntArray
    levels: IntArray


def weights_of(statistic: str) -> tuple[str, ...]:
    """Names of the weights of a statistic.

    Raises:
        ValueError: no statistic has this name.
    """
    if statistic == "counts":
        return ("present", "log-count")
    split_name(statistic)
    return (statistic,)


def split_name(name: str) -> tuple[str, int]:
    """Kind and order of a weight, without its gate; the order is 0 where the kind has none.

    Raises:
        ValueError: there is no such weight.
    """
    inner, gate = gate_of(name)
    if gate:
        kind, order = split_name(inner)
        if kind not in GATED:
            raise ValueError(f"{name!r}: in matches there are {', '.join(GATED)}, not {inner}")
        return kind, order
    if name in KINDS and name not in WITH_ORDER:
        return name, 0
    found = re.fullmatch(r"(.+)-([1-9][0-9]{0,3})", name)
    if found is None or found[1] not in WITH_ORDER:
        raise ValueError(f"no statistic is called {name!r}; there are {', '.join(ABOUT)} (K is a number)")
    return found[1], int(found[2])


def gate_of(name: str) -> tuple[str, int]:
    """A weight without its gate, and how many tokens a match must have for it to count; 0 where it always does."""
    found = re.fullmatch(r"(.+?)-in-match-([1-9][0-9]{0,2})", name)
    return (name, 0) if found is None else (found[1], int(found[2]))


def columns_of(names: tuple[str, ...]) -> Columns:
    """Columns for weights.

    Raises:
        ValueError: a name is unknown or comes twice.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"a statistic is named twice: {', '.join(names)}")
    parts = [split_name(name) for name in names]
    levels = sorted({order for _, order in parts if order}) or [1]
    slots = [levels.index(order) if order else 0 for _, order in parts]
    kinds = [KINDS[kind] + GATE * gate_of(name)[1] for name, (kind, _) in zip(names, parts, strict=True)]

    def whole(values: list[int]) -> IntArray:
        return np.array(values, dtype=np.int64)

    return Columns(names, whole(kinds), whole([order for _, order in parts]), whole(slots), whole(levels))
