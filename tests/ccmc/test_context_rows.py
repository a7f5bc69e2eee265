"""Tables of statistics: the same rows as those computed for one fit, without a copy, and fits that do not see how."""

from __future__ import annotations

import numpy as np
import pytest

from ccmc import BaseTransition, ChoiceRows, ContextLogit, ContextTable, context_rows, fit_context_logit

V = 30
LADDER = (
    "present",
    "log-count",
    "recency",
    "followed-by-1",
    "followed-by-2",
    "log-longest-match",
    "base-by-match",
    "base-inside",
)


@pytest.fixture(scope="module")
def base():
    rng = np.random.default_rng(0)
    return BaseTransition.from_rows(np.arange(0, V, 2), rng.dirichlet(np.full(V, 0.4), V // 2), top=6)


@pytest.fixture(scope="module")
def texts(base):
    true = {"base": 0.8, "present": 0.5, "log-count": 0.6, "recency": -0.4, "followed-by-1": 1.5, "followed-by-2": 1.0}
    prompts = [[k % V, (7 * k) % V] for k in range(90)]
    paths = ContextLogit(true, base).rollout(prompts, 110, seed=3)
    return [np.array([*prompt, *path]) for prompt, path in zip(prompts, paths, strict=True)]


@pytest.fixture(scope="module")
def table(base, texts):
    return ContextTable.of(texts, LADDER, base, 2)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("names", [LADDER[:2], LADDER[1:5], LADDER, ("recency", "present"), ()])
def test_rows_of_a_table_are_those_of_a_fit_alone(base, texts, table, names, closed):
    found = table.rows(names, closed=closed)
    alone = context_rows(texts, names, base, 2, closed=closed)
    for field in ("features", "targets", "ptr", "offsets", "weights", "log_base"):
        np.testing.assert_array_equal(getattr(found, field), getattr(alone, field))
    assert found.names == tuple(names)


def test_neighbours_are_not_copied(table):
    own = table.statistics.columns
    rows = table.rows(LADDER[1:4])
    assert np.shares_memory(rows.features, own)
    assert np.shares_memory(rows.terms.columns, own)


def test_a_statistic_that_is_not_there_is_named(table):
    with pytest.raises(ValueError, match=r"no statistic 'suffix'; it has present, log-count"):
        table.rows(("present", "suffix"))


def test_expected_log_base_is_its_definition(base, texts, table):
    rng = np.random.default_rng(1)
    inside = []
    for text in texts:
        types = list(dict.fromkeys(text.tolist()))
        known = np.array([[t in text[:n] for t in types] for n in range(2, len(text))])
        inside.append(np.where(known, rng.dirichlet(np.ones(len(types)), len(known)), 0.0))
    found = table.expected_log_base(inside)
    for text, mass, one in list(zip(texts, inside, found, strict=True))[:5]:
        types = list(dict.fromkeys(text.tolist()))
        log = np.stack([base.log_row(q)[types] for q in text[1:-1]])
        np.testing.assert_allclose(one, (mass * log).sum(axis=1), rtol=1e-12)


def test_log_base_of_all_pairs_is_that_of_each(base):
    query, token = np.array([0, 3, 3, 8]), np.array([5, 1, 29, 0])
    found = base.log_between(query, token)
    np.testing.assert_array_equal(found, [[base.log_row(int(q))[t] for t in token] for q in query])


def test_a_warm_start_ends_where_a_cold_one_does(table):
    before = fit_context_logit(table.rows(LADDER[:4]))
    rows = table.rows(LADDER)
    cold = fit_context_logit(rows)
    warm = fit_context_logit(rows, start=np.append(before.full, np.zeros(len(LADDER) - 4)))
    assert cold.converged
    assert warm.converged
    # a gradient norm of 1e-9 standard deviations puts a weight within so much of the maximum
    reach = 1e-9 * len(rows) * np.linalg.norm(np.linalg.inv(cold.curvature), 2) * np.sqrt(np.diag(cold.curvature).max())
    assert np.abs(warm.full - cold.full).max() <= max(2 * reach, 1e-12)
    assert warm.log_likelihood == pytest.approx(cold.log_likelihood, rel=1e-13)


def test_a_fit_is_the_same_with_any_number_of_threads(table, monkeypatch):
    fits = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("CCMC_THREADS", threads)
        fits.append(fit_context_logit(table.rows(LADDER), np.arange(len(table.statistics.query)) // 110))
    for other in fits[1:]:
        np.testing.assert_array_equal(other.full, fits[0].full)
        np.testing.assert_array_equal(other.covariance, fits[0].covariance)


def test_a_feature_that_is_rare_and_decides_is_fitted():
    """Its choices are all but certain, so that steps without damping overshoot by far; few of a part have it."""
    rng, n = np.random.default_rng(0), 9000
    features, chosen = rng.normal(size=(n, 6, 2)) * 0.3, rng.integers(0, 6, n)
    rare = rng.choice(n, 40, replace=False)
    features[:, :, 1] = 0.0
    features[rare, chosen[rare], 1] = 1.0
    features[rare[0], :, 1] = np.eye(6)[(chosen[rare[0]] + 1) % 6]  # once it is wrong
    rows = ChoiceRows.of(features, chosen)
    fit = fit_context_logit(rows)
    assert fit.converged
    assert fit.weights[1] == pytest.approx(np.log(39 * 5), abs=0.2)  # 39 of 40, against five others
    assert fit.iterations <= 12
