"""The conditional logit against scipy and xlogit's data form, its errors, and fits that cannot exist."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from ccmc import BaseTransition, ChoiceRows, NoMaximumLikelihoodEstimate, context_rows, fit_context_logit
from ccmc.choice import Outside


@pytest.fixture
def made():
    rng = np.random.default_rng(0)
    x, offsets = rng.normal(size=(300, 6, 4)), rng.normal(size=(300, 6))
    u = offsets + x @ np.array([-1.2, 0.7, 0.2, -2.1])
    p = np.exp(u - u.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return x, offsets, np.array([rng.choice(6, p=row) for row in p])


def test_weights_are_those_of_a_general_minimiser(made):
    x, offsets, chosen = made

    def loss(w):
        u = offsets + x @ w
        return float(-(u[np.arange(300), chosen] - np.log(np.exp(u).sum(axis=1))).sum())

    other = minimize(loss, np.zeros(4), tol=1e-12)
    fit = fit_context_logit(ChoiceRows.of(x, chosen, offsets))
    assert fit.converged
    np.testing.assert_allclose(fit.weights, other.x, atol=2e-6)
    assert -fit.log_likelihood <= other.fun + 1e-9


def test_errors_are_those_of_the_sandwich(made):
    x, offsets, chosen = made
    rows = ChoiceRows.of(x, chosen, offsets)
    alone, clustered = fit_context_logit(rows), fit_context_logit(rows, groups=np.arange(300) // 3)
    u = offsets + x @ alone.weights
    p = np.exp(u - u.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    mean = (p[:, :, None] * x).sum(axis=1)
    information = np.einsum("nc,ncd,nce->de", p, x, x) - mean.T @ mean
    np.testing.assert_allclose(alone.standard_errors(), np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-7)
    score = (mean - x[np.arange(300), chosen]).reshape(100, 3, 4).sum(axis=1)
    bread = np.linalg.inv(information)
    sandwich = bread @ score.T @ score @ bread * 100 / 99
    np.testing.assert_allclose(clustered.standard_errors(), np.sqrt(np.diag(sandwich)), rtol=1e-7)


def test_clustered_errors_cover(made):
    """Choices of a group are copies of one another: errors that take them as independent are too small by 2."""
    x, offsets, chosen = made
    rows = ChoiceRows.of(np.repeat(x, 4, axis=0), np.repeat(chosen, 4), np.repeat(offsets, 4, axis=0))
    once = fit_context_logit(ChoiceRows.of(x, chosen, offsets), groups=np.arange(300))
    copied = fit_context_logit(rows, groups=np.repeat(np.arange(300), 4))
    np.testing.assert_allclose(copied.standard_errors(), once.standard_errors(), rtol=1e-6)
    np.testing.assert_allclose(fit_context_logit(rows).standard_errors() * 2, fit_context_logit(
        ChoiceRows.of(x, chosen, offsets)).standard_errors(), rtol=1e-6)  # fmt: skip


def test_all_other_tokens_count_by_sums_of_the_base():
    rng = np.random.default_rng(1)
    transition = rng.dirichlet(np.full(40, 0.3), 40) + 1e-6
    base = BaseTransition.from_rows(np.arange(0, 40, 2), (transition / transition.sum(1, keepdims=True))[::2], top=7)
    n, query = 200, rng.integers(0, 40, 200)
    token = np.stack([rng.choice(40, 5, replace=False) for _ in range(n)])
    features = rng.normal(size=(n, 5, 3))
    dense = np.stack([base.log_row(int(q)) for q in query])
    target = np.exp(1.4 * dense + 0.3 * rng.normal(size=dense.shape))
    target /= target.sum(axis=1, keepdims=True)
    inside = np.take_along_axis(target, token, axis=1)
    everywhere = (target * dense).sum(axis=1) - (inside * np.take_along_axis(dense, token, axis=1)).sum(axis=1)
    outside = Outside(base, query, token.ravel(), 1 - inside.sum(axis=1), everywhere)
    rows = ChoiceRows(
        features.reshape(-1, 3), inside.ravel(), np.arange(0, 5 * n + 1, 5), np.zeros(5 * n), np.ones(n),
        ("f", "g", "h"), outside,
    )  # fmt: skip

    def loss(w):
        u = w[0] * dense
        np.put_along_axis(u, token, np.take_along_axis(u, token, axis=1) + features @ w[1:], axis=1)
        return float((np.log(np.exp(u).sum(axis=1)) - (target * u).sum(axis=1)).sum())

    other = minimize(loss, np.array([1.0, 0, 0, 0]), tol=1e-12)
    fit = fit_context_logit(rows)
    assert fit.converged
    assert fit.names == ("base", "f", "g", "h")
    np.testing.assert_allclose(fit.weights, other.x, atol=1e-5)
    held = fit_context_logit(rows, fixed={"base": 1.0, "g": 0.0})
    assert held.names == ("f", "h")
    np.testing.assert_array_equal(held.full[[0, 2]], [1.0, 0.0])
    assert held.log_likelihood < fit.log_likelihood


def test_a_fit_without_maximum_names_the_direction():
    x = np.random.default_rng(0).normal(size=(50, 4, 2))
    rows = ChoiceRows.of(x, x[:, :, 0].argmax(axis=1), names=["strength", "noise"])
    with pytest.raises(NoMaximumLikelihoodEstimate, match=r"grows for ever along the direction .*strength") as caught:
        fit_context_logit(rows)
    direction = caught.value.direction
    u = x @ direction
    assert (u.max(axis=1) - u[np.arange(50), x[:, :, 0].argmax(axis=1)]).max() <= 1e-6  # never beaten by a candidate
    assert fit_context_logit(rows, ridge=1.0).converged


def test_one_choice_against_the_direction_makes_the_maximum_exist():
    x = np.random.default_rng(0).normal(size=(50, 4, 2))
    chosen = x[:, :, 0].argmax(axis=1)
    chosen[7] = x[7, :, 0].argmin()
    assert fit_context_logit(ChoiceRows.of(x, chosen)).converged


def test_weights_that_are_not_determined_are_named(made):
    x, offsets, chosen = made
    twice = np.concatenate([x, x[:, :, :1] + 2 * x[:, :, 1:2]], axis=2)
    with pytest.raises(ValueError, match=r"x0.*x1.*x4.* is alike for all candidates"):
        fit_context_logit(ChoiceRows.of(twice, chosen, offsets))
    flat = np.concatenate([x, np.ones((300, 6, 1))], axis=2)
    with pytest.raises(ValueError, match="feature 'x4' is alike for all candidates"):
        fit_context_logit(ChoiceRows.of(flat, chosen, offsets))
    assert fit_context_logit(ChoiceRows.of(twice, chosen, offsets), ridge=1e-3).converged


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": [[[np.nan], [0.0]]]}, "features.* is nan"),
        ({"targets": [2]}, "must be a candidate below 2"),
        ({"targets": [[0.4, 0.4]]}, "sum to 0.8"),
        ({"targets": [[-0.5, 1.5]]}, "is negative"),
        ({"weights": [-1.0]}, "is negative"),
        ({"targets": [[1.0, 0.0]], "offsets": [[-np.inf, 0.0]]}, "has the offset -inf"),
    ],
)
def test_wrong_rows_are_named(change, message):
    given = {"features": [[[1.0], [0.0]]], "targets": [0], **change}
    with pytest.raises(ValueError, match=message):
        ChoiceRows.of(**given)


def test_a_target_that_the_base_rules_out_is_named():
    """Two tokens that never follow one another: no weight of log P0 makes their text possible."""
    base = BaseTransition.from_rows([0, 1], [[1.0, 0.0], [0.0, 1.0]], unigram=[0.5, 0.5])
    with pytest.raises(ValueError, match="candidate 1 has a target, but P0 gives it no probability"):
        context_rows([[0, 1, 0]], ["log-count"], base)
    with pytest.raises(ValueError, match="choice 0 has a target outside its candidates"):
        context_rows([[0, 1]], ["log-count"], base)


def test_a_candidate_may_be_taken_away():
    rows = ChoiceRows.of([[[1.0], [0.0], [5.0]]] * 2, [0, 1], [[0.0, 0.0, -np.inf]] * 2)
    assert rows.ptr.tolist() == [0, 2, 4]
    assert fit_context_logit(rows).weights[0] == pytest.approx(0.0, abs=1e-9)


def test_groups_and_names_are_checked(made):
    rows = ChoiceRows.of(made[0], made[2])
    with pytest.raises(ValueError, match="one group for each of 300"):
        fit_context_logit(rows, groups=[1, 2])
    with pytest.raises(ValueError, match="no weight is called 'colour'"):
        fit_context_logit(rows, fixed={"colour": 1.0})
    with pytest.raises(ValueError, match="ridge must be"):
        fit_context_logit(rows, ridge=-1.0)
    with pytest.raises(ValueError, match="two groups"):
        fit_context_logit(rows, groups=np.zeros(300)).standard_errors()
