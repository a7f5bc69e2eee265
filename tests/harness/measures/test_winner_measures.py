"""Winner sets, dominance and exponents against slow, plain twins."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.measures.agreement import jaccard, precision, recall, winner_measures
from harness.measures.measurement import Measurement
from harness.measures.winners import (
    dominance,
    dominance_area,
    loser_exponent,
    own_winner_measures,
    return_time,
    time_to_dominance,
    winner_set,
    winner_size,
)

texts = st.lists(st.integers(0, 5), max_size=80)
sets = st.lists(st.integers(0, 5), max_size=4, unique=True)
curves = st.lists(st.sampled_from([0.0, 0.5, 0.89, 0.9, 1.0]), max_size=12)


def value(measurement: Measurement) -> float:
    assert measurement.value is not None, measurement.missing
    return measurement.value


def slow_winners(text: list[int], percent: int) -> list[int]:
    width = min(128, len(text) // 2)
    window = text[len(text) - width :]
    last = {token: t for t, token in enumerate(window)}
    ranked = sorted(Counter(window).items(), key=lambda item: (-item[1], -last[item[0]], item[0]))
    chosen: list[int] = []
    held = 0
    for token, count in ranked:
        if 100 * held >= percent * width:
            break
        chosen.append(token)
        held += count
    return chosen


def slow_dominance(text: list[int], winners: list[int], prompt: list[int], window: int) -> list[float]:
    curve = []
    for t in range(1, len(text) + 1):
        recent = (prompt + text[:t])[-window:]
        curve.append(sum(token in winners for token in recent) / len(recent))
    return curve


@settings(deadline=None)
@given(texts, st.sampled_from([50, 75, 90, 100]))
def test_the_winner_set(text: list[int], percent: int) -> None:
    winners = slow_winners(text, percent)
    assert winner_set(text, percent / 100).tolist() == winners
    if winners:
        assert value(winner_size(text, percent / 100)) == len(winners)
    else:
        assert winner_size(text).missing == "continuation shorter than 2 tokens"


def test_nine_tenths_exactly_are_enough() -> None:
    for width in range(10, 121, 10):
        window = [1] * (width * 9 // 10) + [2] * (width // 10)
        assert winner_set([0] * width + window).tolist() == [1], width


def test_ties_go_to_the_most_recent() -> None:
    assert winner_set([0] * 6 + [3, 1, 2, 3, 2, 1], 0.3).tolist() == [1]
    assert winner_set([0] * 6 + [3, 1, 2, 3, 2, 1], 0.5).tolist() == [1, 2]


@settings(deadline=None)
@given(texts, sets, texts, st.integers(1, 40))
def test_dominance(text: list[int], winners: list[int], prompt: list[int], window: int) -> None:
    expected = slow_dominance(text, winners, prompt, window)
    np.testing.assert_allclose(dominance(text, winners, prompt, window), expected, rtol=1e-15)


@settings(deadline=None)
@given(curves)
def test_time_to_dominance(curve: list[float]) -> None:
    times = [t for t in range(1, len(curve) + 1) if all(share >= 0.9 for share in curve[t - 1 :])]
    assert time_to_dominance(curve).value == (times[0] if times else None)


def test_time_to_dominance_says_why_there_is_none() -> None:
    assert time_to_dominance([1.0, 0.5]).missing == "dominance ends below 0.9"
    assert time_to_dominance([]).missing == "continuation shorter than 1 token"


def test_dominance_area_is_a_mean_distance() -> None:
    assert value(dominance_area([0.0, 1.0, 0.5], [1.0, 1.0, 0.0])) == pytest.approx(0.5)
    assert dominance_area([], []).missing is not None
    with pytest.raises(ValueError, match="one length"):
        dominance_area([0.0], [0.0, 1.0])


@settings(deadline=None)
@given(texts, sets)
def test_return_time(text: list[int], winners: list[int]) -> None:
    gaps = []
    for winner in winners:
        visits = [t for t, token in enumerate(text) if token == winner]
        gaps += [b - a for a, b in itertools.pairwise(visits)]
    if gaps:
        assert value(return_time(text, winners)) == statistics.median(gaps)
    else:
        assert return_time(text, winners).missing == "no winner occurs twice"


@settings(deadline=None)
@given(sets, sets)
def test_agreement_of_sets(real: list[int], surrogate: list[int]) -> None:
    both, either = set(real) & set(surrogate), set(real) | set(surrogate)
    if not real or not surrogate:
        for measure in (jaccard, precision, recall):
            assert measure(real, surrogate).missing == "empty winner set"
        return
    assert value(jaccard(real, surrogate)) == len(both) / len(either)
    assert value(precision(real, surrogate)) == len(both) / len(surrogate)
    assert value(recall(real, surrogate)) == len(both) / len(real)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=10, max_size=150), st.integers(0, 2), st.integers(0, 10))
def test_loser_exponent_is_a_slope(text: list[int], token: int, prompt_length: int) -> None:
    first = math.ceil(len(text) / 10)
    measured = loser_exponent(text, prompt_length, token)
    if prompt_length > first:
        assert measured.missing == "less than one decade of time after the prompt"
    elif token not in text[:first]:
        assert measured.missing == f"token {token} does not occur among the first {first} tokens"
    else:
        ratio = len(text) / first
        times = sorted({round(first * ratio ** (k / 63)) for k in range(64)})
        counts = [text[:t].count(token) for t in times]
        slope = np.polyfit(np.log(times), np.log(counts), 1)[0]
        assert value(measured) == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_loser_exponent_of_a_power_law(rho: float) -> None:
    times = np.arange(1, 200_001)
    counts = np.floor(times**rho)
    text = (np.diff(counts, prepend=0) == 0).astype(int)  # token 0 arrives whenever t^rho passes a whole number
    assert value(loser_exponent(text, 20, 0)) == pytest.approx(rho, abs=0.01)
    assert value(loser_exponent(np.zeros(1000, dtype=int), 5, 0)) == pytest.approx(1)
    assert value(loser_exponent([0, *([1] * 999)], 1, 0)) == 0


def test_loser_exponent_refuses_a_prompt_longer_than_the_text() -> None:
    assert loser_exponent([0] * 9, 0, 0).missing == "less than one decade of time after the prompt"
    with pytest.raises(ValueError, match="prompt of 11 tokens in a sequence of 10"):
        loser_exponent([0] * 10, 11, 0)


@settings(deadline=None)
@given(texts, texts, texts)
def test_the_tables_of_measures(real: list[int], surrogate: list[int], prompt: list[int]) -> None:
    length = min(len(real), len(surrogate))
    real, surrogate = real[:length], surrogate[:length]
    pair, own = winner_measures(real, surrogate, prompt), own_winner_measures(real, prompt)
    assert list(pair) == ["winner_jaccard", "winner_precision", "winner_recall", "winner_size", "dominance_area"]
    assert list(own) == ["winner_size", "dominance", "time_to_dominance", "return_time"]
    if length < 2:
        assert {m.missing for m in (*pair.values(), *own.values())} == {"continuation shorter than 2 tokens"}
        return
    a, b = slow_winners(real, 90), slow_winners(surrogate, 90)
    curve_a, curve_b = slow_dominance(real, a, prompt, 32), slow_dominance(surrogate, b, prompt, 32)
    assert pair["winner_jaccard"] == jaccard(a, b)
    assert pair["winner_precision"] == precision(a, b)
    assert pair["winner_recall"] == recall(a, b)
    assert value(pair["winner_size"]) == len(b)
    distances = [abs(x - y) for x, y in zip(curve_a, curve_b, strict=True)]
    assert value(pair["dominance_area"]) == pytest.approx(statistics.mean(distances))
    assert value(own["winner_size"]) == len(a)
    assert value(own["dominance"]) == pytest.approx(statistics.mean(curve_a))
    assert own["time_to_dominance"] == time_to_dominance(curve_a)
    assert own["return_time"] == return_time(real, a)


def test_a_loop_returns_after_its_period_and_dominates_from_the_start() -> None:
    own = own_winner_measures([4, 5, 6] * 40, prompt=[4, 5, 6])
    assert value(own["winner_size"]) == value(own["return_time"]) == 3
    assert value(own["dominance"]) == value(own["time_to_dominance"]) == 1
    late = own_winner_measures([4] * 100, prompt=[1] * 50)
    assert value(late["time_to_dominance"]) == 29  # 29 of the last 32 tokens are the first share above .9


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="3 tokens and a surrogate's of 2"):
        winner_measures([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="share"):
        winner_set([1, 2], 0.0)
    with pytest.raises(ValueError, match="got 0"):
        dominance([1, 2], [1], window=0)
