import numpy as np
import pytest
from plain_twins import prefixes

from ccmc import CCMC, Contexts, NoMaximumLikelihoodEstimate, Observations, fit_mle, identifiability, simulate


def paths_of(rng, K, number, steps):
    chain = CCMC(rng.normal(size=(K, K)))
    prompts = [rng.integers(0, K - 1, rng.integers(1, 6)) for _ in range(number)]
    drawn = simulate(chain, prompts, steps, seed=int(rng.integers(1000)))
    return [np.concatenate(pair) for pair in zip(prompts, drawn, strict=True)]


def written_out(paths, K, start):
    """The same observations with every prefix counted one by one."""
    rows, queries, targets = [], [], []
    for path in paths:
        for length, (counts, query) in enumerate(prefixes(path.tolist(), start, len(path) - 1, K), start):
            if counts[path[length]] > 0:
                rows.append(counts)
                queries.append(query)
                targets.append(path[length])
    return Observations(Contexts(np.array(rows), np.array(queries)), np.array(targets))


@pytest.mark.parametrize("seed", range(12))
def test_following_paths_gives_the_fit_of_their_prefixes(seed):
    rng = np.random.default_rng(seed)
    K, number, start = 6, int(rng.integers(1, 4)), int(rng.integers(1, 5))
    paths = paths_of(rng, K, number, 150)
    streamed = Observations.from_sequences(paths, K, start=start, unseen="drop")
    plain = written_out(paths, K, start)
    assert streamed.contexts.prefixes.streamed
    assert len(streamed) == len(plain)
    known, expected = identifiability(streamed), identifiability(plain)
    assert known.components == expected.components
    assert known.diverging == expected.diverging
    ridge, prior = 0.0 if expected.mle_exists else 0.3, rng.normal(size=(K, K))
    one, other = (fit_mle(observations, ridge=ridge, prior=prior, tol=1e-10) for observations in (streamed, plain))
    np.testing.assert_allclose(one.chain.logits, other.chain.logits, atol=1e-7)
    assert one.log_likelihood == pytest.approx(other.log_likelihood, rel=1e-10)
    assert one.gradient_norm <= 1e-10
    # Nobody asked for counts yet, but for naming the tokens that diverge.
    assert ("counts" in vars(streamed.contexts)) == (not expected.mle_exists)
    np.testing.assert_array_equal(streamed.contexts.counts.toarray(), plain.contexts.counts)


def test_a_long_path_is_never_written_out_and_threads_do_not_matter(monkeypatch):
    K = 20
    rng = np.random.default_rng(1)
    prompt = np.concatenate([np.arange(K), rng.integers(0, K, 200)])
    path = np.concatenate([prompt, simulate(CCMC(0.3 * rng.normal(size=(K, K))), [prompt], 20_000, seed=2)[0]])
    monkeypatch.setenv("CCMC_THREADS", "1")
    fit = fit_mle(Observations.from_sequences([path], K, start=len(prompt)))
    assert fit.converged
    assert "counts" not in vars(fit.observations.contexts)
    monkeypatch.setenv("CCMC_THREADS", "3")
    again = fit_mle(Observations.from_sequences([path], K, start=len(prompt)))
    np.testing.assert_array_equal(again.chain.logits, fit.chain.logits)


def test_logits_so_far_apart_that_sums_underflow_are_left_to_the_rows():
    """Tokens 0 and 1 alone in the first prefixes, hundreds of nats below token 2, whose prior the fit starts from."""
    path = np.array([0, 1, 0, 1, 1, 0, 0, 1, 2, 0, 1, 2, 2, 0, 2, 1, 2, 0, 1, 0, 2, 1, 1])
    prior = np.tile([0.0, 0.0, 600.0], (3, 1))
    streamed = Observations.from_sequences([path], 3, start=2, unseen="drop")
    plain = written_out([path], 3, 2)
    one, other = (fit_mle(observations, prior=prior, ridge=1e-3) for observations in (streamed, plain))
    assert one.converged
    np.testing.assert_allclose(one.chain.logits, other.chain.logits, atol=1e-6)


def test_short_paths_over_many_tokens_are_written_out():
    rng = np.random.default_rng(3)
    paths = [rng.integers(0, 500, 6) for _ in range(300)]
    observations = Observations.from_sequences(paths, 500, unseen="drop")
    assert not observations.contexts.prefixes.streamed
    assert fit_mle(observations, ridge=1.0).converged


def test_whether_one_path_teaches_a_chain():
    """theory.md, 4: with equal rows (1 - p, p) log odds are learnable from one path iff p >= 1/3.

    At p = .2, 71 % of paths have no maximum-likelihood estimate, here among 100 (standard error 4.5 %). At p = .45
    the median error falls from .12 at T = 1e3; a median of 60 absolute errors is known to about 20 %.
    """
    prompt = np.array([0, 1])
    missing, error = 0, {}
    weak, strong = (CCMC.from_transition([[1 - p, p], [1 - p, p]]) for p in (0.2, 0.45))
    for path in simulate(weak, np.tile(prompt, (100, 1)), 3000, seed=4):
        observations = Observations.from_sequences([np.concatenate([prompt, path])], 2, start=2)
        missing += not identifiability(observations).mle_exists
    assert missing / 100 == pytest.approx(0.71, abs=0.18)
    for steps in (1000, 10_000):
        found = []
        for path in simulate(strong, np.tile(prompt, (60, 1)), steps, seed=5):
            try:
                fit = fit_mle(Observations.from_sequences([np.concatenate([prompt, path])], 2, start=2))
            except NoMaximumLikelihoodEstimate:
                found.append(np.inf)
                continue
            odds = fit.chain.logits[:, 1] - fit.chain.logits[:, 0]
            found.append(abs(odds - np.log(0.45 / 0.55)).mean())
        error[steps] = np.median(found)
    assert 0.05 < error[1000] < 0.3
    assert error[10_000] < 0.6 * error[1000]
