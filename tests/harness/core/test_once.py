"""What is computed once: only of frames that were declared settled, and only as long as they live."""

from __future__ import annotations

import gc

import pandas as pd

from harness.core import once
from harness.core.once import among, settle


def test_settled_frames_are_read_once_and_others_every_time() -> None:
    calls: list[int] = []

    @once.once
    def total(frame: pd.DataFrame) -> int:
        calls.append(1)
        return int(frame["a"].sum())

    loose, kept = pd.DataFrame({"a": [1, 2]}), settle(pd.DataFrame({"a": [3, 4]}))
    assert [total(loose), total(kept), total(kept)] == [3, 7, 7]
    loose["a"] = [5, 6]
    assert total(loose) == 11
    assert len(calls) == 3
    assert total(kept.copy()) == 7
    assert len(calls) == 4


def test_texts_are_found_in_settled_frames_as_in_others() -> None:
    texts = pd.DataFrame({"a": ["x", "y", None, "x", "z"], "b": [None] * 5})
    for frame in (texts, settle(texts.copy())):
        for _ in range(2):
            assert among(frame, "a", "x").tolist() == [True, False, False, True, False]
            assert among(frame, "a", "z", "y", "w").tolist() == [False, True, False, False, True]
            assert not among(frame, "a", "w").any()
            assert not among(frame, "b", "x").any()
            assert not among(frame, "a").any()


def test_results_go_with_their_frames() -> None:
    before = len(once._settled)

    @once.once
    def same(frame: pd.DataFrame) -> list[int]:
        return list(frame["a"])

    frames = [settle(pd.DataFrame({"a": [k]})) for k in range(50)]
    assert [same(frame) for frame in frames] == [[k] for k in range(50)]
    assert len(once._settled) == before + 50
    del frames
    gc.collect()
    assert len(once._settled) <= before


def test_results_are_kept_in_the_object_they_are_of() -> None:
    class Base:
        factor = 2

    calls: list[int] = []

    @once.once_of
    def times(base: Base, number: int, plus: int = 0) -> int:
        calls.append(number)
        return base.factor * number + plus

    first, second = Base(), Base()
    assert [times(first, 1), times(first, 1), times(first, 1, plus=1), times(second, 1)] == [2, 2, 3, 2]
    assert len(calls) == 3
