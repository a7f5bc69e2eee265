"""Answers of generation, on made-up rows whose truth is known."""

from __future__ import annotations

import re

import pytest
from made_up_rows import ERRORS, KL, generation_rows

from harness.core.records import Answer
from harness.core.rows import Rows
from harness.experiments.generation.answers import answers
from harness.experiments.generation.recovered import NO_ROOM

CONTEXT, NEXT, WINNERS, REPETITION, RECOVERED = range(5)
FIGURE = r"[+-]?\d[\d.e-]*( \[[+-]?\d[\d.e-]*, [+-]?\d[\d.e-]*\])"


def sentences(answer: Answer) -> list[str]:
    return re.split(r"(?<=[.?]) (?=[A-Za-z])", answer.text)


def test_every_question_is_answered_for_every_model_and_strategy() -> None:
    found = answers(generation_rows(("m", "n"), ("greedy", "temperature=1")))
    assert len(found) == 5 * 4
    assert len({answer.question for answer in found}) == 5
    assert [answer.text.partition(":")[0] for answer in found[:4]] == [
        "m, greedy", "m, temperature=1", "n, greedy", "n, temperature=1",
    ]  # fmt: skip
    assert all(answer.answered for answer in found)
    assert all(answer.estimate is not None for answer in found)
    for answer in found:
        assert re.search(FIGURE, answer.text), answer.text
        assert max(map(len, sentences(answer))) <= 200, answer.text
    assert answers(generation_rows().iloc[:0]) == []


def test_the_truth_is_found() -> None:
    found = answers(generation_rows())
    mass = found[CONTEXT].estimate
    assert mass is not None
    assert mass.value == pytest.approx(0.65, abs=0.03)
    assert "near is closest" in found[NEXT].text
    assert "counts is 0." in found[NEXT].text  # the runner-up, further away
    assert "further away" in found[NEXT].text
    assert "the winners of near agree best, overlap 0." in found[WINNERS].text
    assert "better than the model's continuation of another prompt" in found[WINNERS].text
    assert "1.00 with another seed." in found[WINNERS].text
    assert "near comes closest" in found[REPETITION].text
    assert "more." in found[REPETITION].text
    share = found[RECOVERED].estimate
    assert share is not None
    assert share.value == pytest.approx(0.75, abs=0.06)
    assert "near recovers 0.7" in found[RECOVERED].text
    assert "counts recovers 0.3" in found[RECOVERED].text or "counts recovers 0.4" in found[RECOVERED].text


def test_no_difference_is_found_where_there_is_none() -> None:
    """Two surrogates of the same KL, none better than the floor; the smallest difference is 2.8 standard errors."""
    equal = {"counts": 1.0, "near": 1.0}
    found = answers(generation_rows(errors=equal, kl=equal))
    assert "no difference found to" in found[NEXT].text
    shown = re.search(
        r"\(([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\] nats\); .* one of about ([\d.]+) nats", found[NEXT].text
    )
    assert shown is not None
    low, high, least = (float(shown[place]) for place in (2, 3, 4))
    assert low < 0 < high
    assert least == pytest.approx((high - low) / 2 / 1.96 * 2.8, rel=0.06)
    assert found[NEXT].answered  # with how much it could have seen
    assert "no difference found to the model's continuation of another prompt" in found[WINNERS].text
    assert "this run could only have found one of about" in found[WINNERS].text


def test_a_surrogate_that_repeats_as_much_as_the_model() -> None:
    import numpy as np

    rows = generation_rows(errors={"counts": 0.0, "far": 1.0})
    noise = np.random.default_rng(3).normal(0, 0.05, len(rows))
    equal = (rows["surrogate"] == "counts") & (rows["metric"] == "seq_rep_4")
    rows.loc[equal, "value"] = rows.loc[equal, "value"] + noise[equal] - noise[equal].mean()
    text = answers(rows)[REPETITION].text
    assert "counts comes closest" in text
    assert "no difference found to the model" in text
    assert "Nor was one found" not in text


def test_worse_than_another_prompt() -> None:
    found = answers(generation_rows(errors={"counts": 1.2}))
    assert "worse than the model's continuation of another prompt" in found[WINNERS].text
    assert "none does better than another prompt's continuation" in found[RECOVERED].text
    assert "there is no other to compare with" in answers(generation_rows(kl={"counts": 1.0}))[NEXT].text


def test_what_cannot_be_answered_says_why() -> None:
    found = answers(generation_rows(ceiling=1.0))
    assert not found[RECOVERED].answered
    assert f"could not be answered: {NO_ROOM}" in found[RECOVERED].text
    assert [answer.answered for answer in found[:4]] == [True] * 4
    few = answers(generation_rows(prompts=3, errors={**ERRORS, "near": 0.9}, kl={**KL, "near": 0.95}))
    assert not few[NEXT].answered
    assert "3 units: fewer than 5 cannot carry an interval" in few[NEXT].text
    assert not few[WINNERS].answered
    alone = Rows(experiment="generation", model="m", strategy="s", split="held_out")
    alone.add("kl", None, missing="infinite", surrogate="counts", prompt="p", seed=0)
    alone.add("winner_jaccard", 0.5, surrogate="counts", prompt="p", seed=0)
    texts = [answer.text for answer in answers(alone.frame())]
    assert "no surrogate has a finite KL on every held-out prompt" in texts[NEXT]
    assert "one held-out prompt has no other to be compared with" in texts[WINNERS]
    assert not any(answer.answered for answer in answers(alone.frame()))


def test_surrogates_that_are_equal_everywhere_are_named_together() -> None:
    rows = generation_rows()
    twin = rows[(rows["surrogate"] == "near") & (rows["metric"] == "kl")].assign(surrogate="twin")
    import pandas as pd

    text = answers(pd.concat([rows, twin], ignore_index=True))[NEXT].text
    assert "near and twin are closest one token ahead, and equal" in text
    assert "counts is" in text


def test_a_kl_that_is_infinite_somewhere_is_never_the_closest() -> None:
    rows = generation_rows()
    first = rows.index[(rows["surrogate"] == "near") & (rows["metric"] == "kl")][0]
    rows.loc[first, "value"] = None
    rows.loc[first, "missing"] = "infinite"
    text = answers(rows)[NEXT].text
    assert "counts is closest" in text
    assert "(infinite somewhere: near)" in text
