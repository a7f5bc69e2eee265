"""Random draws of units, and random signs: made once for all figures of the same units and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 10_000
_CHUNK = 2_000_000
_KEPT = 4_000_000  # numbers of all draws, up to which they are kept
_FEW = 50  # units; of so few, products of matrices are fast anyway


def resampled(n: int, seed: int, statistic: Callable[[NDArray[np.int64]], Floats], width: int = 1) -> Floats:
    """A statistic on RESAMPLES draws of n units with replacement; it gets rows of indices [draws, n].

    `width`: numbers that it reads for each index, which bounds how many draws it gets at once.
    """
    if n * RESAMPLES > _KEPT:
        return np.concatenate([statistic(drawn) for drawn in _draws(n, seed, chunks(n * width))])
    return np.concatenate([statistic(drawn) for drawn in _kept_draws(n, seed, tuple(chunks(n * width)))])


def _draws(n: int, seed: int, pieces: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    return (generator.integers(0, n, size=(rows, n)) for rows in pieces)


@lru_cache(maxsize=4)
def _kept_draws(n: int, seed: int, pieces: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    """All draws of so many units: figures of one table have the same units and seed."""
    made = tuple(_draws(n, seed, pieces))
    for drawn in made:
        drawn.flags.writeable = False
    return made


def resampled_sums(columns: Floats, seed: int) -> Floats:
    """Sums over RESAMPLES draws of n units with replacement, the draws of `resampled`: [n, k] -> [RESAMPLES, k].

    Args:
        columns: [n, k], finite.
        seed: of the resampling.
    """
    return np.concatenate([_product(times, columns) for times in times_drawn(len(columns), seed)])


def _product(times: Floats, columns: Floats) -> Floats:
    """times @ columns; with the draws side by side in memory it is much faster the other way round."""
    return times @ columns if times.flags.c_contiguous else (columns.T @ times.T).T


def times_drawn(n: int, seed: int) -> Iterable[Floats]:
    """How often each of n units is in each of RESAMPLES draws, those of `resampled`: pieces [draws, n]."""
    if n * RESAMPLES > _KEPT:
        return (_times(drawn) for drawn in _draws(n, seed, chunks(n)))
    return (_kept_times(n, seed, tuple(chunks(n))),)


@lru_cache(maxsize=8)
def _kept_times(n: int, seed: int, pieces: tuple[int, ...]) -> Floats:
    found = _small_times(n, seed, pieces).astype(np.float64)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=64)
def _small_times(n: int, seed: int, pieces: tuple[int, ...]) -> NDArray[np.unsignedinteger]:
    """The same in as few bytes as hold them, so that those of many numbers of units can be kept."""
    found = np.concatenate([_counts(drawn) for drawn in _draws(n, seed, pieces)])
    found = found.astype(np.min_scalar_type(int(found.max())))
    return np.asfortranarray(found) if n > _FEW else found


def _times(drawn: NDArray[np.int64]) -> Floats:
    return _counts(drawn).astype(np.float64)


def _counts(drawn: NDArray[np.int64]) -> NDArray[np.int64]:
    """[draws, n] indices -> how often each of the n units is among them."""
    cells = (np.arange(len(drawn))[:, None] * drawn.shape[1] + drawn).ravel()
    return np.bincount(cells, minlength=drawn.size).reshape(drawn.shape)


def signs_drawn(n: int, seed: int) -> Iterable[NDArray[np.int8]]:
    """RESAMPLES times n random signs, -1 or 1, in pieces [draws, n]."""
    pieces = tuple(chunks(n))
    return _signs(n, seed, pieces) if n * RESAMPLES > _KEPT else _kept_signs(n, seed, pieces)


def _signs(n: int, seed: int, pieces: Sequence[int]) -> Iterator[NDArray[np.int8]]:
    generator = np.random.default_rng(seed)
    return (generator.integers(0, 2, size=(rows, n)).astype(np.int8) * 2 - 1 for rows in pieces)


@lru_cache(maxsize=32)
def _kept_signs(n: int, seed: int, pieces: tuple[int, ...]) -> tuple[NDArray[np.int8], ...]:
    return tuple(_signs(n, seed, pieces))


def chunks(n: int) -> list[int]:
    """RESAMPLES cut into pieces whose arrays of n columns fit in a few dozen megabytes."""
    piece = max(1, _CHUNK // n)
    full, rest = divmod(RESAMPLES, piece)
    return [piece] * full + [rest] * (rest > 0)
