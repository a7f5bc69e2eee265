"""Random words for the kernels of the simulation: xoshiro256++, one stream for each path, seeded by SplitMix64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel

U64 = np.uint64
_GOLDEN = U64(0x9E3779B97F4A7C15)
_MIX_1 = U64(0xBF58476D1CE4E5B9)
_MIX_2 = U64(0x94D049BB133111EB)
_UNIT = 1.0 / 9007199254740992.0


@kernel
def _mix(x: np.uint64) -> np.uint64:
    """SplitMix64's scrambling of a 64-bit word."""
    x = (x ^ (x >> U64(30))) * _MIX_1
    x = (x ^ (x >> U64(27))) * _MIX_2
    return x ^ (x >> U64(31))


@kernel
def seed_stream(key: NDArray[np.uint64], path: int, state: NDArray[np.uint64]) -> None:
    """State [4] of a path's stream from the seed's key [4]."""
    x = U64(path)
    for k in range(4):
        x = _mix((x + _GOLDEN) ^ key[k])
    for k in range(4):
        x += _GOLDEN
        state[k] = _mix(x)


@kernel
def next_word(s0: np.uint64, s1: np.uint64, s2: np.uint64, s3: np.uint64) -> tuple[np.uint64, ...]:
    """Next word of the stream, and its new state; kept in registers by the caller."""
    total = s0 + s3
    word = ((total << U64(23)) | (total >> U64(41))) + s0
    moved = s1 << U64(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= moved
    s3 = (s3 << U64(45)) | (s3 >> U64(19))
    return word, s0, s1, s2, s3


@kernel
def unit(word: np.uint64) -> float:
    """The upper 53 bits of a word as a number in [0, 1)."""
    return float(np.int64(word >> U64(11))) * _UNIT
