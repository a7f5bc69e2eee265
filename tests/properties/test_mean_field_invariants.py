"""Properties of the mean field and of position-aware chains that hold for every chain."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ccmc import CCMC, DistanceChain, RotaryChain, equilibria, mean_field, winners

# The first example compiles kernels, so no example has a deadline.
relaxed = settings(deadline=None, max_examples=40, derandomize=True)

K = 4
LOGITS = arrays.arrays(float, (K, K), elements=st.floats(-3, 3))
COUNTS = arrays.arrays(float, K, elements=st.sampled_from([0.0, 1.0, 3.0, 40.0])).filter(
    lambda counts: counts.sum() > 0
)
PERMUTATION = st.permutations(range(K)).map(np.array)
PROMPT = st.lists(st.integers(0, K - 1), min_size=1, max_size=9)
# Two integrations of one flow may each be wrong by this much, in total variation.
TWICE = 2 * 2e-3


def frequencies(logits, counts, steps=10_000):
    return mean_field(CCMC(logits), counts, steps, points=9).frequencies


@relaxed
@given(LOGITS, COUNTS)
def test_frequencies_sum_to_one_inside_the_prompt(logits, counts):
    found = frequencies(logits, counts)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found >= 0).all()
    assert (found[:, counts == 0] == 0).all()


@relaxed
@given(LOGITS, COUNTS, arrays.arrays(float, (K, 1), elements=st.floats(-50, 50)))
def test_a_constant_on_a_row_changes_nothing(logits, counts, shift):
    np.testing.assert_allclose(frequencies(logits + shift, counts), frequencies(logits, counts), atol=1e-8)


@relaxed
@given(LOGITS, COUNTS, st.sampled_from([0.5, 2.0, 8.0]))
def test_a_factor_on_counts_and_steps_changes_nothing(logits, counts, factor):
    scaled = mean_field(CCMC(logits), counts * factor, int(10_000 * factor), points=9)
    np.testing.assert_allclose(scaled.frequencies, frequencies(logits, counts), atol=1e-8)


@relaxed
@given(LOGITS, COUNTS, PERMUTATION)
def test_renaming_tokens_renames_the_frequencies(logits, counts, order):
    renamed = frequencies(logits[np.ix_(order, order)], counts[order])
    np.testing.assert_allclose(renamed, frequencies(logits, counts)[:, order], atol=1e-8)


@relaxed
@given(LOGITS, arrays.arrays(float, K, elements=st.sampled_from([1.0, 3.0, 40.0])), st.floats(0.05, 0.95))
def test_a_token_split_in_two_twins_has_its_frequency_shared(logits, counts, share):
    """Twins that differ in nothing but their counts keep their shares and together are the token."""
    twins = np.append(np.arange(K), K - 1)
    split = np.append(counts, (1 - share) * counts[-1])
    split[K - 1] *= share
    found, whole = frequencies(logits[np.ix_(twins, twins)], split), frequencies(logits, counts)
    assert (
        np.abs(np.column_stack([found[:, : K - 1], found[:, K - 1 :].sum(axis=1)]) - whole).sum(axis=1) < TWICE
    ).all()
    np.testing.assert_allclose(found[:, K], found[:, K - 1] * (1 - share) / share, rtol=1e-6)


@relaxed
@given(LOGITS, COUNTS)
def test_going_half_way_and_on_is_going_all_the_way(logits, counts):
    total = counts.sum()
    half = mean_field(CCMC(logits), counts, 1000, points=2).frequencies[-1]
    on = mean_field(CCMC(logits), half * (total + 1000), 9000, points=2).frequencies[-1]
    direct = frequencies(logits, counts)[-1]
    # Tokens that the flow has all but extinguished stay in the context.
    assert np.abs(on - direct).sum() < 2 * TWICE


@relaxed
@given(LOGITS, PERMUTATION)
def test_renaming_tokens_renames_single_token_equilibria(logits, order):
    def singles(logits):
        found = (rest for rest in equilibria(CCMC(logits), starts=0))
        return {rest.support[0]: (rest.stable, rest.invasion) for rest in found}

    plain, renamed = singles(logits), singles(logits[np.ix_(order, order)])
    assert renamed.keys() == plain.keys()
    for token in range(K):
        assert renamed[token][0] == plain[order[token]][0]
        np.testing.assert_allclose(renamed[token][1], plain[order[token]][1])


@relaxed
@given(LOGITS, COUNTS)
def test_winners_hold_nine_tenths_and_odds_sum_to_one(logits, counts):
    found = winners(CCMC(logits), counts, horizon=counts.sum() + 5000, prefix=50, paths=3)
    assert found.frequencies[found.tokens].sum() >= 0.9 - 1e-9
    smallest = found.frequencies[found.tokens].min()
    assert found.frequencies[found.tokens].sum() - smallest < 0.9
    np.testing.assert_allclose(found.odds + sum(other.odds for other in found.alternatives), 1)


@relaxed
@given(LOGITS, PROMPT, st.integers(1, 5))
def test_distance_bias_shifts_change_nothing(logits, prompt, reach):
    bias = np.linspace(-2, 1, reach)
    np.testing.assert_allclose(
        DistanceChain(logits, bias + 7.0).next_token(prompt), DistanceChain(logits, bias).next_token(prompt), atol=1e-12
    )


@relaxed
@given(PROMPT, st.integers(0, 10**6), st.floats(0, 6.3))
def test_turning_all_queries_and_keys_by_one_angle_changes_nothing(prompt, seed, angle):
    rng = np.random.default_rng(seed)
    queries, keys, frequencies = rng.normal(size=(K, 2)), rng.normal(size=(K, 2)), rng.random(1)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(
        RotaryChain(queries @ turn, keys @ turn, frequencies).next_token(prompt),
        RotaryChain(queries, keys, frequencies).next_token(prompt),
        atol=1e-12,
    )
