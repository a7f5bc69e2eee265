import numpy as np
import pytest
from plain_twins import fit as plain_fit
from plain_twins import next_token, objective, one_hot
from scipy import sparse, stats

from ccmc import CCMC, Contexts, NoMaximumLikelihoodEstimate, Observations, fit_mle, simulate


def sample(rng, K, n, spread=1.0, density=0.8):
    """Contexts holding their query, and tokens drawn from a random chain."""
    counts = rng.integers(1, 4, (n, K)) * (rng.random((n, K)) < density)
    query = rng.integers(0, K, n)
    counts[np.arange(n), query] += 1
    chain = CCMC(spread * rng.normal(size=(K, K)))
    p = chain.next_token(counts, query)
    targets = (p.cumsum(axis=1) > rng.random((n, 1)) * (1 - 1e-12)).argmax(axis=1)
    return chain, counts.astype(float), query, targets


def centred(logits):
    return logits - logits.mean(axis=1, keepdims=True)


def test_two_tokens_in_closed_form():
    """With counts (a, b) and shares (s, 1 - s) of wins the odds are s b / ((1 - s) a)."""
    contexts = Contexts(np.array([[3.0, 1.0]] * 10 + [[1.0, 1.0]] * 4), np.array([0] * 10 + [1] * 4))
    fit = fit_mle(Observations(contexts, np.array([0] * 6 + [1] * 4 + [0, 1, 1, 1])))
    np.testing.assert_allclose(fit.chain.transition, [[6 / 18, 12 / 18], [0.25, 0.75]])
    assert fit.converged
    assert fit.gradient_norm <= 1e-8
    assert fit.log_likelihood == pytest.approx(6 * np.log(0.6) + 4 * np.log(0.4) + np.log(0.25) + 3 * np.log(0.75))
    # Information of a logit difference is n s (1 - s); measured from the mean, a logit's error is half of it.
    np.testing.assert_allclose(fit.standard_errors()[0], 0.5 / np.sqrt(10 * 0.6 * 0.4))


def test_full_context_with_equal_counts_gives_the_frequencies():
    counts, wins = np.ones((100, 4)), [10, 20, 30, 40]
    fit = fit_mle(Observations(Contexts(counts, np.zeros(100, int)), np.repeat(np.arange(4), wins)))
    np.testing.assert_allclose(fit.chain.transition[0], np.array(wins) / 100, rtol=1e-8)


@pytest.mark.parametrize("ridge", [0.0, 0.3, 20.0])
@pytest.mark.parametrize("kind", ["hard", "soft", "weighted"])
def test_agrees_with_a_general_optimiser_on_the_plain_objective(kind, ridge):
    rng = np.random.default_rng(5)
    chain, counts, query, targets = sample(rng, 4, 120, spread=0.5, density=0.9)
    weight = rng.random(120) if kind == "weighted" else np.ones(120)
    plain = one_hot(targets, 4)
    if kind == "soft":
        plain = chain.next_token(counts, query) * np.exp(rng.normal(size=(120, 4)))
        plain /= plain.sum(axis=1, keepdims=True)
    prior = rng.normal(size=(4, 4))
    observations = Observations(Contexts(counts, query), plain if kind == "soft" else targets, weight)
    fit = fit_mle(observations, prior=prior, ridge=ridge)
    theta, value = plain_fit(counts, query, plain, weight, prior, ridge)
    np.testing.assert_allclose(centred(fit.chain.logits), centred(theta), atol=2e-5)
    mine, gradient = objective(fit.chain.logits, counts, query, plain, weight, prior, ridge)
    assert mine <= value + 1e-9 * abs(value)
    wins = np.zeros((4, 4))
    np.add.at(wins, query, weight[:, None] * plain)
    assert (abs(gradient) / (wins + ridge)).max() <= 2e-8
    likelihood, _ = objective(fit.chain.logits, counts, query, plain, weight, prior, 0.0)
    assert fit.log_likelihood == pytest.approx(-likelihood)


def test_dense_sparse_and_wins_lead_to_the_same_fit():
    rng = np.random.default_rng(6)
    chain, counts, query, _ = sample(rng, 5, 80)
    soft = chain.next_token(counts, query) ** 0.7
    soft /= soft.sum(axis=1, keepdims=True)
    wins = np.zeros((5, 5))
    np.add.at(wins, query, soft)
    dense, csr = Contexts(counts, query), Contexts(sparse.csr_array(counts), query)
    fits = [
        fit_mle(observations)
        for observations in (
            Observations(dense, soft),
            Observations(csr, sparse.csr_array(soft)),
            Observations(csr, soft),
            Observations.from_wins(csr, wins),
        )
    ]
    for fit in fits[1:]:
        np.testing.assert_allclose(fit.chain.logits, fits[0].chain.logits, atol=1e-7)
    with pytest.raises(ValueError, match="bootstrap soft targets"):
        fits[0].standard_errors()


def test_soft_targets_of_a_chain_give_that_chain_back():
    rng = np.random.default_rng(7)
    chain, counts, query, _ = sample(rng, 6, 200, spread=3.0)
    fit = fit_mle(Observations(Contexts(counts, query), chain.next_token(counts, query)), tol=1e-11)
    np.testing.assert_allclose(fit.chain.logits, chain.logits, atol=1e-7)


def test_a_fit_that_cannot_exist_names_query_and_tokens():
    contexts = Contexts(np.ones((4, 3)), np.array([0, 0, 1, 1]))
    observations = Observations(contexts, np.array([0, 1, 2, 2]))
    with pytest.raises(NoMaximumLikelihoodEstimate, match="query 0: tokens 2; query 1: tokens 0, 1") as caught:
        fit_mle(observations)
    assert isinstance(caught.value, ValueError)
    assert caught.value.diverging == [(0, 2), (1, 0), (1, 1)]
    fit = fit_mle(observations, ridge=0.1)
    assert fit.converged
    assert not fit.identifiability.mle_exists
    many = Observations(Contexts(np.ones((1, 30)), np.array([0])), np.array([0]))
    with pytest.raises(NoMaximumLikelihoodEstimate, match="and 19 more"):
        fit_mle(many)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_components_and_unseen_queries_keep_the_priors_means(ridge):
    """Contexts of query 0 hold {0, 1} or {2, 3}, never token 4; queries 1 ... 4 never occur."""
    counts = np.array([[1, 1, 0, 0, 0]] * 4 + [[0, 0, 2, 1, 0]] * 5, float)
    contexts = Contexts(counts, np.zeros(9, int))
    prior = np.random.default_rng(8).normal(size=(5, 5))
    fit = fit_mle(Observations(contexts, np.array([0, 0, 0, 1, 2, 2, 3, 3, 3])), prior=prior, ridge=ridge, tol=1e-11)
    assert not fit.identifiability.identified
    np.testing.assert_allclose(fit.chain.logits[1:], CCMC(prior).logits[1:], atol=1e-12)
    difference = fit.chain.logits[0] - CCMC(prior).logits[0]
    means = [difference[:2].mean(), difference[2:4].mean(), difference[4]]
    np.testing.assert_allclose(means, means[0], atol=1e-10)
    if ridge == 0:
        odds = np.exp(fit.chain.logits[0, [0, 2]] - fit.chain.logits[0, [1, 3]])
        np.testing.assert_allclose(odds, [3.0, 2 / 3 / 2], rtol=1e-9)
        errors = fit.standard_errors()
        assert np.isnan(errors[0, 4])
        assert np.isnan(errors[1:]).all()
        np.testing.assert_allclose(errors[0, :2], 0.5 / np.sqrt(4 * 0.75 * 0.25))


def test_the_minimum_norm_answer_is_the_limit_of_small_ridges():
    counts = np.array([[1, 1, 0, 0]] * 4 + [[0, 0, 2, 1]] * 5, float)
    observations = Observations(Contexts(counts, np.zeros(9, int)), np.array([0, 0, 0, 1, 2, 2, 3, 3, 3]))
    prior = np.random.default_rng(9).normal(size=(4, 4))
    limit = fit_mle(observations, prior=prior, ridge=1e-7).chain.logits
    np.testing.assert_allclose(fit_mle(observations, prior=prior).chain.logits, limit, atol=1e-5)


def test_ridge_interpolates_between_data_and_prior():
    rng = np.random.default_rng(10)
    _, counts, query, targets = sample(rng, 4, 400)
    observations, prior = Observations(Contexts(counts, query), targets), rng.normal(size=(4, 4))
    distance = [
        np.linalg.norm(centred(fit_mle(observations, prior=prior, ridge=ridge).chain.logits - prior))
        for ridge in (0.0, 1.0, 10.0, 1e3, 1e7)
    ]
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] < 1e-4


def test_standard_errors_are_the_pseudo_inverse_of_the_plain_information():
    rng = np.random.default_rng(11)
    _, counts, query, targets = sample(rng, 5, 600)
    fit = fit_mle(Observations(Contexts(counts, query), targets))
    for i in range(5):
        information = np.zeros((5, 5))
        for m in counts[query == i]:
            p = next_token(fit.chain.logits, m, i)
            information += np.diag(p) - np.outer(p, p)
        expected = np.sqrt(np.diag(np.linalg.pinv(information, rcond=1e-10)))
        np.testing.assert_allclose(fit.standard_errors()[i], expected, rtol=1e-6)


@pytest.mark.parametrize("far", [30.0, 1000.0])
def test_priors_hundreds_of_nats_away_do_no_harm(far):
    rng = np.random.default_rng(12)
    for ridge in (0.0, 1e-3, 1.0, 100.0):
        _, counts, query, targets = sample(rng, 6, 400, density=0.6)
        prior = far * rng.normal(size=(6, 6))
        fit = fit_mle(Observations(Contexts(counts, query), targets), prior=prior, ridge=ridge)
        assert fit.converged
        plain = one_hot(targets, 6)
        theta = prior + centred(fit.chain.logits - prior)
        _, gradient = objective_safe(theta, counts, query, plain, prior, ridge)
        wins = np.zeros((6, 6))
        np.add.at(wins, query, plain)
        assert (abs(gradient) / (wins + ridge)).max() < 1e-6


def objective_safe(theta, counts, query, targets, prior, ridge):
    """Gradient alone where probabilities underflow and their logarithm is minus infinity."""
    gradient = ridge * centred(theta - prior)
    for m, i, t in zip(counts, query, targets, strict=True):
        gradient[i] += next_token(theta, m, i) - t
    return None, gradient


def test_one_long_trajectory_is_fitted():
    chain = CCMC.from_transition([[0.2, 0.5, 0.3], [0.5, 0.2, 0.3], [0.4, 0.4, 0.2]])
    path = np.concatenate([[0, 1, 2], simulate(chain, [[0, 1, 2]], 20_000, seed=4)[0]])
    fit = fit_mle(Observations.from_sequences([path], 3, start=3))
    off = abs(centred(fit.chain.logits) - centred(chain.logits)) / fit.standard_errors()
    assert off.max() < 4.5


def test_excess_risk_is_what_asymptotics_say():
    """Mean of n x excess risk is K (K - 1) / 2 = 3; its standard error over 400 fits is 0.087, so 5 of them is 15 %."""
    K, n, fits = 3, 1800, 400
    rng = np.random.default_rng(13)
    chain = CCMC(0.5 * rng.normal(size=(K, K)))
    pool = rng.integers(1, 4, (30, K))
    pool_query = np.repeat(np.arange(K), 10)
    truth = chain.next_token(pool, pool_query)
    excess = []
    for _ in range(fits):
        drawn = rng.integers(0, 30, n)
        targets = (truth.cumsum(axis=1)[drawn] > rng.random((n, 1)) * (1 - 1e-12)).argmax(axis=1)
        fit = fit_mle(Observations(Contexts(pool[drawn], pool_query[drawn]), targets), tol=1e-6)
        fitted = fit.chain.next_token(pool, pool_query)
        excess.append(n * (truth * np.log(truth / fitted)).sum(axis=1).mean())
    assert np.mean(excess) == pytest.approx(K * (K - 1) / 2, rel=0.15)


def test_log_likelihood_ratio_is_chi_square():
    """Wilks: twice the gain over the truth has K (K - 1) degrees of freedom (Kolmogorov-Smirnov, level 1e-4)."""
    rng = np.random.default_rng(14)
    gains = []
    for _ in range(200):
        chain, counts, query, targets = sample(rng, 3, 1500, spread=0.5, density=1.0)
        observations = Observations(Contexts(counts, query), targets)
        gains.append(2 * (fit_mle(observations).log_likelihood - chain.log_likelihood(observations)))
    assert stats.kstest(gains, stats.chi2(6).cdf).pvalue > 1e-4


def test_malformed_arguments_are_refused():
    observations = Observations(Contexts(np.ones((2, 2)), np.array([0, 0])), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"ridge is -1\.0"):
        fit_mle(observations, ridge=-1)
    with pytest.raises(ValueError, match="tol must be positive"):
        fit_mle(observations, tol=0)
    with pytest.raises(ValueError, match=r"prior must have shape \(2, 2\)"):
        fit_mle(observations, prior=np.zeros(2))
    with pytest.raises(ValueError, match=r"prior\[0, 1\] is nan"):
        fit_mle(observations, prior=[[0, np.nan], [0, 0]])
