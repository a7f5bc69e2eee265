"""What a conditional logit is summed over, as arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ccmc._data.types import FloatArray, IntArray

Features = NDArray[np.float32] | NDArray[np.float64]


class Logits(Protocol):
    """The arrays of rows that are logits: `ccmc.base.Factors`."""

    @property
    def hidden(self) -> NDArray[np.float32]: ...
    @property
    def keys(self) -> NDArray[np.float32]: ...
    @property
    def bias(self) -> FloatArray: ...
    @property
    def cap(self) -> float: ...
    @property
    def log_norm(self) -> FloatArray: ...


class Base(Protocol):
    """The arrays of base transitions: `ccmc.base.BaseTransition`."""

    @property
    def row(self) -> IntArray: ...
    @property
    def tokens(self) -> NDArray[np.int32]: ...
    @property
    def log_p(self) -> FloatArray: ...
    @property
    def log_scale(self) -> FloatArray: ...
    @property
    def log_unigram(self) -> FloatArray: ...
    @property
    def factors(self) -> Logits | None: ...
    @property
    def frequent(self) -> IntArray: ...
    @property
    def positive(self) -> bool: ...
    def moments(self, a: float) -> FloatArray: ...
    def log_row(self, query: int) -> FloatArray: ...
    def log_at(self, query: IntArray, token: IntArray) -> FloatArray: ...
    def log_between(self, query: IntArray, token: IntArray) -> FloatArray: ...


class Bases(Protocol):
    """P0 text by text: `ccmc.bases.TextBases`."""

    def __getitem__(self, text: int) -> Base: ...


class Sums(Protocol):
    """Sums of P0^a over a vocabulary: `ccmc.bases.TextBases`."""

    @property
    def positive(self) -> bool: ...
    def moments(self, a: float) -> FloatArray: ...


@dataclass(frozen=True, eq=False)
class Terms:
    """n choices of N candidates.

    Attributes:
        ptr: [n + 1]; features: [N, D]; offsets, log_p0, targets: [N]; weights: [n].
        base: P0, where tokens that are no candidates have the weight P0^a.
        row_of: [n] row of the moments of the base, -1 where there are only candidates.
        beyond: [n] target x log P0 summed over all other tokens.
        beyond_target: [n] their target.
        ends: gives [n, 2] the least and the largest log P0 among these tokens, infinite where there are none.
    """

    ptr: IntArray
    features: Features
    offsets: FloatArray
    log_p0: FloatArray
    targets: FloatArray
    weights: FloatArray
    base: Sums | None
    row_of: IntArray
    beyond: FloatArray
    beyond_target: FloatArray
    ends: Callable[[], FloatArray] | None = None

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @cached_property
    def columns(self) -> Features:
        """[D, N] the features column by column: a view where they lie in memory so."""
        found: Any = np.ascontiguousarray(self.features.T)
        return cast(Features, found)

    def moments(self, a: float) -> FloatArray:
        """[R + 1, 3] of the base, or zeros."""
        return np.zeros((1, 3)) if self.base is None else self.base.moments(a)
