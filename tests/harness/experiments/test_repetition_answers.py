"""Answers and figures of `repetition` on made-up rows: what they say, and that they never say more than was shown."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from made_up_repetition import repetition_rows

from harness.core.records import Answer
from harness.core.style import context
from harness.experiments.repetition.answers import answers
from harness.experiments.repetition.figures import figures

ONE_RUNG = "Does one rung, chosen on training prompts, repeat as the model does?"
QUESTIONS = [
    "Which statistics make the model repeat?",
    "Does fitting the decoded law matter?",
    "Do counts alone repeat enough?",
    "Does a walk know which prompt it continues?",
    "What could this run have found?",
]
NO_PATHS = pd.DataFrame()


def said(rows: pd.DataFrame) -> dict[str, Answer]:
    return {answer.question: answer for answer in answers(rows)}


@pytest.fixture(scope="module")
def found() -> dict[str, Answer]:
    return said(repetition_rows(strategies=("temperature=1",)))


def test_every_question_is_answered_for_every_strategy() -> None:
    every = answers(repetition_rows())
    assert [answer.question for answer in every] == [question for question in (ONE_RUNG, *QUESTIONS) for _ in range(2)]
    assert all(answer.answered for answer in every)


def test_the_statistic_that_makes_walks_repeat_is_named(found: dict[str, Answer]) -> None:
    answer = found[QUESTIONS[0]]
    assert "up to followed-by-1, the lowest rung that agrees, repeat as much as the model within 0.05" in answer.text
    assert "Adding followed-by-1 changes it by +0.290" in answer.text
    assert "Adding recency" not in answer.text
    assert "never repeats would agree" not in answer.text
    assert answer.estimate is not None
    assert answer.estimate.value == pytest.approx(-0.01)


def test_without_a_rung_that_agrees_the_closest_is_named() -> None:
    gaps = {"counts": -0.4, "recency": -0.3, "followed-by-1": -0.2, "followed-by-2 + followed-by-3": 0.3}
    text = said(repetition_rows(strategies=("greedy",), gaps=gaps))[QUESTIONS[0]].text
    assert "No rung is shown to agree; walks of the closest, up to followed-by-1, repeat 0.200" in text
    assert "less than the model" in text


def test_the_laws_are_compared_in_one_difference(found: dict[str, Answer]) -> None:
    text = found[QUESTIONS[1]].text
    assert "The raw law repeats 0.400" in text
    assert text.endswith("more.")


def test_a_difference_that_is_the_same_everywhere_is_shown() -> None:
    answer = said(repetition_rows(strategies=("greedy",), spread=0.0))[QUESTIONS[1]]
    assert answer.text.endswith("The raw law repeats 0.400 more, the same on every prompt.")
    assert answer.answered


def test_walks_that_are_as_far_from_the_model_on_every_prompt_are_not_left_undecided() -> None:
    found = said(repetition_rows(strategies=("greedy",), spread=0.0, groups=6))
    assert found[QUESTIONS[2]].text.count("no. Walks of counts alone (decoded law) repeat 0.300 less") == 1
    assert "up to followed-by-1, the lowest rung that agrees, repeat as much as the model within 0.05, the same" in (
        found[QUESTIONS[0]].text
    )
    few = said(repetition_rows(strategies=("greedy",), spread=0.0, groups=2))
    assert not any(answer.answered for answer in few.values())


def test_laws_that_were_not_walked_are_not_compared() -> None:
    cut = said(repetition_rows(strategies=("temperature=0.8,top_p=0.9",)))[QUESTIONS[1]]
    assert not cut.answered
    assert "this run has no walks of the raw law" in cut.text
    one = said(repetition_rows(laws=("decoded",)))[QUESTIONS[1]]
    assert not one.answered
    assert "only the decoded law" in one.text


def test_counts_alone_repeat_too_little_here(found: dict[str, Answer]) -> None:
    text = found[QUESTIONS[2]].text
    assert "no. Walks of counts alone (decoded law) repeat 0.300" in text
    assert "less than the model" in text


def test_where_the_model_hardly_repeats_agreement_is_called_empty() -> None:
    gaps = dict.fromkeys(("counts", "recency"), 0.001)
    found = said(repetition_rows(strategies=("greedy",), level=0.02, spread=0.002, gaps=gaps, laws=("decoded",)))
    for question in (QUESTIONS[0], QUESTIONS[2]):
        assert "a law that never repeats would agree too" in found[question].text


def test_a_walk_knows_its_prompt_where_its_skill_is_above_0(found: dict[str, Answer]) -> None:
    assert "yes, walks" in found[QUESTIONS[3]].text
    assert "+0.750" in found[QUESTIONS[3]].text
    energies = dict.fromkeys(("counts", "recency", "followed-by-1", "followed-by-2 + followed-by-3"), 6.0)
    worse = said(repetition_rows(strategies=("greedy",), energies=energies))[QUESTIONS[3]]
    assert "no, walks" in worse.text


def test_what_could_be_found_has_its_numbers(found: dict[str, Answer]) -> None:
    text = found[QUESTIONS[4]].text
    assert "24 held-out prompts in 12 groups" in text
    assert "enough for the margin of 0.05" in text


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_few_prompts_answer_nothing_and_say_why(groups: int) -> None:
    for answer in answers(repetition_rows(groups=groups, starts=(0, 8))):
        assert not answer.answered
        assert "too few" in answer.text or "fewer than" in answer.text or "group" in answer.text, answer.text


def test_one_walk_a_prompt_has_no_energy_score_and_says_so() -> None:
    rows = repetition_rows(strategies=("temperature=1",), groups=5, laws=("decoded",))
    one = (rows["metric"] == "energy_score") & (rows["surrogate"] == "context-logit")
    rows = rows.assign(value=rows["value"].mask(one), missing=rows["missing"].mask(one, "one draw: no spread"))
    answer = said(rows)[QUESTIONS[3]]
    assert not answer.answered
    assert answer.text.endswith("could not be answered: one draw: no spread.")


def test_without_rows_or_a_ladder_there_is_no_crash() -> None:
    rows = repetition_rows()
    assert answers(rows.iloc[:0]) == []
    assert figures(rows.iloc[:0], NO_PATHS) == []
    none = rows[rows["surrogate"] != "context-logit"]
    assert all(not answer.answered for answer in answers(none))
    assert figures(none, NO_PATHS) == []


def test_figures_are_drawn_and_warm_starts_only_where_there_are_several() -> None:
    rows = repetition_rows(("a/b",), ("greedy", "t=1", "t=2", "top_p=0.9"), 5, starts=(0, 8), laws=("decoded",))
    made = figures(rows, NO_PATHS)
    assert [figure.name for figure in made] == ["ladder-b", "walks-b", "warm-b"]
    for figure in made:
        with context(figure.name):
            figure.draw().savefig(io.BytesIO(), format="svg")
    fewer = figures(repetition_rows(groups=1), NO_PATHS)
    assert [figure.name for figure in fewer] == ["ladder-m", "walks-m"]
    for figure in fewer:
        figure.draw()


def test_the_walks_figure_shows_the_model_and_each_law() -> None:
    walks = figures(repetition_rows(strategies=("greedy",)), NO_PATHS)[1].draw()
    (axis,) = walks.axes
    assert [label.get_text() for label in walks.legends[0].get_texts()] == ["model", "decoded law", "raw law"]
    assert axis.lines[0].get_ydata()[0] == pytest.approx(0.5)
    heights = [line.get_ydata().tolist() for line in axis.lines if len(line.get_ydata()) == 4]
    assert [0.2, 0.2, 0.49, 0.5] in [[round(value, 6) for value in each] for each in heights]


def test_strategies_that_cannot_be_answered_for_the_same_reason_share_an_answer() -> None:
    rows = repetition_rows(strategies=("greedy", "temperature=0.5", "temperature=1"), laws=("decoded",))
    (one,) = [answer for answer in answers(rows) if answer.question == QUESTIONS[1]]
    assert not one.answered
    assert ", greedy, temperature=0.5 and temperature=1: could not be answered: only the decoded law" in one.text
