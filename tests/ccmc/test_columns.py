"""The pass over columns against the pass over rows, which says the same row by row."""

import numpy as np
import pytest

from ccmc._data.columns import BLOCK, to_columns
from ccmc._fit.column_pass import column_pass
from ccmc._fit.passes import exponentials, gradient_pass


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.float64])
@pytest.mark.parametrize("weights", ["ones", "equal", "different"])
@pytest.mark.parametrize("spread", [1.0, 300.0])
@pytest.mark.parametrize("rows", [1, 7, BLOCK, BLOCK + 9])
def test_columns_add_up_to_what_rows_do(coarse, kind, weights, spread, rows):
    """With a spread of 300 nats rows underflow whose tokens all lie far below the best."""
    rng = np.random.default_rng(rows)
    size, stride = 11, 16
    table = np.zeros((rows, stride), kind)
    table[:, :size] = rng.integers(0, 4, (rows, size)) * (rng.random((rows, size)) < 0.3)
    table[:, 3] += 1
    z = spread * rng.normal(size=size)
    z[3] = z.max() - (2000 if spread > 1 else 1)
    weight = {"ones": np.ones(rows), "equal": np.full(rows, 2.5), "different": rng.random(rows) + 0.1}[weights]
    w = np.empty(stride)
    exponentials(z, w)
    tolerance = 3e-6 if coarse else 1e-11
    found = []
    for by_column in (True, False):
        inverse, slope, extra = np.empty(rows), np.zeros(stride), np.zeros(size)
        flat = table.ravel()
        if by_column:
            columns = to_columns(rows, size, stride, flat)
            total = column_pass(coarse, rows, columns, stride, flat, weight, z, w, inverse, slope, extra)
        else:
            indptr = np.arange(0, stride * (rows + 1), stride)
            nothing = np.empty(0, np.uint8)
            total = gradient_pass(0, rows, True, indptr, nothing, flat, weight, z, w, inverse, slope, extra)
        found.append((total, inverse, w[:size] * slope[:size] + extra))
    if coarse:
        # Single precision underflows sooner; such rows are summed on their own, and have no inverse.
        found[1][1][found[0][1] == 0] = 0
    for mine, plain in zip(*found, strict=True):
        np.testing.assert_allclose(mine, plain, rtol=tolerance, atol=1e-300)
    log_terms = np.where(table[:, :size] > 0, np.log(np.maximum(table[:, :size], 1e-300)) + z, -np.inf)
    best = log_terms.max(axis=1)
    exact = weight @ (best + np.log(np.exp(log_terms - best[:, None]).sum(axis=1)) - z.max())
    assert found[0][0] == pytest.approx(exact, rel=tolerance)
    assert (found[0][1] == 0).any() == (spread > 1 and best.min() < z.max() - (80 if coarse else 240))
