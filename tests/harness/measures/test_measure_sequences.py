"""The counting primitives against plain loops over tuples and slices."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.measures.measurement import Measurement, shorter_than
from harness.measures.sequences import as_tokens, members, ngram_counts, occurrences, return_gaps, trailing_window

texts = st.lists(st.integers(0, 3), max_size=60)
wide_texts = st.lists(st.sampled_from([0, 1, 2**20, 2**32 - 1]), max_size=40)


@settings(deadline=None)
@given(texts | wide_texts, st.integers(1, 9))
def test_ngram_counts_are_those_of_a_counter(text: list[int], n: int) -> None:
    counter = Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
    assert ngram_counts(text, n).tolist() == [counter[gram] for gram in sorted(counter)]


@settings(deadline=None)
@given(texts)
def test_return_gaps_look_back_to_the_last_occurrence(text: list[int]) -> None:
    expected = []
    for t, token in enumerate(text):
        earlier = [s for s in range(t) if text[s] == token]
        expected.append(t - earlier[-1] if earlier else 0)
    assert return_gaps(text).tolist() == expected


@settings(deadline=None)
@given(texts, st.data())
def test_occurrences_count_in_slices(text: list[int], data: st.DataObject) -> None:
    ends = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted)
    asked = data.draw(st.lists(st.tuples(st.integers(0, 4), ends), max_size=10))
    values = np.array([value for value, _ in asked], dtype=np.int64)
    start = np.array([a for _, (a, _) in asked], dtype=np.int64)
    stop = np.array([b for _, (_, b) in asked], dtype=np.int64)
    expected = [text[a:b].count(value) for value, (a, b) in asked]
    assert occurrences(as_tokens(text), values, start, stop).tolist() == expected


@settings(deadline=None)
@given(texts, texts)
def test_members_are_in_the_list(text: list[int], values: list[int]) -> None:
    assert members(as_tokens(text), as_tokens(values)).tolist() == [token in values for token in text]


@pytest.mark.parametrize(("length", "window"), [(0, 0), (1, 0), (2, 1), (7, 3), (256, 128), (257, 128), (1000, 128)])
def test_the_trailing_window_is_half_the_text_or_128_tokens(length: int, window: int) -> None:
    text = np.arange(length)
    assert trailing_window(text).tolist() == text[length - window :].tolist()


def test_tokens_that_are_none_are_refused_by_place_and_value() -> None:
    with pytest.raises(ValueError, match=r"prompt\[2\] is -7"):
        as_tokens([0, 1, -7], "prompt")
    with pytest.raises(ValueError, match=r"tokens\[1\] is 4294967296"):
        as_tokens([0, 2**32])
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        as_tokens([[0, 1]])
    with pytest.raises(ValueError, match="float64"):
        as_tokens([0.5])
    with pytest.raises(ValueError, match="n=0"):
        ngram_counts([1], 0)
    assert as_tokens([]).dtype == as_tokens(np.array([3], dtype=np.uint16)).dtype == np.int64


def test_a_measurement_has_a_value_or_a_reason() -> None:
    assert Measurement(0.0).missing is None
    assert shorter_than(1).missing == "continuation shorter than 1 token"
    assert shorter_than(4).missing == "continuation shorter than 4 tokens"
    with pytest.raises(ValueError, match="value or a reason"):
        Measurement(None)
    with pytest.raises(ValueError, match="value or a reason"):
        Measurement(1.0, "short")
    with pytest.raises(ValueError, match="NaN"):
        Measurement(float("nan"))
