import numpy as np
import pytest
from plain_twins import next_token, objective, one_hot
from scipy import optimize

from ccmc import CCMC, Contexts, NoMaximumLikelihoodEstimate, Observations, fit_bilinear, fit_mle


def sample(rng, K, n, d):
    """Contexts holding their query, tokens drawn from a bilinear chain with d features, and those features."""
    counts = rng.integers(0, 3, (n, K))
    query = rng.integers(0, K, n)
    counts[np.arange(n), query] += 1
    features, form = rng.normal(size=(K, d)), rng.normal(size=(d, d)) / d
    p = CCMC((features @ form @ features.T).T).next_token(counts, query)
    targets = (p.cumsum(axis=1) > rng.random((n, 1)) * (1 - 1e-12)).argmax(axis=1)
    return counts.astype(float), query, targets, features, form


@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_one_hot_features_give_the_tabular_fit(ridge):
    rng = np.random.default_rng(0)
    counts, query, targets, _, _ = sample(rng, 5, 800, 3)
    observations, prior = Observations(Contexts(counts, query), targets), rng.normal(size=(5, 5))
    table = fit_mle(observations, prior=prior, ridge=ridge, tol=1e-10)
    fit = fit_bilinear(observations, np.eye(5), prior=prior, ridge=ridge, tol=1e-10)
    assert fit.converged
    np.testing.assert_allclose(fit.chain.logits, table.chain.logits, atol=1e-8)
    assert fit.log_likelihood == pytest.approx(table.log_likelihood, rel=1e-12)
    # A constant on each row changes nothing.
    assert fit.free_directions == 5
    assert fit.identifiability.identified


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_agrees_with_a_general_optimiser_on_the_plain_objective(ridge):
    rng = np.random.default_rng(1)
    counts, query, targets, features, _ = sample(rng, 6, 150, 2)
    weight, prior = rng.random(150), rng.normal(size=(6, 6))
    fit = fit_bilinear(Observations(Contexts(counts, query), targets, weight), features, prior=prior, ridge=ridge)

    def plain(flat):
        theta = (features @ flat.reshape(2, 2) @ features.T).T
        value, slope = objective(theta, counts, query, one_hot(targets, 6), weight, prior, ridge)
        return value, (features.T @ slope.T @ features).ravel()

    found = optimize.minimize(plain, np.zeros(4), jac=True, method="L-BFGS-B", options={"gtol": 1e-10, "ftol": 1e-15})
    np.testing.assert_allclose(fit.W, found.x.reshape(2, 2), atol=1e-5)
    value, gradient = plain(fit.W.ravel())
    assert value <= found.fun + 1e-9
    assert abs(gradient).max() < 1e-6
    assert fit.identified
    likelihood = sum(
        w * np.log(next_token(fit.chain.logits, m, i)[y])
        for w, m, i, y in zip(weight, counts, query, targets, strict=True)
    )
    assert fit.log_likelihood == pytest.approx(likelihood)


def test_the_form_of_a_chain_is_found_again_and_a_basis_does_not_matter():
    rng = np.random.default_rng(2)
    counts, query, _, features, form = sample(rng, 12, 600, 4)
    soft = CCMC((features @ form @ features.T).T).next_token(counts, query)
    observations = Observations(Contexts(counts, query), soft)
    fit = fit_bilinear(observations, features, tol=1e-10)
    np.testing.assert_allclose(fit.W, form, atol=1e-7)
    turn = rng.normal(size=(4, 4)) + 3 * np.eye(4)
    turned = fit_bilinear(observations, features @ turn, tol=1e-10)
    np.testing.assert_allclose(turn @ turned.W @ turn.T, fit.W, atol=1e-7)


def test_directions_that_change_no_probability_are_counted_and_left_at_zero():
    rng = np.random.default_rng(3)
    counts, query, targets, features, _ = sample(rng, 6, 500, 2)
    observations = Observations(Contexts(counts, query), targets)
    plain = fit_bilinear(observations, features)
    # A feature that is the same for all tokens is worth nothing as a key: as many directions as there are features.
    constant = fit_bilinear(observations, np.column_stack([features - features.mean(axis=0), np.ones(6)]))
    assert plain.free_directions == 0
    assert constant.free_directions == 3
    np.testing.assert_allclose(constant.W[2], 0, atol=1e-8)
    # A feature given twice adds no chain: only its sum is determined.
    twice = fit_bilinear(observations, np.column_stack([features, features[:, 0]]))
    assert twice.free_directions == 9 - 4
    np.testing.assert_allclose(twice.chain.logits, plain.chain.logits, atol=1e-6)


def test_a_fit_exists_where_features_tie_tokens_together():
    """Token 2 never wins, so its own logit diverges; two tokens that share their features rise and fall together."""
    contexts = Contexts(np.ones((4, 3)), np.zeros(4, int))
    observations = Observations(contexts, np.array([0, 0, 1, 1]))
    with pytest.raises(NoMaximumLikelihoodEstimate, match="query 0: tokens 2"):
        fit_bilinear(observations, np.eye(3))
    tied = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    fit = fit_bilinear(observations, tied)
    assert fit.converged
    # Tokens 1 and 2 are equally likely, and 0 gets its half of the wins.
    np.testing.assert_allclose(fit.chain.transition[0], [0.5, 0.25, 0.25], atol=1e-8)
    assert fit_bilinear(observations, np.eye(3), ridge=0.1).converged


def test_malformed_features_are_refused():
    observations = Observations(Contexts(np.ones((2, 2)), np.array([0, 0])), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"features must have shape \[2, d\]"):
        fit_bilinear(observations, np.eye(3))
    with pytest.raises(ValueError, match=r"features\[1, 0\] is nan"):
        fit_bilinear(observations, [[1.0], [np.nan]])
    with pytest.raises(ValueError, match="tol must be positive"):
        fit_bilinear(observations, np.eye(2), tol=0)
