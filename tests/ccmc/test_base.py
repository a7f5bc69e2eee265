"""Base transitions in sparse form against dense rows."""

from __future__ import annotations

import numpy as np
import pytest

from ccmc import BaseTransition


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
