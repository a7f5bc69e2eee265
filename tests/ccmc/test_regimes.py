"""Two regimes against all paths of their state, against one context logit, and against the law that made a text."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import plain_logit
import pytest
from scipy import stats

from ccmc import BaseTransition, ContextLogit, RegimeLogit, RegimeRows, fit_regimes

V = 12
NAMES = ("present", "log-count", "recency", "followed-by-1", "followed-by-2-in-match-2", "recent-8", "log-suffix")


@pytest.fixture(scope="module")
def base():
    p = np.random.default_rng(1).dirichlet(np.full(V, 0.5), V) + 1e-4
    return BaseTransition.from_rows(np.arange(0, V, 2), (p / p.sum(axis=1, keepdims=True))[::2], top=4)


@pytest.fixture(scope="module")
def model(base):
    rng = np.random.default_rng(2)
    one, two = ({"base": 0.8, **{name: float(rng.normal()) for name in NAMES}} for _ in range(2))
    return RegimeLogit((one, two), base, np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([0.6, 0.4]))


TEXT = np.array([3, 1, 4, 3, 1, 5, 3, 1, 4])


def by_all_paths(model, text):
    """[V] law of the next token: the sum over all paths of the state, each weighed by what it makes of the text."""
    base, laws = model.base, []
    for n in range(1, len(text) + 1):
        of = [
            plain_logit.next_token(w, base.log_row(text[n - 1]), text[:n], log_unigram=base.log_unigram)
            for w in model.weights
        ]
        laws.append(of)
    total, found = 0.0, np.zeros(V)
    for path in product((0, 1), repeat=len(text)):
        weight = model.first[path[0]] * np.prod([model.transition[z, y] for z, y in pairwise(path)])
        weight *= np.prod([laws[n][z][text[n + 1]] for n, z in enumerate(path[:-1])])
        total += weight
        found += weight * laws[-1][path[-1]]
    return found / total


def test_the_law_is_the_sum_over_all_paths_of_the_state(model):
    contexts = [TEXT[:n] for n in range(1, len(TEXT) + 1)]
    expected = [by_all_paths(model, context) for context in contexts]
    np.testing.assert_allclose(model.next_token(contexts), expected, atol=1e-12)
    inside, came = model.along(TEXT, 3)
    types = list(dict.fromkeys(TEXT.tolist()))
    for row, n in enumerate(range(3, len(TEXT))):
        known = [place for place, token in enumerate(types) if token in TEXT[:n]]
        np.testing.assert_allclose(np.exp(inside[row, known]), expected[n - 1][[types[k] for k in known]], atol=1e-12)
        assert np.isneginf(np.delete(inside[row], known)).all()
        assert np.exp(came[row]) == pytest.approx(expected[n - 1][TEXT[n]], abs=1e-12)


def test_equal_states_are_one_context_logit(model):
    alike = replace(model, weights=(model.weights[0], model.weights[0]))
    one = ContextLogit(model.weights[0], model.base)
    for found, expected in zip(alike.along(TEXT, 2), one.along(TEXT, 2), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_paths_have_the_law_of_the_filtered_state(model):
    prompt = [3, 1, 4, 3, 1]
    found = np.bincount(model.rollout([prompt] * 30_000, 1, 3)[:, 0], minlength=V)
    assert stats.chisquare(found, 30_000 * model.next_token([prompt])[0]).pvalue > 1e-4
    paths = model.rollout([prompt] * 400, 30, 0)
    rng = np.random.default_rng(0)
    lasts = model.next_token([[*prompt, *path[:-1]] for path in paths])
    place = [p[: path[-1]].sum() + rng.random() * p[path[-1]] for p, path in zip(lasts, paths, strict=True)]
    assert stats.kstest(place, "uniform").pvalue > 1e-4  # the state has been followed through 29 tokens


def test_a_path_depends_on_its_prompt_and_the_seed_alone(model):
    prompts = [[1, 2], [3], [1, 2]]
    paths = model.rollout(prompts, 20, 9)
    np.testing.assert_array_equal(paths[[1, 0, 2]], model.rollout([[3], [1, 2], [1, 2]], 20, 9))
    assert (paths[0] != paths[2]).any()


def texts_of(model, texts, length):
    prompts = [[place % V] for place in range(texts)]
    return [np.array([*p, *path]) for p, path in zip(prompts, model.rollout(prompts, length, 5), strict=True)]


def targets_of(texts, starts):
    """The tokens that came, as targets."""
    made = []
    for text, start in zip(texts, starts, strict=True):
        types = list(dict.fromkeys(text.tolist()))
        inside, beyond = np.zeros((len(text) - start, len(types))), np.zeros((len(text) - start, 2))
        for row, n in enumerate(range(start, len(text))):
            if text[n] in text[:n]:
                inside[row, types.index(text[n])] = 1.0
            else:
                beyond[row] = 1.0, FLAT.log_row(text[n - 1])[text[n]]
        made.append((inside, beyond))
    return made


FLAT = BaseTransition.flat(60)


@pytest.fixture(scope="module")
def made():
    """Texts that copy for some ten tokens, and then do not for some twenty."""
    free, copying = ({"base": 1.0, "present": b, "followed-by-1": c} for b, c in ((1.0, -1.0), (0.0, 9.0)))
    true = RegimeLogit((free, copying), FLAT, np.array([[0.95, 0.05], [0.1, 0.9]]), np.array([0.9, 0.1]))
    texts = texts_of(true, 150, 150)
    starts = [20] * len(texts)
    return true, texts, starts


def test_a_fit_finds_the_regimes_that_made_the_texts(made):
    true, texts, starts = made
    rows = RegimeRows.of(texts, ["present", "followed-by-1"], FLAT, starts, targets_of(texts, starts))
    fit = fit_regimes(rows, fixed={"base": 1.0}, rounds=60)
    nats = [-np.mean(np.concatenate([m.along(t, 20)[1] for t in texts])) for m in (true, fit.model)]
    assert min(fit.losses) == pytest.approx(nats[1], abs=1e-9)  # the loss is that of the model, state by filter
    assert nats[1] == pytest.approx(nats[0], abs=0.005)
    assert fit.losses[0] - min(fit.losses) > 0.05  # one context logit is much worse
    np.testing.assert_allclose(fit.model.transition, true.transition, atol=0.02)
    for name, tolerance in (("present", 0.3), ("followed-by-1", 0.6)):
        for state in (0, 1):
            assert fit.model.weights[state][name] == pytest.approx(true.weights[state][name], abs=tolerance)
    assert fit.model.weights[0]["base"] == fit.model.weights[1]["base"] == 1.0
    filtered = np.concatenate([fit.model.state_along(text)[19:-1, 1] for text in texts])
    assert fit.share == pytest.approx(filtered.mean(), abs=1e-9)


def test_no_round_is_the_single_logit_and_prompts_are_not_fitted(made):
    _, texts, starts = made
    rows = RegimeRows.of(texts, ["present"], FLAT, starts, targets_of(texts, starts))
    fit = fit_regimes(rows, fixed={"base": 1.0}, rounds=0)
    tokens = fit_regimes(RegimeRows.of(texts, ["present"], FLAT, 20), fixed={"base": 1.0}, rounds=0)
    assert tokens.losses == pytest.approx(fit.losses, abs=1e-12)  # the same targets
    one = ContextLogit(fit.model.weights[0], FLAT)
    assert fit.losses[0] == pytest.approx(-np.mean(np.concatenate([one.along(t, 20)[1] for t in texts])), abs=1e-9)
    assert fit.model.weights[0] == fit.model.weights[1]


def test_wrong_input_is_named(model, base):
    with pytest.raises(ValueError, match="same statistics"):
        RegimeLogit(({"present": 1.0}, {"recency": 1.0}), base, model.transition, model.first)
    with pytest.raises(ValueError, match="same weight of log P0"):
        RegimeLogit(({"base": 1.0}, {"base": 0.5}), base, model.transition, model.first)
    with pytest.raises(ValueError, match="transition must hold probabilities"):
        replace(model, transition=np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"at temperature 1, not 0\.7"):
        model.rollout([[1]], 3, 0, 0.7)
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        model.rollout([[]], 3, 0)
