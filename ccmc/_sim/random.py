"""Random words for the kernels of the simulation: xoshiro256++, one stream for each path.

A stream is seeded by SplitMix64 from the seed of the call, the tokens of the path's prompt and the number of equal
prompts before it. So a path is the same whatever other prompts there are, and equal prompts have paths of their own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel
from ccmc._data.types import IntArray

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
def name_paths(tokens: IntArray, offsets: IntArray, names: NDArray[np.uint64]) -> None:
    """What each prompt is called: two hashes of its tokens and the number of equal prompts before it, names [n, 3].

    Prompts are equal where both hashes are, which different ones are with a probability of about n^2 / 2^129.
    """
    n = names.shape[0]
    slots = 4
    while slots < 2 * n:
        slots *= 2
    first = np.full(slots, -1, np.int64)  # the first prompt of each name, found by the lower bits of its hash
    met = np.zeros(n, np.int64)
    for p in range(n):
        a = b = U64(offsets[p + 1] - offsets[p])
        for t in range(offsets[p], offsets[p + 1]):
            a = (a ^ U64(tokens[t])) * _MIX_1
            b = (b ^ U64(tokens[t])) * _MIX_2
            a ^= a >> U64(32)
            b ^= b >> U64(29)
        a, b = _mix(a), _mix(b)
        slot = np.int64(a & U64(slots - 1))
        while first[slot] >= 0 and (names[first[slot], 0] != a or names[first[slot], 1] != b):
            slot = (slot + 1) & (slots - 1)
        if first[slot] < 0:
            first[slot] = p
        names[p, 0], names[p, 1], names[p, 2] = a, b, U64(met[first[slot]])
        met[first[slot]] += 1


@kernel
def seed_stream(key: NDArray[np.uint64], name: NDArray[np.uint64], state: NDArray[np.uint64]) -> None:
    """State [4] of a path's stream from the seed's key [4] and the name [3] of its prompt."""
    x = U64(0)
    for part in name:
        for k in range(4):
            x = _mix((x + _GOLDEN) ^ key[k] ^ part)
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
