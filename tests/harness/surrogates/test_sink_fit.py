"""The odds of the first position: fitted to known truths, head by head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.data.texts import Text
from harness.surrogates._fitting.sink_fit import RIDGE, TOKEN_RIDGE, UNSEEN, fit_sink

K = 6


def data(seed: int, length: int = 400) -> tuple[Text, Any]:
    """A text, and [2, n] log odds that the weights of two heads might give."""
    rng = np.random.default_rng(seed)
    text = Text(rng.integers(0, K, length), start=1, first=1)
    return text, rng.normal([[-1.0], [2.0]], [[1.0], [0.5]], (2, len(text)))


def test_intercept_slope_and_effects_of_tokens_are_found() -> None:
    text, prior = data(0, 20_000)
    effect = np.random.default_rng(1).normal(size=(2, K))
    effect -= effect.mean(axis=1, keepdims=True)
    query = text.types[text.query]
    odds = np.array([[0.3], [-1.0]]) + np.array([[0.5], [1.5]]) * prior + effect[:, query]
    found = fit_sink([text], [odds], [prior], K)
    np.testing.assert_allclose(found.c, [0.5, 1.5], atol=0.01)
    np.testing.assert_allclose(found.a[:, None] + found.effect, np.array([[0.3], [-1.0]]) + effect, atol=0.05)


def test_every_head_is_at_rest_and_does_not_depend_on_the_others() -> None:
    text, prior = data(2)
    odds = prior * 0.7 + np.random.default_rng(3).normal(size=prior.shape)
    found = fit_sink([text], [odds], [prior], K)
    share, query = 1.0 / (1.0 + np.exp(-odds)), text.types[text.query]
    pull = 1.0 / (1.0 + np.exp(-(found.a[:, None] + found.c[:, None] * prior + found.effect[:, query]))) - share
    np.testing.assert_allclose(pull.sum(1), 0.0, atol=0.01)
    np.testing.assert_allclose((pull * prior).sum(1) + RIDGE * (found.c - 1.0), 0.0, atol=0.05)
    for head, row in enumerate(pull):
        of_token = np.bincount(query, weights=row, minlength=K) + TOKEN_RIDGE * found.effect[head]
        np.testing.assert_allclose(of_token, 0.0, atol=0.01)
    alone = fit_sink([text], [odds[1:]], [prior[1:]], K)
    assert alone.a[0] == pytest.approx(found.a[1], abs=1e-9)


def test_a_window_that_hides_the_first_position_everywhere_leaves_the_weights() -> None:
    text, prior = data(4, 50)
    found = fit_sink([text], [np.full_like(prior, 10.0 * UNSEEN)], [prior], K)
    assert found.a.tolist() == [0.0, 0.0]
    assert found.c.tolist() == [1.0, 1.0]
    assert not found.effect.any()
