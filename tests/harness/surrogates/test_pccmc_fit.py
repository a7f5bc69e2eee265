"""The fit of distances and token pairs on top of the weights, against its definition and against known truths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dense_heads import (
    bucket_matrix,
    distance_mass,
    place_mass,
    place_matrix,
    position_rows,
    score_mass,
    score_scale,
    text_scores,
)
from float32 import assert_close32, tolerance
from random_heads import K, static_heads, text
from scipy.optimize import approx_fprime

from harness.data.texts import Text
from harness.measures.fidelity import kl
from harness.surrogates._fitting.buckets import BUCKETS
from harness.surrogates._fitting.pair_effects import TokenFeatures
from harness.surrogates._fitting.position_loss import gather, log_normalisers, pair_numbers
from harness.surrogates.heads.pccmc_fit import PCCMCFit, affordable
from harness.surrogates.heads.pccmc_scaled import PCCMCScaled
from harness.surrogates.heads.pccmc_weights import PCCMCWeights
from harness.surrogates.observations import HeadObservations, pair_mass

NOTHING = np.zeros(BUCKETS)
SCORED = 6 + 1  # roundings of a score: six channels, and the scaling


def rows_of(of: Text, b: Any, delta: Any, c: float = 1.0, a: Any = NOTHING) -> Any:
    """[H, n, m] what heads attend to that add a, b and delta [K, K] to c times the scores of the random heads."""
    types = of.types
    extra = delta[types][:, types][of.query][:, of.key_index]
    return position_rows(c * text_scores(static_heads(), of) + a[place_matrix(of)] + b[bucket_matrix(of)] + extra, of)


def observe(texts: list[Text], *truth: Any) -> HeadObservations:
    rows = [rows_of(t, *truth) for t in texts]
    wins = [pair_mass(t, t.per_token(r), K) for t, r in zip(texts, rows, strict=True)]
    distance = [distance_mass(t, r) for t, r in zip(texts, rows, strict=True)]
    scored = [score_mass(static_heads(), t, r) for t, r in zip(texts, rows, strict=True)]
    placed = [place_mass(t, r) for t, r in zip(texts, rows, strict=True)]
    groups = [f"p{i // 2}" for i in range(len(texts))]
    return HeadObservations(texts, groups, wins, K, distance, score_mass=scored, place_mass=placed)


def texts(count: int, first: int = 0) -> list[Text]:
    return [text(seed, length=40, first=1, start=1) for seed in range(first, first + count)]


def divergence(surrogate: Any, of: list[Text], *given: Any) -> float:
    total = 0.0
    for t in of:
        truth = t.per_token(rows_of(t, *given))
        total += float(kl(truth.reshape(-1, truth.shape[-1]), surrogate.predict(t).reshape(-1, truth.shape[-1])).mean())
    return total / len(of)


def normalisers(entries: Any, head: int, c: float, a: Any, b: Any, delta: Any) -> tuple[float, Any]:
    """What the loss of one head adds up, beside that of another, and its gradient."""
    (total, grad_c), (grad_a, grad_b) = np.zeros((2, 2)), np.zeros((2, 2, BUCKETS))
    grad_delta = np.zeros((2, len(delta)))
    log_normalisers(
        entries.score, entries.start, entries.place, entries.bucket, entries.pair, np.array([head, 1 - head]),
        np.array([c, 2.0]), np.stack([a, -a]), np.stack([b, -b]), np.stack([delta, delta + 1.0]),
        total, grad_c, grad_a, grad_b, grad_delta,
    )  # fmt: skip
    return total[0], np.concatenate([grad_c[:1], grad_a[0], grad_b[0], grad_delta[0]])


@pytest.mark.parametrize("window", [None, 5])
def test_the_loss_is_its_definition_and_has_its_gradient(window: int | None) -> None:
    rng = np.random.default_rng(0)
    of = [Text(rng.integers(0, K, 12), start=1, first=1, window=window) for _ in range(2)]
    known = np.arange(K * K)
    scores = [text_scores(static_heads(), t) for t in of]
    entries = gather(static_heads(), of, known, K)
    (a, b), delta = rng.normal(size=(2, BUCKETS)), rng.normal(size=K * K)

    def value(x: Any) -> float:
        return float(normalisers(entries, 0, x[0], *np.split(x[1:], [BUCKETS, 2 * BUCKETS]))[0])

    seen = np.concatenate([s[:, t.visible] for t, s in zip(of, scores, strict=True)], axis=1)
    assert_close32(entries.score, seen, scale=score_scale(static_heads().at_start), operations=SCORED)
    expected, given = 0.0, iter(entries.score[0].tolist())
    for t in of:
        number = pair_numbers(t.types, known, K)[t.query][:, t.key_index]
        for row, position in enumerate(t.positions):
            weight = 0.0
            for column, place in enumerate(range(1, len(t.tokens))):
                if place <= position and (window is None or position - place < window):
                    code = t.tokens[position] * K + t.tokens[place]
                    assert number[row, column] == code
                    placed = a[place_matrix(t)[row, column]] + b[bucket_matrix(t)[row, column]]
                    weight += np.exp(0.7 * next(given) + placed + delta[code])
            expected += np.log(weight)
    at = np.concatenate([[0.7], a, b, delta])
    assert value(at) == pytest.approx(expected, rel=1e-9)
    gradient = normalisers(entries, 0, 0.7, a, b, delta)[1]
    np.testing.assert_allclose(gradient, approx_fprime(at, value, 1e-6), atol=1e-4)


def test_heads_that_are_exact_already_keep_their_weights() -> None:
    nothing = np.zeros(BUCKETS), np.zeros((K, K))
    fit = PCCMCFit(static_heads(), seed=0).fit(observe(texts(8), *nothing))
    held_out = texts(3, 100)
    # scores in float32 whose errors e enter squared: at most e^2 / 2
    apart = tolerance(score_scale(static_heads().at_start), SCORED)
    assert divergence(PCCMCWeights(static_heads()), held_out, *nothing) < apart**2 / 2
    assert divergence(fit, held_out, *nothing) < 1e-5


def test_distances_and_pairs_are_found() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 1.5, BUCKETS), rng.normal(0, 1.5, (K, K))
    fit = PCCMCFit(static_heads(), seed=0).fit(observe(texts(30), *truth))
    held_out = texts(3, 100)
    before, after = divergence(PCCMCWeights(static_heads()), held_out, *truth), divergence(fit, held_out, *truth)
    assert before > 0.3
    assert after < 0.02 * before
    assert (fit.choice_ >= 1).all()


def test_pairs_that_no_text_has_shown_are_told_by_their_tokens() -> None:
    features = TokenFeatures.of(static_heads())
    rng = np.random.default_rng(2)
    level, M = rng.normal(0, 1.5, K), rng.normal(0, 0.4, features.shape[1:])
    form = features.query[0] @ M @ features.key[features.group[0]].T
    truth = np.zeros(BUCKETS), level + form
    # tokens of the first third never meet those of the last; both meet the middle, so that their levels are told
    rng = np.random.default_rng(4)
    train = [Text(rng.integers(0, 2 * K // 3, 40) + (i % 2) * (K // 3), start=1, first=1) for i in range(60)]
    apart = [Text(rng.integers(0, 2, 40) * (K - 2) + rng.integers(0, 2, 40), start=1, first=1) for _ in range(3)]
    fit = PCCMCFit(static_heads(), seed=0).fit(observe(train, *truth))
    before, after = divergence(PCCMCWeights(static_heads()), apart, *truth), divergence(fit, apart, *truth)
    assert before > 0.5
    assert after < 0.5 * before


def test_effects_are_their_definition_and_have_their_gradient() -> None:
    features = TokenFeatures.of(static_heads())
    rng = np.random.default_rng(3)
    x = rng.normal(size=features.size)
    query, key = (part.reshape(-1) for part in np.indices((K, K)))
    level, M = features.parts(x)
    expected = level + features.query[1] @ M @ features.key[features.group[1]].T
    np.testing.assert_allclose(features.effect(1, x, query, key), expected.reshape(-1), atol=1e-12)
    left, right = np.abs(features.query[1] @ M), np.abs(features.key[features.group[1]])
    scale = np.abs(level) + left @ right.T  # three numbers cast, products of all channels, and a sum
    assert_close32(features.table(1, x, np.arange(K)), expected, scale=scale, operations=right.shape[1] + 4)
    of_pair = rng.normal(size=K * K)
    found = features.gradient(1, of_pair, query, key)
    assert found @ x == pytest.approx(of_pair @ features.effect(1, x, query, key))  # effects are linear
    step = rng.normal(size=features.size)
    assert found @ step == pytest.approx(of_pair @ features.effect(1, step, query, key))


def test_places_are_found() -> None:
    truth = NOTHING, np.zeros((K, K)), 1.0, np.random.default_rng(5).normal(0, 1.5, BUCKETS)
    fit = PCCMCFit(static_heads(), seed=0).fit(observe(texts(30), *truth))
    before = divergence(PCCMCWeights(static_heads()), texts(3, 100), *truth)
    assert before > 0.15
    assert divergence(fit, texts(3, 100), *truth) < 0.02 * before


def test_a_head_that_is_flatter_than_its_weights_is_scaled() -> None:
    truth = np.zeros(BUCKETS), np.zeros((K, K)), 0.4
    fit = PCCMCFit(static_heads(), seed=0).fit(observe(texts(20), *truth))
    np.testing.assert_allclose(fit.c_, 0.4, atol=0.02)
    before = divergence(PCCMCWeights(static_heads()), texts(3, 100), *truth)
    assert divergence(fit, texts(3, 100), *truth) < 0.02 * before


def test_one_prompt_fits_distances_alone() -> None:
    truth = np.random.default_rng(1).normal(size=BUCKETS), np.zeros((K, K))
    fit = PCCMCFit(static_heads(), seed=0).fit(observe(texts(1), *truth))
    assert (fit.choice_ == 0).all()
    assert all(delta.count_nonzero() == 0 for delta in fit.delta_)
    assert np.abs(fit.b_).max() > 0.1


def test_a_fit_takes_as_many_prompts_as_it_can_afford() -> None:
    given = observe(texts(10), np.zeros(BUCKETS), np.zeros((K, K)))  # five prompts of two texts
    each = 2 * 4 * sum(range(1, 40))
    assert affordable(given, 0, 5 * each) is given
    some = affordable(given, 0, 3 * each + 1)
    assert len(set(some.groups)) == 3
    assert len(some.texts) == len(some.score_mass) == 6
    assert some.groups == affordable(given, 0, 3 * each + 1).groups
    assert len(set(affordable(given, 0, 1).groups)) == 2


def test_scaled_weights_find_scale_distances_and_places() -> None:
    rng = np.random.default_rng(6)
    truth = rng.normal(0, 1.5, BUCKETS), np.zeros((K, K)), 0.6, rng.normal(0, 1.0, BUCKETS)
    fit = PCCMCScaled(static_heads(), seed=0).fit(observe(texts(30), *truth))
    before = divergence(PCCMCWeights(static_heads()), texts(3, 100), *truth)
    assert before > 0.15
    assert divergence(fit, texts(3, 100), *truth) < 0.02 * before
    np.testing.assert_allclose(fit.c_, 0.6, atol=0.05)


def test_scaled_weights_say_nothing_of_pairs_of_their_own() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 1.5, BUCKETS), rng.normal(0, 1.5, (K, K))
    fit = PCCMCScaled(static_heads(), seed=0).fit(observe(texts(30), *truth))
    assert fit.effects_ is None
    assert [delta.nnz for delta in fit.delta_] == [0] * len(fit.delta_)
    held_out = texts(3, 100)
    least = divergence(PCCMCFit(static_heads(), seed=0).fit(observe(texts(30), *truth)), held_out, *truth)
    before, after = divergence(PCCMCWeights(static_heads()), held_out, *truth), divergence(fit, held_out, *truth)
    assert 5 * least < after < before
    terms = fit.loop_terms()
    assert terms.form is None
    assert terms.pairs is not None
    assert len(terms.pairs.codes) == 0


def test_scaled_weights_that_are_exact_stay_as_they_are() -> None:
    nothing = np.zeros(BUCKETS), np.zeros((K, K))
    fit = PCCMCScaled(static_heads(), seed=0).fit(observe(texts(8), *nothing))
    assert divergence(fit, texts(3, 100), *nothing) < 1e-5
