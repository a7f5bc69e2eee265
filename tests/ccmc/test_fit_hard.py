"""Hard cases of the fit: every form that rows are stored in, every kind of step, and numbers of all sizes."""

import numpy as np
import pytest
from scipy import sparse

from ccmc import CCMC, Contexts, NoMaximumLikelihoodEstimate, Observations, fit_mle


def measure(fit, counts, query, targets, weight=None, ridge=0.0, prior=0.0):
    """max |gradient| / (wins + ridge), from the definition, in dense arrays and the log domain."""
    n, K = counts.shape
    weight = np.ones(n) if weight is None else weight
    soft = np.eye(K)[targets] if np.ndim(targets) == 1 else targets
    with np.errstate(divide="ignore"):
        scores = np.log(counts) + fit.chain.logits[query]
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    wins, gradient = np.zeros((K, K)), np.zeros((K, K))
    np.add.at(wins, query, weight[:, None] * soft)
    np.add.at(gradient, query, weight[:, None] * (p - soft))
    away = fit.chain.logits - prior
    gradient += ridge * (away - away.mean(axis=1, keepdims=True))
    scale = wins + ridge
    return (abs(gradient[scale > 0]) / scale[scale > 0]).max()


def hard(rng, counts, query, spread=0.5):
    p = CCMC(spread * rng.normal(size=(counts.shape[1],) * 2)).next_token(counts, query)
    return (p.cumsum(axis=1) > rng.random((len(p), 1)) * (1 - 1e-12)).argmax(axis=1)


@pytest.mark.parametrize("form", ["dense", "sparse", "wide sparse"])
@pytest.mark.parametrize("counts_are", ["small", "fractions", "above a byte", "tiny", "huge"])
def test_every_form_of_counts_gives_the_same_fit(form, counts_are):
    rng = np.random.default_rng(0)
    K = {"dense": 7, "sparse": 24, "wide sparse": 300}[form]
    n, seen = 3000, 7 if form == "dense" else 24
    counts = np.zeros((n, K))
    query = rng.integers(0, 3, n)
    place = rng.permutation(K)[:seen] if form == "wide sparse" else np.arange(seen)
    for row in counts:
        row[rng.choice(place, 5 if form == "dense" else 4, replace=False)] = rng.integers(
            1, 4, 5 if form == "dense" else 4
        )
    targets = hard(rng, counts, query, 0.2)
    factor = {"small": 1, "fractions": 0.37, "above a byte": 200, "tiny": 1e-200, "huge": 1e200}[counts_are]
    changed = counts * factor
    fits = [
        fit_mle(Observations(Contexts(table, query), targets), ridge=0.01)
        for table in (changed, sparse.csr_array(changed), sparse.csr_array(counts))
    ]
    assert all(fit.converged for fit in fits)
    for fit in fits[1:]:
        np.testing.assert_allclose(fit.chain.logits, fits[0].chain.logits, atol=1e-7)
    assert measure(fits[0], counts, query, targets, ridge=0.01) < 2e-8


@pytest.mark.parametrize("K", [30, 450])
def test_groups_that_hardly_meet_take_newton_steps(K):
    """30 tokens are solved by factorising, 450 by conjugate gradients; plain steps alone would take hundreds."""
    rng = np.random.default_rng(1)
    n, group = 3000, 15
    counts = np.zeros((n, K))
    which = rng.integers(0, K // group, n)
    for row, mine in zip(counts, which, strict=True):
        np.add.at(row, mine * group + rng.integers(0, group, 8), 1)
        if rng.random() < 0.02:
            row[rng.integers(0, K)] += 1
    query = np.zeros(n, int)
    soft = 0.9 * CCMC(rng.normal(size=(K, K))).next_token(counts, query) + 0.1 * counts / counts.sum(1, keepdims=True)
    fit = fit_mle(Observations(Contexts(counts, query), soft))
    assert fit.converged
    assert fit.iterations <= (25 if K == 30 else 400)
    assert measure(fit, counts, query, soft) < 2e-8


def test_weights_over_24_orders_of_magnitude():
    rng = np.random.default_rng(2)
    counts, query = rng.integers(0, 3, (2000, 8)).astype(float), rng.integers(0, 8, 2000)
    counts[np.arange(2000), query] += 1
    targets, weight = hard(rng, counts, query), 10 ** rng.uniform(-12, 12, 2000)
    for ridge in (0.0, 1e-9, 1.0):
        fit = fit_mle(Observations(Contexts(counts, query), targets, weight), ridge=ridge)
        assert fit.converged
        assert measure(fit, counts, query, targets, weight, ridge) < 2e-8


@pytest.mark.parametrize("spread", [5.0, 20.0, 200.0])
def test_soft_targets_of_chains_hundreds_of_nats_wide(spread):
    rng = np.random.default_rng(3)
    counts, query = rng.integers(0, 3, (1500, 6)).astype(float), rng.integers(0, 6, 1500)
    counts[np.arange(1500), query] += 1
    soft = CCMC(spread * rng.normal(size=(6, 6))).next_token(counts, query)
    for ridge in (1e-6, 1e6):
        fit = fit_mle(Observations(Contexts(counts, query), soft), ridge=ridge)
        assert fit.converged
        assert measure(fit, counts, query, soft, ridge=ridge) < 2e-8


def test_a_large_query_is_read_in_portions_with_the_same_result(monkeypatch):
    from ccmc._fit import descent

    rng = np.random.default_rng(4)
    counts, query = rng.integers(0, 3, (4000, 30)).astype(float), np.arange(4000) % 2
    targets = hard(rng, counts, query)
    whole = fit_mle(Observations(Contexts(counts, query), targets), tol=1e-10)
    monkeypatch.setattr(descent, "LARGE", 1)
    listed = sparse.csr_array(counts * (rng.random(counts.shape) < 2))
    for table in (counts, listed):
        results = []
        for threads in ("1", "3"):
            monkeypatch.setenv("CCMC_THREADS", threads)
            results.append(fit_mle(Observations(Contexts(table, query), targets), tol=1e-10))
        np.testing.assert_array_equal(results[0].chain.logits, results[1].chain.logits)
        np.testing.assert_allclose(results[0].chain.logits, whole.chain.logits, atol=1e-8)
        assert results[0].log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-12)


def test_few_observations_or_none():
    one = Observations(Contexts([[1.0, 1.0]], [0]), [0])
    with pytest.raises(NoMaximumLikelihoodEstimate, match="query 0: tokens 1"):
        fit_mle(one)
    # With d = theta_0 - theta_1 the ridge is d^2 / 4, so 1 - p = d / 2.
    odds = np.diff(fit_mle(one, ridge=1.0).chain.logits[0, ::-1])[0]
    assert 1 / (1 + np.exp(odds)) == pytest.approx(odds / 2, rel=1e-7)
    alone = fit_mle(Observations(Contexts([[3.0, 0.0]], [0]), [0]))
    assert alone.converged
    np.testing.assert_allclose(alone.chain.transition, 0.5)
    nothing = Observations(Contexts(np.ones((0, 3)), np.zeros(0, int)), np.zeros(0, int))
    prior = np.random.default_rng(5).normal(size=(3, 3))
    np.testing.assert_allclose(fit_mle(nothing, prior=prior).chain.logits, CCMC(prior).logits, atol=1e-12)


@pytest.mark.parametrize("K", [5, 8])
def test_excess_risk_of_larger_chains(K):
    """theory.md, 3: .89-1.05 of K (K - 1) / (2 n), at n = 200 K^2; over 40 fits its standard error is 4 % and 2 %."""
    rng = np.random.default_rng(K)
    n, chain = 200 * K * K, CCMC(0.5 * rng.normal(size=(K, K)))
    pool, pool_query = rng.integers(1, 4, (20 * K, K)), np.arange(20 * K) % K
    truth = chain.next_token(pool, pool_query)
    excess = []
    for _ in range(40):
        drawn = rng.integers(0, len(pool), n)
        targets = (truth.cumsum(axis=1)[drawn] > rng.random((n, 1)) * (1 - 1e-12)).argmax(axis=1)
        fitted = fit_mle(Observations(Contexts(pool[drawn], pool_query[drawn]), targets), tol=1e-6).chain
        excess.append(n * (truth * np.log(truth / fitted.next_token(pool, pool_query))).sum(axis=1).mean())
    assert 0.85 < np.mean(excess) / (K * (K - 1) / 2) < 1.15
