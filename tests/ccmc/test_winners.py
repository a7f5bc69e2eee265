import numpy as np
import pytest
from test_equilibria import CYCLE

from ccmc import CCMC, equilibria, simulate, winners
from ccmc.winners import smallest_set


def two(a, b):
    return CCMC.from_transition([[a, 1 - a], [1 - b, b]])


@pytest.mark.parametrize(("a", "b"), [(0.7, 0.4), (0.9, 0.1), (0.55, 0.3), (0.51, 0.2)])
def test_token_one_wins_and_the_other_fades_at_the_exponent_of_the_closed_form(a, b):
    found = winners(two(a, b), [1, 1])
    assert found.tokens == [0]
    assert found.settled
    assert found.odds == 1
    assert found.alternatives == []
    np.testing.assert_allclose(found.exponents, [0, (2 * a - 1) / a], atol=1e-12)
    np.testing.assert_allclose(found.frequencies, [1, 0])


@pytest.mark.parametrize("p", [0.1, 0.3, 0.45])
def test_equal_rows_fade_with_the_exponent_q(p):
    found = winners(CCMC.from_transition([[1 - p, p], [1 - p, p]]))
    assert found.tokens == [0]
    np.testing.assert_allclose(found.exponents, [0, 1 - p / (1 - p)], atol=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.4), (0.1, 0.2), (0.45, 0.45)])
def test_two_shy_tokens_coexist_at_the_ratio_of_the_closed_form(a, b):
    found = winners(two(a, b), [5, 1])
    assert found.tokens == [0, 1]
    assert found.settled
    assert found.frequencies[1] / found.frequencies[0] == pytest.approx(
        (1 - b) * (1 - 2 * a) / ((1 - a) * (1 - 2 * b)), rel=1e-6
    )
    np.testing.assert_array_equal(found.exponents, [0, 0])


def test_bistable_odds_depend_on_the_prompt_and_agree_with_simulation():
    chain = two(0.7, 0.6)
    last = {}
    for counts in ([1, 1], [1, 4]):
        found = winners(chain, counts, query=1, paths=400, seed=1)
        assert found.settled
        assert len(found.alternatives) == 1
        odds = {tuple(found.tokens): found.odds, tuple(found.alternatives[0].tokens): found.alternatives[0].odds}
        assert set(odds) == {(0,), (1,)}
        assert sum(odds.values()) == pytest.approx(1)
        prompt = np.repeat([0, 1], counts)
        walks = simulate(chain, np.tile(prompt, (400, 1)), 20_000, seed=2)
        # 400 paths on either side: four standard errors.
        assert abs(odds[(0,)] - ((walks == 0).mean(axis=1) > 0.5).mean()) < 4 * np.sqrt(2 * 0.25 / 400)
        last[tuple(counts)] = odds[(0,)]
    assert last[1, 4] < last[1, 1] - 0.1


def test_stable_sets_that_no_path_reached_are_told_with_odds_zero():
    found = winners(two(0.7, 0.6), [1000, 1])
    assert found.tokens == [0]
    assert found.odds == 1
    assert [(other.tokens, other.odds) for other in found.alternatives] == [([1], 0.0)]


def test_an_urn_does_not_settle_and_its_share_is_left_to_chance():
    found = winners(CCMC(np.zeros((2, 2))), [1, 1], paths=400, seed=3)
    assert not found.settled
    np.testing.assert_array_equal(found.exponents, [0, 0])
    # The share of token 0 is uniform on [0, 1]: above .9, below .1, or between, with odds .1, .1 and .8.
    odds = {tuple(other.tokens): other.odds for other in found.alternatives} | {tuple(found.tokens): found.odds}
    for tokens, chance in {(0,): 0.1, (1,): 0.1, (0, 1): 0.8}.items():
        assert abs(odds[tokens] - chance) < 4 * np.sqrt(chance * (1 - chance) / 400)


def test_an_attracting_cycle_is_not_taken_for_a_winner():
    """Near a vertex the next token invades at rate .3 while the last one fades at .9: the flow goes round for ever.
    From the middle of the simplex the interior equilibrium attracts."""
    chain = CCMC(CYCLE)
    for counts in ([1000, 1, 1], [1, 10_000, 10], [1, 1, 10**6]):
        found = winners(chain, counts, prefix=0)
        assert not found.settled
        assert found.alternatives[0].tokens == [0, 1, 2]
        assert found.alternatives[0].odds == 0
    settled = winners(chain, [3, 2, 2], prefix=0)
    assert settled.settled
    np.testing.assert_allclose(settled.frequencies, 1 / 3)


def test_simulation_enters_the_cycle_as_predicted():
    """From near the vertex of token 1: token 2 comes in at rate .3, token 0 goes out at rate .9."""
    chain = CCMC(CYCLE)
    begun = np.concatenate([np.full(30_000, 1), np.full(30, 2), [0, 1]])
    walks = simulate(chain, np.tile(begun, (15, 1)), 300_000, seed=0)
    whole = np.array([np.bincount(walk, minlength=3) for walk in walks]) + np.bincount(begun)
    found = winners(chain, np.bincount(begun), horizon=len(begun) + 300_000, prefix=0)
    assert not found.settled
    assert found.exponents[2] < 0 < found.exponents[0]
    # Thirty tokens at the start vary by 1 / sqrt(30) = .18 of themselves, and a median of 15 by .06.
    assert found.frequencies[2] == pytest.approx(np.median(whole[:, 2]) / whole[0].sum(), rel=0.25)


def test_at_a_horizon_the_prediction_is_that_of_simulation():
    chain = CCMC(np.random.default_rng(4).normal(size=(8, 8)))
    T = 50_000
    counts = np.array([400, 300, 200, 100, 100, 100, 100, 100])
    walks = simulate(chain, np.tile(np.repeat(np.arange(8), counts), (9, 1)), T - counts.sum(), seed=1)
    final = np.array([np.bincount(walk, minlength=8) + counts for walk in walks]) / T
    found = winners(chain, counts, horizon=T)
    assert np.abs(final - found.frequencies).sum(axis=1).mean() < 0.05
    assert found.tokens == smallest_set(np.median(final, axis=0))


def test_losers_of_a_long_path_fade_at_their_exponents():
    """Slope of log count on log t over the last two decades, median over paths, against 1 - gamma = rho."""
    chain = CCMC.from_transition([[0.6, 0.25, 0.15], [0.5, 0.3, 0.2], [0.4, 0.3, 0.3]])
    found = winners(chain, [10, 10, 10])
    assert found.tokens == [0]
    np.testing.assert_allclose(found.exponents, [0, 1 - 0.25 / 0.6, 1 - 0.15 / 0.6], atol=1e-12)
    walks = simulate(chain, np.tile(np.repeat([0, 1, 2], 10), (24, 1)), 10**6, seed=5)
    for token in (1, 2):
        early = np.count_nonzero(walks[:, : 10**4] == token, axis=1) + 10
        late = np.count_nonzero(walks == token, axis=1) + 10
        slope = np.log(late / early) / np.log(100)
        # The transient of the prompt's ten tokens is still felt: at t = 1e4 the winner holds .98.
        assert abs(np.median(slope) - (1 - found.exponents[token])) < 0.08


def test_without_counts_every_token_starts_once():
    chain = CCMC(np.random.default_rng(0).normal(size=(5, 5)))
    a, b = winners(chain), winners(chain, np.ones(5))
    assert a.tokens == b.tokens
    np.testing.assert_array_equal(a.frequencies, b.frequencies)


def test_settled_winner_sets_are_stable_equilibria():
    for seed in range(1, 6):
        chain = CCMC(np.random.default_rng(seed).normal(size=(6, 6)))
        found = winners(chain, paths=16)
        stable = {tuple(smallest_set(rest.frequencies)) for rest in equilibria(chain, starts=64) if rest.stable}
        assert found.settled
        assert {tuple(found.tokens), *(tuple(other.tokens) for other in found.alternatives)} <= stable


def test_tokens_that_never_occur_have_no_exponent():
    found = winners(CCMC(np.random.default_rng(1).normal(size=(4, 4))), [3, 0, 2, 0], horizon=1e5)
    assert np.isnan(found.exponents[[1, 3]]).all()
    assert np.isfinite(found.exponents[[0, 2]]).all()
    assert (found.frequencies[[1, 3]] == 0).all()
    alone = winners(CCMC(np.zeros((3, 3))), [0, 7, 0])
    assert alone.tokens == [1]
    assert alone.settled


def test_the_smallest_set_holds_nine_tenths():
    assert smallest_set(np.array([0.05, 0.5, 0.4, 0.05])) == [1, 2]
    assert smallest_set(np.array([0.3, 0.1, 0.3, 0.3])) == [0, 2, 3]
    assert smallest_set(np.full(10, 0.1)) == list(range(9))


def test_malformed_arguments_are_refused():
    chain = two(0.7, 0.6)
    with pytest.raises(ValueError, match="horizon is 3"):
        winners(chain, [2, 2], horizon=3)
    with pytest.raises(ValueError, match="prefix must be at least 0"):
        winners(chain, prefix=-1)
    with pytest.raises(ValueError, match="paths at least 1"):
        winners(chain, paths=0)
    with pytest.raises(ValueError, match=r"counts\[0\] is nan"):
        winners(chain, [np.nan, 1])
