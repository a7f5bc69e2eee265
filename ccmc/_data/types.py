"""Array types that the whole package speaks in."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

if TYPE_CHECKING:
    Csr: TypeAlias = sparse.csr_array[np.float64, tuple[int, int]]
else:
    Csr = sparse.csr_array
