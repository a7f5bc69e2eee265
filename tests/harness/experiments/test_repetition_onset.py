"""Where repetition sets in as the temperature falls: made-up sweeps whose onset is known."""

from __future__ import annotations

import pandas as pd
import pytest
from made_up_repetition import repetition_rows

from harness.core.records import Interval
from harness.core.rows import MODEL
from harness.experiments.repetition.answers import answers
from harness.experiments.repetition.figures import figures
from harness.experiments.repetition.onset_table import QUESTION, onset_table, sweeps, temperature_of
from harness.experiments.repetition.parts import parts
from harness.experiments.repetition.tables import tables

LEVELS = {"temperature=1": 0.1, "greedy": 0.6, "temperature=0.5": 0.45, "temperature=1,top_p=0.9": 0.3}


def sweep_rows(levels: dict[str, float] = LEVELS) -> pd.DataFrame:
    made = [repetition_rows(strategies=(name,), level=level, laws=("decoded",)) for name, level in levels.items()]
    return pd.concat(made, ignore_index=True)


def test_temperatures_of_strategies() -> None:
    names = ["greedy", "temperature=0.85", "temperature=1,top_p=0.9", "beams=4", "greedy,repetition_penalty=1.2"]
    assert [temperature_of(name) for name in names] == [0.0, 0.85, None, None, None]


def test_onsets_are_where_half_of_the_greedy_value_is_reached() -> None:
    (one,) = sweeps(parts(sweep_rows()))
    assert list(one.at) == [0.0, 0.5, 1.0]
    assert [part.strategy for part in one.cut] == ["temperature=1,top_p=0.9"]
    found = dict(zip(onset_table([one]).column("whose"), onset_table([one]).rows, strict=True))
    model, chosen, counts = (found[name] for name in ("the model", "chosen rung", "counts"))
    assert model[-2].value == pytest.approx(0.5 + 0.5 * 0.15 / 0.35)
    assert model[-1] is None
    assert chosen[-2].value == pytest.approx(0.5 + 0.5 * (0.44 - 0.295) / 0.35)
    assert chosen[-1].value == pytest.approx(chosen[-2].value - model[-2].value)
    assert counts[-2].value == pytest.approx(0.5)  # .3 when greedy, .15 at T = .5
    for cell in (model[-2], chosen[-2], chosen[-1]):
        assert isinstance(cell, Interval)
        assert cell.low is not None
        assert cell.low <= cell.value <= cell.high
    assert chosen[-1].high - chosen[-1].low < model[-2].high - model[-2].low + 0.05


def test_said_drawn_and_tabled_only_where_there_is_a_sweep() -> None:
    rows = sweep_rows()
    (said,) = [one for one in answers(rows) if one.question == QUESTION]
    assert "at T = 0.714" in said.text
    assert "the chosen rung, at 0.707" in said.text
    assert " Walks of counts: at 0.500 [" in said.text
    assert answers(rows)[0] == said
    assert any(table.name == "repetition.onset" for table in tables(rows))
    (drawn,) = [one for one in figures(rows, rows.head(0)) if one.name.startswith("sweep")]
    axis = drawn.draw().axes[0]
    line = axis.containers[0].lines[0]
    assert list(line.get_ydata()) == pytest.approx([0.6, 0.45, 0.1])
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "0.5", "1", "T = 1\ntop-p 0.9"]
    two = sweep_rows({name: LEVELS[name] for name in ("greedy", "temperature=1")})
    assert sweeps(parts(two)) == []
    assert not any(table.name == "repetition.onset" for table in tables(two))
    assert MODEL not in [source.name for source in sweeps(parts(rows))[0].sources()]


def test_what_stays_above_half_has_no_onset() -> None:
    rows = sweep_rows({"greedy": 0.6, "temperature=0.5": 0.55, "temperature=1": 0.5})
    (said,) = [one for one in answers(rows) if one.question == QUESTION]
    assert not said.answered
    assert "does not fall to half by 1" in said.text


def test_what_hardly_repeats_when_greedy_has_no_onset() -> None:
    (one,) = sweeps(parts(sweep_rows({name: 0.302 * level / 0.6 for name, level in LEVELS.items()})))
    counts = next(source for source in one.sources() if source.rung == "counts")
    greedy = next(iter(one.at.values())).interval("seq_rep_4", counts).value
    assert 0 < greedy < 0.01
    assert one.onset(counts).value is None
    assert "below 0.01 when greedy" in str(one.onset(counts).missing)
    assert one.later(counts).value is None
    assert one.onset(one.real).value is not None
    axis = next(f for f in figures(sweep_rows(), sweep_rows().head(0)) if f.name.startswith("sweep")).draw().axes[0]
    marks = {line.get_color() for line in axis.lines if line.get_marker() == "|"}
    assert marks <= {line.get_color() for line in axis.lines if line.get_marker() not in ("|", "None", "", None)}
