"""Kernels of linear algebra for the fits: means over components, and systems with directions that nothing fixes."""

from __future__ import annotations

import numpy as np

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray


@kernel
def centre(x: FloatArray, component: IntArray, components: int, sums: FloatArray, sizes: FloatArray) -> None:
    """Take the mean over its component off each entry."""
    if components == 1:
        x -= x.mean()
        return
    sums[:components] = 0.0
    sizes[:components] = 0.0
    for c in range(x.shape[0]):
        sums[component[c]] += x[c]
        sizes[component[c]] += 1.0
    for c in range(x.shape[0]):
        x[c] -= sums[component[c]] / sizes[component[c]]


@kernel
def scaled_cholesky(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a symmetric system given by its lower half; directions it cannot tell apart get 0. Both are overwritten."""
    size = right.shape[0]
    scale = np.empty(size)
    for a in range(size):
        scale[a] = 1.0 / np.sqrt(matrix[a, a]) if matrix[a, a] > 0 else 0.0
    for a in range(size):
        right[a] *= scale[a]
        for b in range(a + 1):
            matrix[a, b] *= scale[a] * scale[b]
    for a in range(size):
        for b in range(a):
            inner = matrix[a, b] - matrix[a, :b] @ matrix[b, :b]
            matrix[a, b] = inner / matrix[b, b] if matrix[b, b] > 0 else 0.0
        pivot = matrix[a, a] - matrix[a, :a] @ matrix[a, :a]
        matrix[a, a] = np.sqrt(pivot) if pivot > 1e-13 else 0.0
    for a in range(size):
        inner = right[a] - matrix[a, :a] @ right[:a]
        right[a] = inner / matrix[a, a] if matrix[a, a] > 0 else 0.0
    for a in range(size - 1, -1, -1):
        if matrix[a, a] > 0:
            inner = right[a]
            for b in range(a + 1, size):
                inner -= matrix[b, a] * right[b]
            right[a] = inner / matrix[a, a]
        else:
            right[a] = 0.0
    return right * scale
