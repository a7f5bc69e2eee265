"""Choices along numbered texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccmc._data.numbered import NumberedText
from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.names import KINDS, Columns, columns_of
from ccmc._logit.terms import Bases

Features = NDArray[np.float32] | NDArray[np.float64]
LogAt = Callable[[IntArray, IntArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Built:
    """Choices along texts: n choices, N candidates.

    Attributes:
        features: [N, D]; targets, offsets, log_base, token: [N]; ptr: [n + 1]; weights, query, text: [n].
        beyond: [n, 2] target mass of all other tokens, and mass x log P0 over them.
    """

    features: Features
    targets: FloatArray
    ptr: IntArray
    offsets: FloatArray
    weights: FloatArray
    log_base: FloatArray
    token: IntArray
    query: IntArray
    text: IntArray
    beyond: FloatArray


def build(
    texts: Sequence[NumberedText], starts: Sequence[int], columns: Columns, bases: Bases, closed: bool,
    offset: str, targets: Any, dtype: Any,
) -> Built:  # fmt: skip
    """See `context_rows`."""
    sizes = [text.sizes(start) for text, start in zip(texts, starts, strict=True)]
    ptr = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
    features = np.empty((int(ptr[-1]), len(columns.names)), dtype)
    shift, aim = np.zeros(int(ptr[-1])), np.zeros(int(ptr[-1]))
    token, query = np.empty(int(ptr[-1]), np.int64), np.empty(len(ptr) - 1, np.int64)
    beyond, weights = np.zeros((len(ptr) - 1, 2)), np.ones(len(ptr) - 1)
    of, log_base = np.repeat(np.arange(len(texts)), [len(size) for size in sizes]), np.empty(int(ptr[-1]))
    choice = 0
    for index, (text, start, size) in enumerate(zip(texts, starts, sizes, strict=True)):
        rows = slice(choice, choice + len(size))
        part = slice(int(ptr[choice]), int(ptr[choice + len(size)]))
        _fill(text, start, columns, features[part])
        place = np.arange(part.stop - part.start) - np.repeat(ptr[rows] - ptr[choice], size)
        token[part] = text.types[place]
        query[rows] = text.types[text.local[start - 1 : -1]]
        if offset != "none":
            shift[part] = _offset(text, start, offset, place, np.cumsum(size))
        aim[part], beyond[rows] = _targets(targets, index, text, start, size, place, bases[index].log_at)
        log_base[part] = bases[index].log_at(np.repeat(query[rows], size), token[part])
        _of_base(features[part], columns, log_base[part], bases[index].log_unigram[token[part]])
        choice += len(size)
    if closed:
        aim, beyond, weights = _closed(aim, shift, ptr)
    if isinstance(targets, str) and targets == "none":
        aim, beyond, weights = _nothing(shift, ptr)
    return Built(features, aim, ptr, shift, weights, log_base, token, query, of, beyond)


def _of_base(features: Features, columns: Columns, log_base: FloatArray, log_unigram: FloatArray) -> None:
    """Finish the statistics that read base transitions: [N] log P0 and log frequency of the candidates."""
    for column, kind in enumerate(columns.kinds.tolist()):
        if kind == KINDS["unigram"]:
            features[:, column] *= log_unigram
        elif kind == KINDS["base-by-match"]:
            features[:, column] *= np.where(features[:, column] > 0, log_base, 0.0)


def _fill(text: NumberedText, start: int, columns: Columns, out: Features) -> None:
    from ccmc._logit.state import fill

    fill(text.local, text.distinct, start, columns.kinds, columns.orders, columns.slots, columns.levels, out)


def _offset(text: NumberedText, start: int, offset: str, place: IntArray, ends: IntArray) -> FloatArray:
    """Log of the counts, or of how often each type followed the query; counts again where nothing followed it.

    Args:
        place: of the candidates, among the types of the text.
        ends: [n] sums of the sizes of contexts.
    """
    from ccmc._logit.state import fill

    columns = columns_of(("log-count", "log-followed-by-1"))
    found = np.empty((len(place), 2))
    fill(text.local, text.distinct, start, columns.kinds, columns.orders, columns.slots, columns.levels, found)
    counts: FloatArray = found[:, 0]
    if offset == "counts":
        return counts
    times = np.rint(np.expm1(found[:, 1]))
    begins = np.concatenate([[0], ends[:-1]])
    some = np.repeat(np.add.reduceat(times, begins) > 0, np.diff(np.append(begins, ends[-1])))
    with np.errstate(divide="ignore"):
        return np.where(some, np.log(times), counts)


def _targets(
    targets: Any, index: int, text: NumberedText, start: int, size: IntArray, place: IntArray, log_at: LogAt
) -> tuple[FloatArray, FloatArray]:
    """[candidates] target mass, and [n, 2] mass of everything else, and mass x log P0 over it."""
    owner = np.repeat(np.arange(len(size)), size)
    if not isinstance(targets, str):
        inside, beyond = targets[index]
        return np.asarray(inside, dtype=np.float64)[owner, place], np.asarray(beyond, dtype=np.float64)
    following = text.local[start:]
    new = following >= size
    aim = (place == following[owner]).astype(np.float64)
    beyond = np.zeros((len(size), 2))
    beyond[new, 0] = 1.0
    beyond[new, 1] = log_at(text.types[text.local[start - 1 : -1]][new], text.types[following[new]])
    return aim, beyond


def _closed(aim: FloatArray, shift: FloatArray, ptr: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Targets over the candidates that are not ruled out; a choice with none of its target there has no weight."""
    left = np.where(np.isfinite(shift), aim, 0.0)
    mass = np.add.reduceat(left, ptr[:-1])
    empty = mass <= 0
    spare, _, _ = _nothing(shift, ptr)
    owner = np.repeat(np.arange(len(mass)), np.diff(ptr))
    made = np.where(empty[owner], spare, left / np.where(empty, 1.0, mass)[owner])
    return made, np.zeros((len(mass), 2)), np.where(empty, 0.0, 1.0)


def _nothing(shift: FloatArray, ptr: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Targets that mean nothing: the first candidate that is not ruled out."""
    aim = np.zeros(len(shift))
    possible = np.flatnonzero(np.isfinite(shift))
    aim[possible[np.searchsorted(possible, ptr[:-1])]] = 1.0
    return aim, np.zeros((len(ptr) - 1, 2)), np.ones(len(ptr) - 1)
