"""Every repetition measure against a slow, plain twin on small alphabets, and its closed and undefined cases."""

from __future__ import annotations

import math
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.measures.loops import Loop, find_loop
from harness.measures.measurement import Measurement
from harness.measures.repetition import (
    argmax_repeat_rate,
    compression_ratio,
    distinct,
    diversity,
    effective_vocabulary,
    rep,
    repetition_measures,
    seq_rep,
    window_entropy,
    window_entropy_curve,
    zipf_slope,
)

NAMES = [
    *(f"seq_rep_{n}" for n in (1, 2, 3, 4)),
    *("distinct_2", "diversity", "rep_16", "rep_32", "rep_128", "window_entropy", "effective_vocabulary"),
    *("zipf_slope", "compression_ratio", "loop_onset", "loop_period", "loop_share", "length"),
]


@st.composite
def texts(draw: st.DrawFn) -> list[int]:
    """Free text, or free text that runs into a loop, sometimes with a slip inside the loop."""
    size = draw(st.integers(1, 8))
    head = draw(st.lists(st.integers(0, size), max_size=40))
    motif = draw(st.lists(st.integers(0, size), min_size=1, max_size=9))
    tail = (motif * 40)[: draw(st.integers(0, 40))]
    slip = draw(st.integers(0, 2 * len(tail)))
    if slip < len(tail):
        tail[slip] = size
    return head + tail


def value(measurement: Measurement) -> float:
    assert measurement.value is not None, measurement.missing
    return measurement.value


def grams(text: list[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def slow_rep(text: list[int], window: int) -> float:
    return sum(token in text[max(0, t - window) : t] for t, token in enumerate(text)) / len(text)


def slow_entropy(text: list[int]) -> float:
    return -sum(c / len(text) * math.log(c / len(text)) for c in Counter(text).values())


def slow_loop(text: list[int]) -> tuple[int, int] | None:
    for period in range(1, len(text) + 1):
        for onset in range(len(text)):
            tail = text[onset:]
            if all(tail[i] == tail[i - period] for i in range(period, len(tail))):
                if len(tail) >= max(3 * period, 16):
                    return period, onset
                break
    return None


@settings(deadline=None)
@given(texts(), st.integers(1, 6))
def test_repeated_ngrams(text: list[int], n: int) -> None:
    if len(text) < n:
        assert seq_rep(text, n).missing == distinct(text, n).missing is not None
        return
    share = len(set(grams(text, n))) / len(grams(text, n))
    assert value(distinct(text, n)) == pytest.approx(share)
    assert value(seq_rep(text, n)) == pytest.approx(1 - share)


@settings(deadline=None)
@given(texts(), st.integers(1, 40))
def test_repeats_within_a_window(text: list[int], window: int) -> None:
    if len(text) < 2:
        assert rep(text, window).missing == "continuation shorter than 2 tokens"
    else:
        assert value(rep(text, window)) == pytest.approx(slow_rep(text, window))
        assert argmax_repeat_rate(text, text, window=window) == rep(text, window)


@settings(deadline=None)
@given(texts(), texts(), texts(), st.integers(1, 40))
def test_repeats_among_argmaxes(text: list[int], guesses: list[int], prompt: list[int], window: int) -> None:
    length = min(len(text), len(guesses))
    text, guesses = text[:length], guesses[:length]
    measured = argmax_repeat_rate(guesses, text, prompt, window)
    if length == 0 or length + len(prompt) < 2:
        assert measured.missing is not None
        return
    history = prompt + text
    hits = [guesses[t] in history[max(0, len(prompt) + t - window) : len(prompt) + t] for t in range(length)]
    assert value(measured) == pytest.approx(sum(hits) / length)


@settings(deadline=None)
@given(texts(), st.none() | st.integers(1, 40))
def test_entropy_along_the_text(text: list[int], window: int | None) -> None:
    width = len(text) // 2 if window is None else window
    curve = window_entropy_curve(text, window)
    expected = [slow_entropy(text[max(0, t - max(width, 1)) : t]) for t in range(1, len(text) + 1)]
    np.testing.assert_allclose(curve, expected, atol=1e-12)
    if width == 0 or len(text) < width:
        assert window_entropy(text, window).missing == f"continuation shorter than {width or 2} token" + "s" * (
            width != 1
        )
        assert effective_vocabulary(text, window) == window_entropy(text, window)
    else:
        assert value(window_entropy(text, window)) == pytest.approx(curve[-1], abs=1e-12)
        assert value(effective_vocabulary(text, window)) == pytest.approx(math.exp(curve[-1]))


@settings(deadline=None)
@given(texts())
def test_zipf_slope(text: list[int]) -> None:
    counts = sorted(Counter(text).values(), reverse=True)
    if len(counts) < 5:
        assert zipf_slope(text).missing == "fewer than 5 types of token"
    else:
        slope = np.polyfit(np.log(np.arange(1, len(counts) + 1)), np.log(np.array(counts) / len(text)), 1)[0]
        assert value(zipf_slope(text)) == pytest.approx(slope, abs=1e-9)


@settings(deadline=None)
@given(texts())
def test_loops(text: list[int]) -> None:
    expected = slow_loop(text)
    loop = find_loop(text)
    if expected is None:
        assert loop is None
    else:
        period, onset = expected
        assert loop == Loop(period, onset, (len(text) - onset) / len(text))


@settings(deadline=None)
@given(texts())
def test_the_table_of_measures_is_made_of_the_single_ones(text: list[int]) -> None:
    measures = repetition_measures(text)
    assert list(measures) == NAMES
    for n in (1, 2, 3, 4):
        assert measures[f"seq_rep_{n}"] == seq_rep(text, n)
    for window in (16, 32, 128):
        assert measures[f"rep_{window}"] == rep(text, window)
    assert measures["distinct_2"] == distinct(text, 2)
    assert measures["diversity"] == diversity(text)
    assert measures["window_entropy"] == window_entropy(text)
    assert measures["effective_vocabulary"] == effective_vocabulary(text)
    assert measures["zipf_slope"] == zipf_slope(text)
    assert measures["compression_ratio"] == compression_ratio(text)
    assert measures["length"] == Measurement(float(len(text)))


@settings(deadline=None)
@given(texts(), st.permutations(range(10)))
def test_only_compression_looks_at_the_ids_themselves(text: list[int], names: list[int]) -> None:
    renamed = repetition_measures([names[token] for token in text])
    for name, measured in repetition_measures(text).items():
        if name != "compression_ratio":
            assert renamed[name].missing == measured.missing
            assert renamed[name].value == pytest.approx(measured.value, abs=1e-12)


def test_diversity_is_a_product() -> None:
    text = [0, 1, 0, 1, 2, 0, 1]  # 2-grams: 4 of 6 distinct; 3-grams: 5 of 5; 4-grams: 4 of 4
    assert value(diversity(text)) == pytest.approx(4 / 6)
    assert diversity([0, 1, 0]).missing == "continuation shorter than 4 tokens"


def test_a_constant_text() -> None:
    measures = repetition_measures([7] * 100)
    expected = {"seq_rep_1": 0.99, "seq_rep_4": 96 / 97, "rep_16": 0.99, "window_entropy": 0, "effective_vocabulary": 1}
    expected |= {"loop_period": 1, "loop_onset": 0, "loop_share": 1}
    for name, number in expected.items():
        assert value(measures[name]) == pytest.approx(number)


def test_a_text_without_repeats() -> None:
    measures = repetition_measures(np.arange(100_000, 100_512))
    for name in ("seq_rep_1", "seq_rep_4", "rep_128", "loop_share", "zipf_slope"):
        assert value(measures[name]) == 0
    assert value(measures["diversity"]) == 1
    assert value(measures["effective_vocabulary"]) == pytest.approx(128)
    assert measures["loop_onset"].missing == measures["loop_period"].missing == "no loop"


def test_zipf_slope_of_a_power_law() -> None:
    text = np.repeat(np.arange(6), [3600, 900, 400, 225, 144, 100])  # counts 3600 / rank^2
    assert value(zipf_slope(text)) == pytest.approx(-2)


def test_compression_is_of_little_endian_words() -> None:
    text = [1, 300, 70_000] * 20
    raw = b"".join(struct.pack("<I", token) for token in text)
    assert value(compression_ratio(text)) == pytest.approx(240 / len(zlib.compress(raw, 9)))
    assert compression_ratio([]).missing == "continuation shorter than 1 token"


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ([1] * 16, 1),
        ([1] * 15, None),
        ([2, 1] * 8, 2),
        ([0, 1, 2, 3, 4, 5] * 3, 6),
        ([0, 1, 2, 3, 4, 5] * 2 + [0, 1, 2, 3, 4], None),  # one token short of three rounds
        ([0, 0, 1, 0, 0, 1] * 3, 3),  # the smallest period, not a multiple
    ],
)
def test_a_loop_needs_three_rounds_and_16_tokens(text: list[int], period: int | None) -> None:
    loop = find_loop(text)
    assert (loop.period if loop else None) == period


def test_the_onset_may_lie_inside_a_round() -> None:
    assert find_loop([9, 9, 2, 3, *([1, 2, 3] * 6)]) == Loop(3, 2, 20 / 22)


def test_short_continuations_say_what_they_lack() -> None:
    measures = repetition_measures([5, 5, 5])
    assert measures["seq_rep_4"].missing == measures["diversity"].missing == "continuation shorter than 4 tokens"
    assert measures["loop_share"].missing == measures["loop_onset"].missing == "continuation shorter than 16 tokens"
    assert measures["length"] == Measurement(3.0)
    empty = repetition_measures([])
    assert [name for name, measured in empty.items() if measured.value is not None] == ["length"]


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        rep([1, 2], 0)
    with pytest.raises(ValueError, match="got 0"):
        window_entropy([1, 2], 0)
    with pytest.raises(ValueError, match="1 argmaxes for a continuation of 2"):
        argmax_repeat_rate([1], [1, 2])
