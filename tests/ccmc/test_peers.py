"""Agreement with independent packages on the problems that they can state."""

import warnings

import choix
import numpy as np

from ccmc import CCMC, Contexts, Observations, fit_mle


def sample(rng, K, n):
    counts = rng.integers(0, 4, (n, K)).astype(float)
    query = np.arange(n) % 2
    counts[np.arange(n), query] += 1
    p = CCMC(rng.normal(size=(K, K))).next_token(counts, query)
    return counts, query, (p.cumsum(axis=1) > rng.random((n, 1)) * (1 - 1e-12)).argmax(axis=1)


def choices(counts, targets):
    """Winner and losers of each row, a token of count m standing there m times."""
    for row, winner in zip(counts.astype(int), targets, strict=True):
        rest = row.copy()
        rest[winner] -= 1
        yield int(winner), np.repeat(np.arange(len(row)), rest).tolist()


def test_choix_finds_the_same_logits():
    rng = np.random.default_rng(0)
    counts, query, targets = sample(rng, 6, 600)
    fit = fit_mle(Observations(Contexts(counts, query), targets), tol=1e-11)
    for i in range(2):
        rows = query == i
        theirs = choix.ilsr_top1(6, list(choices(counts[rows], targets[rows])), tol=1e-12, max_iter=1000)
        mine = fit.chain.logits[i]
        np.testing.assert_allclose(mine - mine.mean(), theirs - theirs.mean(), atol=1e-7)


def test_xlogit_finds_the_same_logits_and_likelihood():
    """Utilities theta_k + log m_k, the logarithm as `addit`; the first token is the base."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from xlogit import MultinomialLogit
    rng = np.random.default_rng(1)
    K = 4
    counts, query, targets = sample(rng, K, 800)
    fit = fit_mle(Observations(Contexts(counts, query), targets))
    total = 0.0
    for i in range(2):
        rows = np.flatnonzero(query == i)
        model = MultinomialLogit()
        present = counts[rows] > 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(
                X=np.tile(np.eye(K)[:, 1:], (len(rows), 1)),
                y=np.eye(K, dtype=int)[targets[rows]].ravel(),
                varnames=[f"token{k}" for k in range(1, K)],
                alts=np.tile(np.arange(K), len(rows)),
                ids=np.repeat(np.arange(len(rows)), K),
                avail=present.astype(int).ravel(),
                addit=np.log(np.maximum(counts[rows], 1)).ravel(),
                tol_opts={"ftol": 1e-12, "gtol": 1e-9},
                verbose=0,
            )
        mine = fit.chain.logits[i]
        np.testing.assert_allclose(mine[1:] - mine[0], model.coeff_, atol=2e-4)
        total += model.loglikelihood
    assert abs(fit.log_likelihood - total) < 1e-5 * abs(total)
