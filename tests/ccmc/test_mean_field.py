import numpy as np
import pytest
from flow_twin import flow, stationary, total_variation

from ccmc import CCMC, AttentionCCMC, mean_field, simulate
from ccmc._sim.flow import relative_rates
from ccmc.mean_field import base_weights, follow


def gaussian(K, scale, seed):
    return CCMC(scale * np.random.default_rng([seed, K]).normal(size=(K, K)))


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("K", [2, 5, 60])
def test_stationary_distribution_solves_its_linear_system(K, scale):
    """Also where the chain hardly mixes (logits tens of nats apart), so that elimination takes over."""
    P = gaussian(K, scale, 0).transition
    m = np.random.default_rng(K).dirichlet(np.ones(K))
    mu, rates = m.copy(), np.empty(K)
    relative_rates(P, m, mu, rates, 1e-12)
    np.testing.assert_allclose(mu, m * rates, rtol=1e-9)
    if scale <= 3:
        np.testing.assert_allclose(mu, stationary(P, m), atol=1e-9)
    moves = P * m / (P @ m)[:, None]
    np.testing.assert_allclose(mu @ moves, mu, atol=1e-12)


@pytest.mark.parametrize(("n", "period"), [(2, 2), (3, 3), (60, 2), (60, 3), (60, 60)])
def test_a_chain_that_goes_round_does_not_make_the_iteration_cycle(n, period):
    """K_m goes round groups of tokens but for 1e-14, which an undamped power iteration follows round and round."""
    group = np.arange(n) % period
    P = np.where((group[:, None] + 1) % period == group, 1.0, 1e-14)
    m = np.arange(1.0, n + 1) / np.arange(1.0, n + 1).sum()
    mu, rates = m.copy(), np.empty(n)
    relative_rates(P, m, mu, rates, 1e-12)
    np.testing.assert_allclose(np.bincount(group, mu), 1 / period, atol=1e-11)


def test_two_tokens_that_hardly_ever_leave_themselves_are_weighed_exactly():
    """They change places with chances c (1e-20) and c / 3 through a third: mu is in the ratio 1 to 3 of being left."""
    c = 1e-20
    P = np.array([[1.0, 1e-40, c], [1e-40, 1.0, c / 3], [1.0, 1.0, 1e-9]])
    mu, rates = np.array([0.999, 0.0005, 0.0005]), np.empty(3)
    relative_rates(P, np.full(3, 1 / 3), mu, rates, 1e-6)
    assert mu[1] / mu[0] == pytest.approx(3)


@pytest.mark.parametrize(("K", "scale"), [(2, 1.0), (5, 0.5), (5, 1.5), (33, 0.5), (33, 1.0)])
def test_frequencies_agree_with_a_tight_solution_to_2e_3(K, scale):
    for seed in range(3):
        chain = gaussian(K, scale, seed)
        counts = np.random.default_rng(seed).integers(1, 60, K)
        found = mean_field(chain, counts, 500 * counts.sum(), points=12)
        at = np.log(found.times / found.times[0])
        exact = flow(chain.transition, counts / counts.sum(), at)
        assert total_variation(found.frequencies, exact).max() < 2e-3


def test_two_tokens_follow_the_closed_form_of_equal_rows():
    """Equal rows (1 - p, p): mu is proportional to ((1 - p) m_1, p m_2), so x = m_2 / m_1 has
    d log x / ds = (2 p - 1) (1 + x) / (1 - p + p x), which integrates to
    (1 - p) log x + (2 p - 1) log(1 + x) = (2 p - 1) s + constant."""
    p = 0.3
    chain = CCMC.from_transition([[1 - p, p], [1 - p, p]])
    found = mean_field(chain, [30, 70], 10**6)
    m, s = found.frequencies, np.log(found.times / 100)
    x = m[:, 1] / m[:, 0]
    invariant = (1 - p) * np.log(x) + (2 * p - 1) * np.log1p(x)
    np.testing.assert_allclose(invariant - invariant[0], (2 * p - 1) * s, atol=5e-3)


def test_a_flat_chain_stays_where_it_is():
    found = mean_field(CCMC(np.zeros((3, 3))), [5, 1, 4], 10**6)
    np.testing.assert_allclose(found.frequencies, np.tile([0.5, 0.1, 0.4], (65, 1)), atol=1e-12)


def test_times_run_from_the_prompt_to_its_end_in_equal_ratios():
    found = mean_field(gaussian(4, 1.0, 0), [3, 0, 2, 5], 990, points=5)
    assert found.times[0] == 10
    assert found.times[-1] == 1000
    np.testing.assert_allclose(found.times[1:] / found.times[:-1], 100**0.25)
    np.testing.assert_allclose(found.frequencies[0], [0.3, 0, 0.2, 0.5])
    np.testing.assert_allclose(found.frequencies.sum(axis=1), 1)
    assert (found.frequencies[:, 1] == 0).all()
    assert found.tokens.tolist() == [0, 2, 3]


def test_logits_hundreds_of_nats_apart_and_long_horizons_stay_finite():
    for scale in (30.0, 300.0):
        for seed in range(5):
            found = mean_field(gaussian(6, scale, seed), [1, 1, 1, 1, 1, 10**9], 10**15)
            np.testing.assert_allclose(found.frequencies.sum(axis=1), 1)
    weights = base_weights(CCMC.from_transition([[0.9, 0.1], [0.9, 0.1]]), np.arange(2))
    far = follow(weights, np.array([0.5, 0.5]), np.array([600.0, 605.0]))
    # The loser goes on to vanish at its exponent 1 - .1/.9 down to numbers far below 1e-200.
    assert np.log(far[0, 1] / far[1, 1]) == pytest.approx(5 * (1 - 1 / 9), rel=1e-6)
    assert 0 < far[0, 1] < 1e-200


def test_a_large_vocabulary_costs_what_its_prompt_costs():
    rng = np.random.default_rng(0)
    K = 250_000
    counts = np.zeros(K)
    counts[rng.integers(0, K, 30)] = rng.integers(1, 9, 30)
    attention = AttentionCCMC(rng.normal(size=(K, 4)), rng.normal(size=(K, 4)))
    found = mean_field(attention, counts, 10**5, points=3)
    few = AttentionCCMC(attention.keys[found.tokens], attention.queries[found.tokens]).to_ccmc()
    np.testing.assert_allclose(
        found.frequencies[:, found.tokens],
        mean_field(few, counts[found.tokens], 10**5, points=3).frequencies,
        atol=1e-9,
    )


def endings(chain, T, starts, paths, seed):
    """L1 distances of predictions from the counts at each start to the simulated frequencies at T."""
    K = chain.vocab_size
    walks = simulate(chain, np.tile(np.arange(K), (paths, 1)), T - K, seed)
    weights = base_weights(chain, np.arange(K))
    for walk in walks:
        whole = np.concatenate([np.arange(K), walk])
        end = np.bincount(whole, minlength=K) / T
        yield [
            np.abs(follow(weights, np.bincount(whole[:t], minlength=K) / t, np.array([np.log(T / t)]))[0] - end).sum()
            for t in starts
        ]


def test_predictions_come_as_near_to_simulation_as_known():
    """Median L1 distance at T = 1e5 from t0 = 10, 100, 1,000, 10,000. Known from other chains: .08, .02, .002 and .003
    for five tokens (here .028, .009, .004, .002) and .17, .055, .014 from 100 on for twenty (here .16, .037, .012);
    1,000 with five tokens is the one that these chains do not reach."""
    T, five = 100_000, []
    for seed in range(60):
        chain = CCMC.from_transition(np.random.default_rng(seed).dirichlet(np.ones(5), 5))
        five += endings(chain, T, (10, 100, 1000, 10_000), 8, seed)
    assert (np.median(five, axis=0) < [0.08, 0.02, 0.01, 0.003]).all()
    twenty = [row for seed in range(30) for row in endings(gaussian(20, 1.0, seed), T, (100, 1000, 10_000), 8, seed)]
    assert (np.median(twenty, axis=0) < [0.17, 0.055, 0.014]).all()


def test_a_simulated_prefix_tells_what_early_chance_decides():
    """From one token of each kind, bistable: the mean over prefixes is near the mean over paths, and so is the spread;
    without a prefix one certain answer comes out, which is far away."""
    chain = CCMC.from_transition([[0.8, 0.2], [0.2, 0.8]])
    walks = simulate(chain, np.tile([0, 1, 1], (600, 1)), 99_997, 0)
    share = (np.array([np.count_nonzero(walk == 0) for walk in walks]) + 1) / 100_000
    found = mean_field(chain, [1, 2], 99_997, prefix=1000, paths=600, seed=5, query=1)
    predicted = found.paths[:, -1, 0]
    # 600 paths on either side: four standard errors of a share.
    assert abs((predicted > 0.5).mean() - (share > 0.5).mean()) < 4 * np.sqrt(2 * 0.25 / 600)
    np.testing.assert_allclose(np.quantile(predicted, [0.75, 0.9]), np.quantile(share, [0.75, 0.9]), atol=0.05)
    alone = mean_field(chain, [1, 2], 99_997).frequencies[-1, 0]
    assert abs(alone - share.mean()) > 3 * abs(predicted.mean() - share.mean())


def test_while_the_prefix_lasts_frequencies_are_those_of_its_paths():
    chain = gaussian(3, 1.0, 0)
    found = mean_field(chain, [2, 1, 1], 60, prefix=60, paths=7, seed=3, points=9)
    assert found.paths.shape == (7, 9, 3)
    whole = found.paths * np.floor(found.times)[None, :, None]
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-9)
    np.testing.assert_allclose(found.frequencies, found.paths.mean(axis=0))
    assert (found.paths[:, 0] == [0.5, 0.25, 0.25]).all()


def test_malformed_arguments_are_refused():
    chain = gaussian(3, 1.0, 0)
    for counts, message in [
        ([1, 2], r"shape \(3,\), got \(2,\)"),
        ([1, -2, 0], r"counts\[1\] is -2"),
        ([1, np.inf, 0], r"counts\[1\] is inf"),
        ([0, 0, 0], "all counts are 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            mean_field(chain, counts, 10)
    for name, value in {"steps": 0, "points": 1, "prefix": -1, "paths": 0.5}.items():
        with pytest.raises(ValueError, match=f"{name} must be an integer"):
            mean_field(chain, [1, 1, 1], **({"steps": 10} | {name: value}))
    with pytest.raises(ValueError, match=r"counts\[0\] is 1.5: simulating a prefix takes whole counts"):
        mean_field(chain, [1.5, 1, 1], 10, prefix=5)
    with pytest.raises(ValueError, match="query 0 is not a token of the prompt"):
        mean_field(chain, [0, 1, 1], 10, prefix=5, query=0)
