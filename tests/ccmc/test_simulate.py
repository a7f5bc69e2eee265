import numpy as np
import pytest
from plain_twins import path_law
from scipy import stats

from ccmc import CCMC, AttentionCCMC, simulate

PEAKED = np.array([[0.0, 4.0, -3.0], [-6.0, 0.0, 2.0], [1.0, 1.0, -8.0]])
FLAT = np.array([[0.0, 0.3, -0.2], [0.1, 0.0, 0.2], [0.0, 0.4, -0.1]])


def chi_square(paths, law):
    """p-value of the paths under the law; paths rarer than 5 expected are counted together."""
    expected = np.array(list(law.values())) * len(paths)
    number = {path: k for k, path in enumerate(law)}
    observed = np.bincount([number[tuple(path)] for path in paths.tolist()], minlength=len(law))
    assert (observed[expected == 0] == 0).all()
    common = expected >= 5
    rest, seen = expected[~common].sum(), observed[~common].sum()
    statistic = ((observed - expected)[common] ** 2 / expected[common]).sum() + (seen - rest) ** 2 / max(rest, 1e-9)
    # Where the law leaves one path only there is no freedom, and any other path makes the statistic huge.
    return stats.chi2.sf(statistic, max(1, int(common.sum()) - 1 + (rest > 1e-9)))


@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize("theta", [FLAT, PEAKED, 40 * PEAKED], ids=["flat", "peaked", "extreme"])
def test_paths_have_the_exact_law(theta, window):
    """Threshold: a right sampler fails one of these nine runs once in 10,000."""
    prompt = [0, 2, 1, 1, 0]
    paths = simulate(CCMC(theta), np.tile(prompt, (30_000, 1)), 4, seed=1, window=window)
    assert chi_square(paths, path_law(theta, prompt, 4, window)) > 1e-5


def test_attention_chains_have_the_exact_law_too():
    rng = np.random.default_rng(0)
    keys, queries = rng.normal(size=(3, 2)), 2 * rng.normal(size=(3, 2))
    paths = simulate(AttentionCCMC(keys, queries), np.tile([0, 1, 2], (30_000, 1)), 3, seed=2)
    assert chi_square(paths, path_law(queries @ keys.T, [0, 1, 2], 3)) > 1e-5


def test_summing_draws_have_the_exact_law():
    """A dominating token that left the window makes every proposal fail, so draws come from the sum."""
    theta = np.array([[0.0, 0.5, 60.0], [0.3, 0.0, 60.0], [0.0, 0.0, -60.0]])
    prompt = [2, 0, 1, 0]
    paths = simulate(CCMC(theta), np.tile(prompt, (30_000, 1)), 4, seed=3, window=3)
    assert (paths != 2).all()
    assert chi_square(paths, path_law(theta, prompt, 4, 3)) > 1e-5


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(1)
    return CCMC(rng.normal(size=(20, 20))), [rng.integers(0, 20, rng.integers(1, 30)) for _ in range(40)]


def test_paths_depend_on_seed_and_prompt_only(monkeypatch, many):
    chain, prompts = many
    monkeypatch.setenv("CCMC_THREADS", "1")
    one = simulate(chain, prompts, 200, seed=7)
    monkeypatch.setenv("CCMC_THREADS", "4")
    np.testing.assert_array_equal(simulate(chain, prompts, 200, seed=7), one)
    assert (simulate(chain, prompts, 200, seed=8) != one).mean() > 0.3
    for dropped in (0, 17, 39):
        fewer = simulate(chain, prompts[:dropped] + prompts[dropped + 1 :], 200, seed=7)
        np.testing.assert_array_equal(fewer, np.delete(one, dropped, axis=0))
    order = np.random.default_rng(2).permutation(40)
    np.testing.assert_array_equal(simulate(chain, [prompts[p] for p in order], 200, seed=7), one[order])
    np.testing.assert_array_equal(simulate(chain, prompts, 50, seed=7), one[:, :50])
    np.testing.assert_array_equal(simulate(chain, prompts[:1], 1, seed=7), one[:1, :1])


def test_equal_prompts_have_paths_of_their_own(many):
    chain, prompts = many
    one = simulate(chain, prompts, 200, seed=7)
    doubled = simulate(chain, [prompt for prompt in prompts for _ in range(3)], 200, seed=7)
    np.testing.assert_array_equal(doubled[::3], one)
    again = simulate(chain, np.tile(np.arange(20), (5, 1)), 200, seed=7)
    assert len(np.unique(again, axis=0)) == 5
    np.testing.assert_array_equal(simulate(chain, [np.arange(20)] * 3, 200, seed=7), again[:3])


def test_prompts_of_one_law_are_independent_draws_of_it():
    """20,000 orders of the same counts and query have the law of each of them, and near ones are not alike."""
    rng = np.random.default_rng(3)
    orders = np.unique(rng.permuted(np.tile([0, 1, 2], (40_000, 4)), axis=1), axis=0)
    prompts = np.column_stack([orders, np.zeros(len(orders), int)])
    assert len(prompts) > 20_000
    paths = simulate(CCMC(FLAT), prompts, 4, seed=4)
    assert chi_square(paths, path_law(FLAT, prompts[0], 4)) > 1e-5
    equal = (paths[1:] == paths[:-1]).all(axis=1).mean()  # neighbours differ in the last tokens
    chance = sum(p**2 for p in path_law(FLAT, prompts[0], 4).values())
    assert abs(equal - chance) < 5 * np.sqrt(chance / len(paths))


def ranks_of_draws(theta, sequence, start, window, rng):
    """Where each draw falls in its own distribution, spread evenly over its step: uniform if the law is exact."""
    K = len(theta)
    counts = np.cumsum(np.eye(K)[sequence], axis=0)
    if window is not None:
        counts[window:] -= counts[:-window].copy()
    now, query, drawn = counts[start - 1 : -1], sequence[start - 1 : -1], sequence[start:]
    logits = np.where(now > 0, np.log(np.maximum(now, 1)) + theta[query], -np.inf)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    below = np.where(np.arange(K) < drawn[:, None], p, 0).sum(axis=1)
    return query, below + rng.random(len(drawn)) * p[np.arange(len(drawn)), drawn]


@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize("kind", ["flat", "peaked", "attention", "few steps"])
def test_every_draw_of_a_long_path_has_the_exact_law(kind, window):
    """Rows change from proposals to heavy tokens on the way, in each kind of chain (Kolmogorov-Smirnov, level 1e-5)."""
    rng = np.random.default_rng(9)
    K, steps = (150, 400) if kind == "few steps" else (9, 60_000)
    logits = {"flat": 0.3, "peaked": 4.0, "attention": 1.0, "few steps": 4.0}[kind] * rng.normal(size=(K, K))
    chain = CCMC(logits)
    if kind == "attention":
        chain = AttentionCCMC(2 * rng.normal(size=(K, 2)), 2 * rng.normal(size=(K, 2)))
        logits = chain.to_ccmc().logits
    prompt = rng.permutation(np.tile(np.arange(K), 3))
    paths = simulate(chain, np.tile(prompt, (20 if kind == "few steps" else 1, 1)), steps, seed=1, window=window)
    draws = [ranks_of_draws(logits, np.concatenate([prompt, path]), len(prompt), window, rng) for path in paths]
    query, rank = (np.concatenate(part) for part in zip(*draws, strict=True))
    assert stats.kstest(rank, "uniform").pvalue > 1e-5
    common = np.bincount(query).argmax()
    assert stats.kstest(rank[query == common], "uniform").pvalue > 1e-5
    assert stats.kstest(rank[len(rank) // 2 :], "uniform").pvalue > 1e-5
    # One draw says nothing about the next.
    assert abs(np.corrcoef(rank[1:], rank[:-1])[0, 1]) < 5 / np.sqrt(len(rank))


def test_only_prompt_tokens_ever_occur():
    prompts = [[3, 5], [1], [0, 0, 4]]
    paths = simulate(CCMC(np.zeros((6, 6))), prompts, 500, seed=0)
    for path, prompt in zip(paths, prompts, strict=True):
        assert set(path.tolist()) <= set(prompt)
    assert paths.dtype == np.int64
    assert paths.shape == (3, 500)


def test_a_flat_chain_is_a_polya_urn():
    """The share of token 0 from one of each is uniform on [0, 1] in the limit (Kolmogorov-Smirnov, level 1e-4)."""
    paths = simulate(CCMC(np.zeros((2, 2))), np.tile([0, 1], (2000, 1)), 2000, seed=5)
    assert stats.kstest((paths == 0).mean(axis=1), "uniform").pvalue > 1e-4


def test_a_window_of_one_stays_where_it_is():
    assert (simulate(CCMC(np.zeros((3, 3))), [[0, 1, 2]], 50, seed=0, window=1) == 2).all()


def test_no_steps_and_no_prompts():
    chain = CCMC(np.zeros((2, 2)))
    assert simulate(chain, [[0]], 0, seed=0).shape == (1, 0)
    assert simulate(chain, [], 3, seed=0).shape == (0, 3)


def test_malformed_arguments_are_refused():
    chain = CCMC(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        simulate(chain, [[0], []], 3, seed=0)
    with pytest.raises(ValueError, match=r"sequences\[0\]\[1\] is 2"):
        simulate(chain, [[0, 2]], 3, seed=0)
    for name, arguments in {"steps": (-1, 0, None), "seed": (1, -1, None), "window": (1, 0, 0)}.items():
        with pytest.raises(ValueError, match=name):
            simulate(chain, [[0]], *arguments)
