"""The rule for float32 tolerances: rounding stays inside, whatever the order of a sum, and ten times more does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small_models
import torch
from float32 import EPS, FLOAT64, assert_close32, assert_within, growth, in_float64, tolerance


def running(values: Any) -> Any:
    """Sums of rows one after the other, each rounded: the order with the largest error."""
    total = np.zeros(len(values), np.float32)
    for column in values.T:
        total = total + column
    return total


@pytest.mark.parametrize("n", [3, 48, 700, 20_000])
def test_dot_products_in_any_order_are_within_and_ten_times_that_is_not(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(2, 50, n)).astype(np.float32)
    exact, scale = (x.astype(float) * y).sum(1), np.abs(x.astype(float) * y).sum(1)
    orders = {
        "forwards": running(x * y),
        "backwards": running((x * y)[:, ::-1]),
        "pairwise": (x * y).sum(1),
        "torch": torch.bmm(torch.as_tensor(x)[:, None], torch.as_tensor(y)[:, :, None])[:, 0, 0].numpy(),
    }
    for name, found in orders.items():
        assert_close32(found, exact, scale=scale, operations=n, what=name)
        with pytest.raises(AssertionError, match=r"1 of 50 differ by too much"):
            moved = found + 10 * tolerance(scale, n) * (np.arange(50) == 7)
            assert_close32(moved, exact, scale=scale, operations=n)


def test_the_bound_is_the_worst_case_until_the_random_walk_is_below_it() -> None:
    assert [growth(n) for n in (1, 4, 64)] == [1, 4, 64]
    assert growth(6400) == 640
    assert tolerance(3.0, 5) == 15 * EPS == 15 * 2.0**-23
    np.testing.assert_array_equal(tolerance(np.array([-1.0, 0.0]), 2), [2 * EPS, 0.0])


def test_what_is_not_finite_must_agree() -> None:
    assert_within([np.inf, -np.inf, np.nan, 1.0], [np.inf, -np.inf, np.nan, 1.0], 0.0)
    for other in (-np.inf, np.nan, 1.0):
        with pytest.raises(AssertionError):
            assert_within([np.inf], [other], 1e9)


def test_a_model_in_float64_rounds_nowhere_to_float32() -> None:
    """Its norms and its eager softmax are written for float32; left alone they would."""
    model, ids = small_models.llama(2, scale=0.4).double(), torch.as_tensor(small_models.random_ids(40))[None]
    shorter = ids[:, :25]

    def gap() -> float:
        found = []
        for kernel in ("sdpa", "eager"):
            model.set_attn_implementation(kernel)
            found.append(model(ids).logits[:, :25])
        found.append(model(shorter).logits)
        return float(max((one - found[0]).abs().max() for one in found))

    with in_float64():
        assert gap() < FLOAT64
        assert torch.zeros(2).double().to(torch.float32).dtype is torch.float64
    assert gap() > 100 * FLOAT64
    assert torch.zeros(2).double().to(torch.float32).dtype is torch.float32
