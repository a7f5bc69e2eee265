import numpy as np
import pytest
from flow_twin import stationary

from ccmc import CCMC, AttentionCCMC, equilibria
from ccmc.equilibria import growth_inside, growth_rates, polish

CYCLE = np.log([[1.0, 1.3, 0.1], [0.1, 1.0, 1.3], [1.3, 0.1, 1.0]])


def gaussian(K, scale, seed):
    return CCMC(scale * np.random.default_rng([seed, K]).normal(size=(K, K)))


def by_support(found):
    return {tuple(rest.support): rest for rest in found}


@pytest.mark.parametrize("seed", range(4))
def test_every_equilibrium_rests_and_is_its_own_stationary_distribution(seed):
    chain = gaussian(5, 1.0, seed)
    for rest in equilibria(chain):
        m, inside = rest.frequencies[rest.support], np.array(rest.support)
        P = chain.transition[np.ix_(inside, inside)]
        np.testing.assert_allclose(stationary(P, m), m, atol=1e-9)
        np.testing.assert_allclose(rest.rho[inside], 1, atol=1e-9)
        assert rest.frequencies.sum() == pytest.approx(1)
        assert np.delete(rest.frequencies, inside).sum() == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_growth_rate_inside_is_that_of_the_jacobian_by_differences(seed):
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.ones(4), 4) + np.array([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]])
    m = polish(P, np.full(4, 0.25))
    step = 1e-5
    # Directions e_k - e_0 span the vectors that sum to 0; coordinates there are the entries 1 ... 3.
    jacobian = np.empty((3, 3))
    for k in range(1, 4):
        d = np.zeros(4)
        d[[k, 0]] = step, -step
        slope = (stationary(P, m + d) - stationary(P, m - d)) / (2 * step) - 2 * d / (2 * step)
        jacobian[:, k - 1] = slope[1:]
    assert growth_inside(P, m) == pytest.approx(np.linalg.eigvals(jacobian).real.max(), abs=1e-6)


def test_a_single_token_is_stable_iff_it_prefers_itself():
    chain = gaussian(6, 1.0, 0)
    found = by_support(equilibria(chain))
    P = chain.transition
    for i in range(6):
        rest = found[(i,)]
        assert rest.stable == (P[i, i] > np.delete(P[i], i).max())
        np.testing.assert_allclose(rest.rho, P[i] / P[i, i])
        assert rest.invasion == pytest.approx(np.delete(P[i], i).max() / P[i, i] - 1)


def test_two_tokens_have_the_equilibria_of_the_closed_form():
    for a, b, stable in [(0.7, 0.4, {(0,)}), (0.3, 0.4, {(0, 1)}), (0.7, 0.6, {(0,), (1,)}), (0.2, 0.9, {(1,)})]:
        found = by_support(equilibria(CCMC.from_transition([[a, 1 - a], [1 - b, b]])))
        assert {support for support, rest in found.items() if rest.stable} == stable
        assert ((0, 1) in found) == ((a - 0.5) * (b - 0.5) > 0)
        if (0, 1) in found:
            m = found[0, 1].frequencies
            assert m[1] / m[0] == pytest.approx((1 - b) * (1 - 2 * a) / ((1 - a) * (1 - 2 * b)))
            assert found[0, 1].unstable == (a > 0.5)


def test_all_stable_equilibria_of_small_chains_are_found():
    """Against every support tried one by one from twenty starts."""
    for seed in range(8):
        chain = gaussian(4, 1.0, seed)
        P, rng, expected = chain.transition, np.random.default_rng(seed), set()
        for mask in range(1, 16):
            inside = np.flatnonzero([mask >> k & 1 for k in range(4)])
            for _ in range(20):
                m = np.zeros(4)
                m[inside] = rng.dirichlet(np.ones(len(inside))) + 1e-9
                rest = polish(P, m / m.sum())
                if rest is None:
                    continue
                outside = np.delete(growth_rates(P, rest), inside)
                if growth_inside(P[np.ix_(inside, inside)], rest[inside]) < 0 and (outside < 1).all():
                    expected.add(tuple(inside.tolist()))
        assert {tuple(rest.support) for rest in equilibria(chain) if rest.stable} == expected


def test_cyclic_weights_have_a_stable_interior_and_vertices_that_one_invader_enters():
    found = by_support(equilibria(CCMC(CYCLE)))
    assert found[0, 1, 2].stable
    np.testing.assert_allclose(found[0, 1, 2].frequencies, 1 / 3)
    # Circulant: growth (1 - |z|^2) / (1 - conj z) - 1 with z = (1 + 1.3 w + .1 w^2) / 2.4, w = exp(2 pi i / 3).
    z = (1 + 1.3 * np.exp(2j * np.pi / 3) + 0.1 * np.exp(4j * np.pi / 3)) / 2.4
    assert found[0, 1, 2].inside == pytest.approx(((1 - abs(z) ** 2) / (1 - z.conj()) - 1).real)
    for i in range(3):
        assert found[(i,)].invasion == pytest.approx(0.3)
        assert found[(i,)].rho[i - 1] == pytest.approx(0.1)


def test_an_urn_rests_everywhere_and_is_neither_stable_nor_unstable():
    found = equilibria(CCMC(np.zeros((3, 3))), starts=4)
    assert len(found) > 5
    assert not any(rest.stable or rest.unstable for rest in found)


def test_tokens_outside_the_context_neither_win_nor_invade():
    logits = np.log([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8]])
    found = by_support(equilibria(CCMC(logits), [0, 1]))
    assert all(set(support) <= {0, 1} for support in found)
    assert found[(0,)].stable
    assert found[(1,)].invasion == pytest.approx(0)
    assert np.isnan(found[(0,)].rho[2])
    keys, queries = logits.T, np.eye(3)
    again = by_support(equilibria(AttentionCCMC(keys, queries), [0, 1]))
    np.testing.assert_allclose(again[(0,)].rho[:2], found[(0,)].rho[:2])


def test_malformed_tokens_are_refused():
    for tokens in ([], [0, 3], [-1]):
        with pytest.raises(ValueError, match=r"tokens must be some of 0 \.\.\. 2"):
            equilibria(CCMC(np.zeros((3, 3))), tokens)
