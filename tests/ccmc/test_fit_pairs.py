import numpy as np
import pytest
from plain_twins import fit as plain_fit
from scipy import optimize

from ccmc import Contexts, Observations, fit_mle, fit_pairs


def heads(rng, K, H, texts, length, noise=1.0):
    """Contexts of random texts, and attention of H heads over them summed per pair."""
    share = 1 / np.arange(1, K + 1)
    sequences = [rng.choice(K, length, p=share / share.sum()) for _ in range(texts)]
    contexts = Contexts.from_sequences(sequences, K)
    counts = contexts.counts.toarray()
    soft = counts * np.exp(noise * rng.normal(size=(H, *counts.shape)))
    soft /= soft.sum(axis=2, keepdims=True)
    pattern = contexts.pairs().tocoo()
    wins = np.zeros((H, K, K))
    for head in range(H):
        np.add.at(wins[head], contexts.query, soft[head])
    prior = rng.normal(size=(H, K, K))
    return contexts, soft, wins[:, *pattern.coords], prior, prior[:, *pattern.coords]


def position_level(contexts, wins, prior, ridge, weight=None):
    """The objective of `fit_pairs` for one head as a function of delta [pairs], on the dense K x K matrix."""
    counts, query = contexts.counts.toarray(), contexts.query
    row, column = contexts.pairs().tocoo().coords
    weight = np.ones(len(query)) if weight is None else weight

    def value(delta):
        theta = np.zeros((contexts.vocab_size,) * 2)
        theta[row, column] = prior + delta
        mass = counts * np.exp(theta[query])
        p = mass / mass.sum(axis=1, keepdims=True)
        expected = np.zeros_like(theta)
        np.add.at(expected, query, weight[:, None] * p)
        total = weight @ np.log(mass.sum(axis=1)) - wins @ theta[row, column] + ridge / 2 * delta @ delta
        return total, expected[row, column] - wins + ridge * delta

    return value


def test_agrees_with_scipy_on_every_head():
    rng = np.random.default_rng(0)
    contexts, _, wins, _, prior = heads(rng, 12, 3, 4, 30)
    ridge = np.array([0.05, 0.5, 5.0])
    fit = fit_pairs(contexts, wins, prior, ridge, tol=1e-9)
    assert fit.converged.all()
    assert (fit.gradient_norm <= 1e-9).all()
    for head in range(3):
        value = position_level(contexts, wins[head], prior[head], ridge[head])
        found = optimize.minimize(
            value, np.zeros(wins.shape[1]), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9}
        )
        np.testing.assert_allclose(fit.delta[head], found.x, atol=1e-5)
        assert fit.objective[head] == pytest.approx(found.fun, rel=1e-10)
        assert fit.objective[head] <= found.fun + 1e-9
        here, gradient = value(fit.delta[head])
        assert here == pytest.approx(fit.objective[head], rel=1e-12)
        assert abs(gradient).max() < 1e-7
        penalty = ridge[head] / 2 * fit.delta[head] @ fit.delta[head]
        assert fit.log_likelihood[head] == pytest.approx(penalty - here)


def test_is_the_row_centred_problem_over_all_tokens():
    """Unseen tokens may move in the plain problem, and do not."""
    rng = np.random.default_rng(1)
    contexts, soft, wins, prior, prior_at = heads(rng, 5, 1, 1, 12)
    assert contexts.pairs().nnz < 25
    fit = fit_pairs(contexts, wins, prior_at, 0.7, tol=1e-10)
    theta, _ = plain_fit(contexts.counts.toarray(), contexts.query, soft[0], np.ones(len(contexts)), prior[0], 0.7)
    moved = (theta - prior[0]) - (theta - prior[0]).mean(axis=1, keepdims=True)
    expected = np.zeros((5, 5))
    expected[contexts.pairs().tocoo().coords] = fit.delta[0]
    np.testing.assert_allclose(expected, moved, atol=1e-5)


def test_is_fit_mle_for_one_head():
    rng = np.random.default_rng(2)
    contexts, soft, wins, prior, prior_at = heads(rng, 15, 1, 3, 40)
    pairs = fit_pairs(contexts, wins, prior_at, 0.3, tol=1e-9)
    fit = fit_mle(Observations(contexts, soft[0]), prior=prior[0], ridge=0.3, tol=1e-9)
    np.testing.assert_allclose(fit.pair_logits - prior_at[0], pairs.delta[0], atol=1e-9)
    constant = float((soft[0] * np.log(np.maximum(contexts.counts.toarray(), 1))).sum())
    assert fit.log_likelihood == pytest.approx(pairs.log_likelihood[0] + constant)


def test_rows_of_delta_sum_to_zero():
    rng = np.random.default_rng(3)
    contexts, _, wins, _, prior = heads(rng, 30, 2, 4, 60)
    fit = fit_pairs(contexts, wins, prior, 0.2)
    query = contexts.pairs().tocoo().coords[0]
    for head in range(2):
        np.testing.assert_allclose(np.bincount(query, weights=fit.delta[head]), 0, atol=1e-10)


def test_weights_count_rows_and_may_differ_between_heads():
    rng = np.random.default_rng(4)
    contexts, soft, _, _, prior = heads(rng, 8, 2, 2, 25)
    weight = rng.integers(1, 4, (2, len(contexts))).astype(float)
    row, column = contexts.pairs().tocoo().coords
    wins = np.zeros((2, 8, 8))
    for head in range(2):
        np.add.at(wins[head], contexts.query, weight[head][:, None] * soft[head])
    wins = wins[:, row, column]
    both = fit_pairs(contexts, wins, prior, 0.4, tol=1e-9, weight=weight)
    for head in range(2):
        one = fit_pairs(contexts, wins[[head]], prior[[head]], 0.4, tol=1e-9, weight=weight[head])
        np.testing.assert_array_equal(one.delta[0], both.delta[head])
        _, gradient = position_level(contexts, wins[head], prior[head], 0.4, weight[head])(both.delta[head])
        assert abs(gradient).max() < 1e-7


def test_a_warm_start_reaches_the_same_answer_sooner():
    rng = np.random.default_rng(5)
    contexts, _, wins, _, prior = heads(rng, 40, 2, 6, 80)
    near = fit_pairs(contexts, wins, prior, 0.3)
    cold, warm = fit_pairs(contexts, wins, prior, 0.29), fit_pairs(contexts, wins, prior, 0.29, start=near.delta)
    np.testing.assert_allclose(warm.delta, cold.delta, atol=1e-5)
    assert (warm.iterations < cold.iterations).all()


def test_threads_do_not_change_a_bit(monkeypatch):
    rng = np.random.default_rng(6)
    contexts, _, wins, _, prior = heads(rng, 40, 3, 6, 80)
    monkeypatch.setenv("CCMC_THREADS", "1")
    one = fit_pairs(contexts, wins, prior, 0.3)
    monkeypatch.setenv("CCMC_THREADS", "5")
    np.testing.assert_array_equal(fit_pairs(contexts, wins, prior, 0.3).delta, one.delta)
    monkeypatch.setenv("CCMC_THREADS", "none")
    with pytest.raises(ValueError, match="CCMC_THREADS"):
        fit_pairs(contexts, wins, prior, 0.3)


def test_too_few_iterations_are_reported():
    rng = np.random.default_rng(7)
    contexts, _, wins, _, prior = heads(rng, 12, 1, 4, 30)
    fit = fit_pairs(contexts, wins, prior, 0.05, tol=1e-9, max_iterations=2)
    assert not fit.converged[0]
    assert fit.gradient_norm[0] > 1e-9


def test_malformed_arguments_are_refused():
    rng = np.random.default_rng(8)
    contexts, _, wins, _, prior = heads(rng, 6, 2, 1, 10)
    number = wins.shape[1]
    cases = [
        ((wins[:, 1:], prior, 1.0), {}, rf"wins must have shape \[heads, {number}\]"),
        ((wins, prior[:1], 1.0), {}, "prior must have shape"),
        ((wins, prior, 0.0), {}, "ridge of head 0 is 0"),
        ((wins, prior, [1.0, -1.0]), {}, "ridge is -1.0"),
        ((wins, prior, [1.0, 1.0, 1.0]), {}, "ridge must be one number or"),
        ((-wins, prior, 1.0), {}, r"wins\[0, \d+\] is -"),
        ((wins * np.nan, prior, 1.0), {}, r"wins\[0, 0\] is nan"),
        ((2 * wins, prior, 1.0), {}, "head 0: wins of query"),
        ((wins, prior, 1.0), {"start": prior[:1]}, "start must have shape"),
        ((wins, prior, 1.0), {"weight": [1.0]}, "weight must have shape"),
        ((wins, prior, 1.0), {"weight": -np.ones(10)}, "weight of context 0 is -1.0"),
    ]
    for arguments, keywords, message in cases:
        with pytest.raises(ValueError, match=message):
            fit_pairs(contexts, *arguments, **keywords)
