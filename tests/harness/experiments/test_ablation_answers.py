"""Tables and answers of the count ablation, on made-up rows whose truth is known."""

from __future__ import annotations

import re

import pytest
from made_up_rows import ABLATED, ablation_rows

from harness.core.records import Interval
from harness.experiments.count_ablation.answers import answers
from harness.experiments.count_ablation.conditions import NONE
from harness.experiments.count_ablation.tables import tables
from harness.report.render.layout import layout, plain

ALL = '{"ablation": "all", "strength": 1.0}'
REPETITION, COST, PENALTY, HALVES, HEADS = range(5)


def test_the_truth_is_found() -> None:
    found = answers(ablation_rows())
    assert len(found) == 5
    estimates = [answer.estimate for answer in found[:4]]
    # at .2 nats the penalty is a third of the distance from 1.1 to 1.2: .3 - .2 / 3
    for estimate, truth in zip(estimates, (-0.1, 0.2, 0.4 - (0.3 - 0.2 / 3), -0.05), strict=True):
        assert estimate is not None
        assert estimate.value == pytest.approx(truth, abs=1e-9)
    assert "(strength 1) seq_rep_4 is 0.400" in found[REPETITION].text
    assert "it repeats less, by 0.100 [" in found[REPETITION].text
    assert "the loss on prose rises by 0.200 [" in found[COST].text
    assert "above that of a repetition penalty that costs as much on prose" in found[PENALTY].text
    assert "first half of the layers it repeats 0.050 [" in found[HALVES].text
    assert "less than without it in the second half of the layers" in found[HALVES].text
    assert "could not be answered: the best heads and the random heads were not both measured" in found[HEADS].text
    assert [answer.answered for answer in found] == [True, True, True, True, False]
    for answer in found:
        assert max(map(len, re.split(r"(?<=[.?]) (?=[A-Za-z])", answer.text))) <= 200
    assert answers(ablation_rows().iloc[:0]) == []


def test_no_difference_is_found_where_there_is_none() -> None:
    found = answers(ablation_rows({**ABLATED, ALL: ABLATED[NONE]}, spread=0.1))
    for place, unit in ((REPETITION, ""), (COST, " nats")):
        shown = re.search(rf"no difference found to the model with it \(.+ \[(.+), (.+)\]{unit}\)", found[place].text)
        assert shown is not None, found[place].text
        least = re.search(r"this run could only have found one of about (\d+\.?\d*)", found[place].text)
        assert least is not None
        low, high = float(shown[1]), float(shown[2])
        assert float(least[1]) == pytest.approx((high - low) / 2 / 1.96 * 2.8, rel=0.06)
        assert found[place].answered


def test_a_penalty_that_costs_as_much_may_be_missing() -> None:
    found = answers(ablation_rows({**ABLATED, ALL: (0.4, 9.0)}))
    assert not found[PENALTY].answered
    assert "could not be answered: no penalty that was measured costs as much" in found[PENALTY].text
    equal = answers(ablation_rows({**ABLATED, ALL: (0.3, 3.1)}, spread=0.1))
    assert "no difference found to a repetition penalty that costs as much on prose" in equal[PENALTY].text


def test_too_few_prompts_cannot_be_tested() -> None:
    found = answers(ablation_rows(prompts=3))
    assert [answer.answered for answer in found] == [False] * 5
    assert "3 units: fewer than 5 cannot carry an interval" in found[REPETITION].text


@pytest.mark.parametrize("models", [("smollm2-135m",), ("m", "n", "o")])
def test_the_headline_is_small(models: tuple[str, ...]) -> None:
    headline, *others = tables(ablation_rows(models=models))
    assert headline.headline
    assert not any(table.headline for table in others)
    assert len(headline.rows) == 3 * len(models)
    assert headline.column("without it")[:3] == ["all heads", "first half", "second half"]
    assert max(len(plain(line)) for line in layout(headline, 100)) <= 100
    assert ("seq_rep_4 0.500" in headline.caption) is (len(models) == 1)


def test_many_models_keep_the_headline_at_twelve_rows() -> None:
    headline = tables(ablation_rows(models=tuple("abcdefg")))[0]
    assert headline.column("without it") == ["all heads"] * 7
    assert len(tables(ablation_rows(models=tuple("abcdefghijklmn")))[0].rows) == 12


def test_every_cell_is_typed_and_every_column_named_once() -> None:
    for table in tables(ablation_rows(models=("m", "n"))):
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names)
        for row in table.rows:
            assert len(row) == len(names)
            assert all(cell is None or isinstance(cell, (str, int, float, Interval)) for cell in row)
            assert not any(isinstance(cell, str) and ("\n" in cell or "[" in cell) for cell in row)
