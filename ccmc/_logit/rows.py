"""Statistics of contexts along numbered texts, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccmc._data.numbered import NumberedText
from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.names import KINDS, Columns, columns_of
from ccmc._logit.terms import Base, Bases

Features = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of n contexts with N candidates.

    Attributes:
        columns: [D, N], one statistic after the other; ptr: [n + 1] of the contexts.
        log_base, token: [N] log P0 of each candidate after the last token, and what it is.
        query, text: [n] the last token, and the text.
    """

    columns: Features
    ptr: IntArray
    log_base: FloatArray
    token: IntArray
    query: IntArray
    text: IntArray


def statistics_of(
    texts: Sequence[NumberedText], starts: Sequence[int], columns: Columns, bases: Bases, dtype: Any
) -> Statistics:
    """See `ContextTable.of`."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.state import fill
    from ccmc._logit.topic import similarities

    sizes = [text.sizes(start) for text, start in zip(texts, starts, strict=True)]
    ptr = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
    first = np.concatenate([[0], np.cumsum([len(size) for size in sizes])]).astype(np.int64)
    made = Statistics(
        np.empty((len(columns.names), int(ptr[-1])), dtype), ptr, np.empty(int(ptr[-1])),
        np.empty(int(ptr[-1]), np.int64), np.empty(len(ptr) - 1, np.int64),
        np.repeat(np.arange(len(sizes)), np.diff(first)),
    )  # fmt: skip

    def work(tasks: IntArray) -> None:
        for index in tasks:
            text, start, low, high = texts[index], starts[index], first[index], first[index + 1]
            base = bases[index]
            pairs = base.log_between(text.types, text.types)
            fill(
                text.local, text.distinct, start, columns.kinds, columns.orders, columns.slots, columns.levels,
                pairs, base.log_unigram[text.types], int(ptr[low]), made.columns, made.log_base,
            )  # fmt: skip
            for d in np.flatnonzero(columns.kinds == KINDS["similarity"]):
                of_types = similarities(text, start, embeddings_of(base)[text.types])
                made.columns[d, ptr[low] : ptr[high]] = given(of_types, sizes[index])
            made.token[ptr[low] : ptr[high]] = text.types[places(sizes[index])]
            made.query[low:high] = text.types[text.local[start - 1 : -1]]

    run_tasks(work, [float(size.sum()) for size in sizes])
    return made


def embeddings_of(base: Base) -> NDArray[np.float32]:
    """[V, d] that `similarity` reads.

    Raises:
        ValueError: P0 is not kept as logits of a model.
    """
    if base.factors is None:
        raise ValueError(
            "the statistic similarity reads embeddings, which base transitions kept as logits of a model have alone"
        )
    return base.factors.keys


def places(size: IntArray) -> IntArray:
    """The candidates of contexts with so many: 0 .. size - 1, context after context."""
    ends = np.cumsum(size)
    found: IntArray = np.arange(ends[-1]) - np.repeat(ends - size, size)
    return found


def offsets_of(text: NumberedText, start: int, offset: str) -> FloatArray:
    """Log of the counts, or of how often each type followed the query; counts again where nothing followed it."""
    from ccmc._logit.state import fill

    columns, size, many = columns_of(("log-count", "log-followed-by-1")), text.sizes(start), len(text.types)
    found = np.empty((2, int(size.sum())))
    fill(
        text.local, text.distinct, start, columns.kinds, columns.orders, columns.slots, columns.levels,
        np.zeros((many, many)), np.zeros(many), 0, found, np.empty(found.shape[1]),
    )  # fmt: skip
    counts: FloatArray = found[0]
    if offset == "counts":
        return counts
    times = np.rint(np.expm1(found[1]))
    some = np.repeat(np.add.reduceat(times, np.cumsum(size) - size) > 0, size)
    with np.errstate(divide="ignore"):
        return np.where(some, np.log(times), counts)


def came(text: NumberedText, start: int, base: Base) -> tuple[FloatArray, FloatArray]:
    """Targets that are the tokens of a text: [candidates] mass, and [n, 2] of everything else, and mass x log P0."""
    size, following = text.sizes(start), text.local[start:]
    new = following >= size
    aim = (places(size) == np.repeat(following, size)).astype(np.float64)
    beyond = np.zeros((len(size), 2))
    beyond[new, 0] = 1.0
    beyond[new, 1] = base.log_at(text.types[text.local[start - 1 : -1]][new], text.types[following[new]])
    return aim, beyond


def given(inside: FloatArray, size: IntArray) -> FloatArray:
    """[candidates] of masses [n, U] on the types of a text."""
    known = np.arange(inside.shape[1]) < size[:, None]
    return np.asarray(inside[known], dtype=np.float64)


def closed_targets(aim: FloatArray, shift: FloatArray, ptr: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Targets over the candidates that are not ruled out; a choice with none of its target there has no weight."""
    left = np.where(np.isfinite(shift), aim, 0.0)
    mass = np.add.reduceat(left, ptr[:-1])
    empty = mass <= 0
    spare, _, _ = no_targets(shift, ptr)
    owner = np.repeat(np.arange(len(mass)), np.diff(ptr))
    made = np.where(empty[owner], spare, left / np.where(empty, 1.0, mass)[owner])
    return made, np.zeros((len(mass), 2)), np.where(empty, 0.0, 1.0)


def no_targets(shift: FloatArray, ptr: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Targets that mean nothing: the first candidate that is not ruled out."""
    aim = np.zeros(len(shift))
    possible = np.flatnonzero(np.isfinite(shift))
    aim[possible[np.searchsorted(possible, ptr[:-1])]] = 1.0
    return aim, np.zeros((len(ptr) - 1, 2)), np.ones(len(ptr) - 1)
