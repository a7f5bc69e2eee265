"""Base transitions in sparse form against dense rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ccmc import BaseTransition, ContextLogit
from ccmc.base import Factors, exponents


@pytest.fixture
def base():
    p = np.random.default_rng(0).dirichlet(np.full(30, 0.3), 20) + 1e-7
    return BaseTransition.from_rows(np.arange(5, 25), p / p.sum(axis=1, keepdims=True), top=6)


def test_rows_are_distributions_and_keep_their_likeliest(base):
    dense = np.exp([base.log_row(q) for q in range(30)])
    np.testing.assert_allclose(dense.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(dense[0], np.exp(base.log_unigram))  # no row of its own
    assert (np.argsort(-dense[5], kind="stable")[:6] == base.tokens[0]).all()


@pytest.mark.parametrize("a", [0.3, 1.0, 1.7, -0.5])
def test_moments_are_sums_over_all_tokens(base, a):
    found = base.moments(a)
    for query in (0, 5, 17, 24):
        log = base.log_row(query)
        weight = np.exp(a * log)
        expected = [np.log(weight.sum()), weight @ log / weight.sum(), weight @ log**2 / weight.sum()]
        np.testing.assert_allclose(found[base.row[query]], expected, rtol=1e-10, atol=1e-10)


def test_log_at_reads_pairs(base):
    query, token = np.repeat(np.arange(30), 30), np.tile(np.arange(30), 30)
    expected = np.stack([base.log_row(q) for q in range(30)]).ravel()
    np.testing.assert_allclose(base.log_at(query, token), expected)


def test_a_matrix_is_kept_exactly():
    p = np.random.default_rng(1).dirichlet(np.ones(7), 7)
    base = BaseTransition.from_transition(p)
    np.testing.assert_allclose(np.exp([base.log_row(q) for q in range(7)]), p, rtol=1e-14)


def test_saved_and_read_again(base, tmp_path):
    base.save(tmp_path / "base.safetensors")
    again = BaseTransition.load(tmp_path / "base.safetensors")
    for name in ("row", "tokens", "log_p", "log_scale", "log_unigram"):
        np.testing.assert_array_equal(getattr(again, name), getattr(base, name))
        assert getattr(again, name).dtype == getattr(base, name).dtype


def test_wrong_rows_are_named():
    with pytest.raises(ValueError, match=r"row 1 \(query 4\) is no distribution"):
        BaseTransition.from_rows([3, 4], [[0.5, 0.5], [0.5, 0.4]])
    with pytest.raises(ValueError, match="different tokens"):
        BaseTransition.from_rows([3, 3], [[0.5, 0.5]] * 2)
    with pytest.raises(ValueError, match="token 1 has 0"):
        BaseTransition.of_unigram([1.0, 0.0])
    with pytest.raises(ValueError, match="at least one token"):
        BaseTransition.flat(0)


@pytest.fixture
def of_logits():
    """Rows that are logits of a model, as factors, and the same rows dense."""
    rng = np.random.default_rng(2)
    hidden, keys = rng.normal(size=(20, 16)).astype(np.float32), rng.normal(size=(200, 16)).astype(np.float32)
    bias, cap = rng.normal(size=200), 12.0
    logits = cap * np.tanh((hidden.astype(float) @ keys.T.astype(float) + bias) / cap)
    norm = np.logaddexp.reduce(logits, axis=1)
    log = logits - norm[:, None]
    sums = np.stack([np.logaddexp.reduce(a * log, axis=1) for a in exponents()], axis=1)
    p = np.exp(log)
    sparse = BaseTransition.from_rows(np.arange(20), p / p.sum(axis=1, keepdims=True), top=10)
    row = np.append(np.arange(20), np.full(180, -1))
    factors = Factors(hidden, keys, bias, cap, norm, sums)
    return BaseTransition(row, sparse.tokens, sparse.log_p, sparse.log_scale, sparse.log_unigram, factors), log


def test_factors_keep_rows_exactly(of_logits, tmp_path):
    base, log = of_logits
    np.testing.assert_allclose(np.stack([base.log_row(q) for q in range(20)]), log, atol=2e-5)
    query, token = np.repeat(np.arange(20), 200), np.tile(np.arange(200), 20)
    np.testing.assert_allclose(base.log_at(query, token), log.ravel(), atol=2e-5)
    np.testing.assert_allclose(base.log_at([150], [3]), base.log_unigram[3])
    base.save(tmp_path / "base.safetensors")
    again = BaseTransition.load(tmp_path / "base.safetensors")
    np.testing.assert_array_equal(again.log_row(4), base.log_row(4))


@pytest.mark.parametrize("a", [0.06, 0.3, 1.0, 1.25])
def test_sums_of_factors_are_interpolated(of_logits, a):
    base, log = of_logits
    weight = np.exp(a * log)
    mean = (weight * log).sum(axis=1) / weight.sum(axis=1)
    square = (weight * log**2).sum(axis=1) / weight.sum(axis=1)
    found = base.moments(a)[:20]
    np.testing.assert_allclose(found[:, 0], np.log(weight.sum(axis=1)), atol=1e-4)
    np.testing.assert_allclose(found[:, 1], mean, atol=5e-3)
    np.testing.assert_allclose(found[:, 2], square, rtol=2e-2, atol=0.5)


def test_a_logit_over_factors_walks_by_their_probabilities(of_logits):
    base, _ = of_logits
    model, prompt = ContextLogit({"base": 0.9, "present": 2.0, "log-count": 0.5}, base), [1, 2, 1, 5, 7, 7]
    p = model.next_token([prompt])[0]
    assert p.sum() == pytest.approx(1.0, abs=1e-4)
    held = np.unique(prompt)
    found = np.bincount(model.rollout([prompt] * 20_000, 1, 0)[:, 0], minlength=200)
    inside = np.append(found[held], 20_000 - found[held].sum())
    assert stats.chisquare(inside, 20_000 * np.append(p[held], 1 - p[held].sum())).pvalue > 1e-4
