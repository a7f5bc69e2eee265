"""Properties that hold for every chain and every data set."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ccmc import CCMC, Contexts, Observations, attention_from_chain, chain_from_attention, fit_mle, identifiability

# The first example compiles kernels, so no example has a deadline.
relaxed = settings(deadline=None, max_examples=40, derandomize=True)

K = 4
LOGITS = arrays.arrays(float, (K, K), elements=st.floats(-30, 30))
COUNTS = arrays.arrays(float, (6, K), elements=st.sampled_from([0.0, 1.0, 2.0, 7.0])).map(
    lambda counts: counts + np.eye(K)[np.arange(6) % K]
)
QUERY = arrays.arrays(np.int64, 6, elements=st.integers(0, K - 1))
PERMUTATION = st.permutations(range(K)).map(np.array)
SEEDS = st.integers(0, 10**6)


def sample(seed, n=80):
    """Observations whose contexts hold every token, and targets that every query emits at least once."""
    rng = np.random.default_rng(seed)
    counts, query = rng.integers(1, 4, (n, K)).astype(float), np.arange(n) % K
    targets = rng.integers(0, K, n)
    targets[: K * K] = np.arange(K * K) // K
    return counts, query, targets


def fitted(counts, query, targets, weight=None, **options):
    return fit_mle(Observations(Contexts(counts, query), targets, weight), **options)


@relaxed
@given(LOGITS, COUNTS, QUERY, arrays.arrays(float, (K, 1), elements=st.floats(-50, 50)))
def test_a_constant_on_a_row_changes_nothing(logits, counts, query, shift):
    np.testing.assert_allclose(
        CCMC(logits + shift).next_token(counts, query), CCMC(logits).next_token(counts, query), atol=1e-12
    )


@relaxed
@given(LOGITS, COUNTS, QUERY, arrays.arrays(float, (6, 1), elements=st.floats(1e-6, 1e6)))
def test_a_factor_on_the_counts_changes_nothing(logits, counts, query, factor):
    chain = CCMC(logits)
    np.testing.assert_allclose(chain.next_token(counts * factor, query), chain.next_token(counts, query), atol=1e-12)


@relaxed
@given(LOGITS, COUNTS, QUERY)
def test_probabilities_sum_to_one_inside_the_context(logits, counts, query):
    p = CCMC(logits).next_token(counts, query)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (p[counts == 0] == 0).all()


@relaxed
@given(LOGITS, COUNTS, QUERY, PERMUTATION)
def test_renaming_tokens_renames_the_answer(logits, counts, query, order):
    renamed = CCMC(logits[np.ix_(order, order)]).next_token(counts[:, order], np.argsort(order)[query])
    np.testing.assert_allclose(renamed, CCMC(logits).next_token(counts, query)[:, order], atol=1e-12)


@relaxed
@given(LOGITS, SEEDS)
def test_chains_survive_the_way_through_attention_weights(logits, seed):
    E = np.linalg.qr(np.random.default_rng(seed).normal(size=(K + 2, K)))[0].T
    chain = CCMC(logits)
    np.testing.assert_allclose(chain_from_attention(E, attention_from_chain(chain, E)).logits, chain.logits, atol=1e-9)


@relaxed
@given(SEEDS, PERMUTATION)
def test_renaming_tokens_renames_the_fit(seed, order):
    counts, query, targets = sample(seed)
    rename = np.argsort(order)
    renamed = fitted(counts[:, order], rename[query], rename[targets])
    np.testing.assert_allclose(
        renamed.chain.logits, fitted(counts, query, targets).chain.logits[np.ix_(order, order)], atol=1e-6
    )


@relaxed
@given(SEEDS, st.floats(0.01, 0.99), st.sampled_from([0.0, 0.5]))
def test_splitting_an_observation_splits_its_weight(seed, share, ridge):
    counts, query, targets = sample(seed)
    whole = fitted(counts, query, targets, ridge=ridge)
    weight = np.repeat([share, 1 - share], len(query))
    split = fitted(np.tile(counts, (2, 1)), np.tile(query, 2), np.tile(targets, 2), weight, ridge=ridge)
    np.testing.assert_allclose(split.chain.logits, whole.chain.logits, atol=1e-6)
    np.testing.assert_allclose(split.log_likelihood, whole.log_likelihood)


@relaxed
@given(SEEDS, st.floats(0.01, 100))
def test_a_factor_on_the_counts_changes_no_fit(seed, factor):
    counts, query, targets = sample(seed)
    np.testing.assert_allclose(
        fitted(counts * factor, query, targets).chain.logits, fitted(counts, query, targets).chain.logits, atol=1e-6
    )


@relaxed
@given(SEEDS, st.floats(0.01, 100))
def test_weights_and_ridge_scale_together(seed, factor):
    counts, query, targets = sample(seed)
    scaled = fitted(counts, query, targets, np.full(len(query), factor), ridge=2 * factor)
    np.testing.assert_allclose(scaled.chain.logits, fitted(counts, query, targets, ridge=2.0).chain.logits, atol=1e-6)


@relaxed
@given(SEEDS, arrays.arrays(float, (K, 1), elements=st.floats(-50, 50)))
def test_a_constant_on_a_row_of_the_prior_changes_no_fit(seed, shift):
    counts, query, targets = sample(seed)
    prior = np.random.default_rng(seed).normal(size=(K, K))
    np.testing.assert_allclose(
        fitted(counts, query, targets, prior=prior + shift, ridge=1.0).chain.logits,
        fitted(counts, query, targets, prior=prior, ridge=1.0).chain.logits,
        atol=1e-6,
    )


@relaxed
@given(SEEDS)
def test_no_chain_nearby_is_more_likely(seed):
    counts, query, targets = sample(seed)
    fit = fitted(counts, query, targets)
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1.0):
        other = CCMC(fit.chain.logits + size * rng.normal(size=(K, K)))
        assert other.log_likelihood(fit.observations) <= fit.log_likelihood + 1e-9


@relaxed
@given(COUNTS, QUERY, SEEDS)
def test_more_data_never_undo_what_is_determined(counts, query, seed):
    rng = np.random.default_rng(seed)
    targets = np.array([rng.choice(np.flatnonzero(row)) for row in counts])
    part = identifiability(Observations(Contexts(counts[:4], query[:4]), targets[:4]))
    whole = identifiability(Observations(Contexts(counts, query), targets))
    assert whole.free_directions <= part.free_directions
    assert whole.identified >= part.identified
