"""Exponentials of many numbers against those of numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numba.core.caching import NullCache

from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.exponentials import exponentials


def of(x):
    found, scratch = np.array(x, dtype=np.float64), np.empty(len(x))
    exponentials(found, len(x), scratch, scratch.view(np.int64))
    return found


def test_they_are_right_to_the_last_places():
    x = np.concatenate([np.random.default_rng(0).uniform(-700, 700, 20_000), np.linspace(-1, 1, 2001)])
    np.testing.assert_array_max_ulp(of(x), np.exp(x), maxulp=2)


@pytest.mark.parametrize(("x", "expected"), [(0.0, 1.0), (-0.0, 1.0), (-np.inf, 0.0), (-701.0, 0.0), (-1e300, 0.0)])
def test_ends(x, expected):
    assert of([x])[0] == expected


def test_only_the_first_are_written():
    x, scratch = np.array([1.0, 2.0, 3.0]), np.empty(3)
    exponentials(x, 2, scratch, scratch.view(np.int64))
    assert x[2] == 3.0


def test_a_kernel_keeps_the_order_of_sums_where_its_caller_need_not():
    """It is compiled for the caller here, which must not lend it leave to reorder."""

    def rounded(x):
        return (x + 6755399441055744.0) - 6755399441055744.0

    def calls(x):
        return inner(x)

    inner, outer = kernel(rounded), summing_kernel(calls)
    for one in (inner, outer):
        one._cache = NullCache()  # compiled here and now
    assert outer(0.3) == 0.0
    assert inner(0.3) == 0.0
