"""Tables in every format; on a terminal no line is too wide and no number is cut."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from harness.core.format import interval
from harness.core.records import Answer, Column, Interval, Table
from harness.report.render import FORMATS, data, render
from harness.report.render.cells import cell_text, is_number
from harness.report.render.layout import layout, plain, wrap

WIDTHS = (40, 80, 100, 160)
NAMES = st.text(max_size=60) | st.sampled_from(
    ["pccmc-fit", "results/reference/generation/smollm2-135m-with-a-long-name", "表" * 30, "a b c", "", "x" * 90]
)
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    value = draw(NUMBERS)
    if draw(st.booleans()):
        return Interval(value, None, None, 3, "too few units")
    wide = abs(draw(st.floats(0, 10)))
    return Interval(value, value - wide, value + wide, draw(st.integers(5, 500)))


CELLS = NAMES | st.integers(-(10**6), 10**6) | NUMBERS | intervals() | st.none() | st.booleans()


@st.composite
def tables(draw: st.DrawFn) -> Table:
    count = draw(st.integers(1, 9))
    columns = [
        Column(
            draw(NAMES),
            draw(st.sampled_from(["", "nats"])),
            draw(st.integers(0, 3)),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for _ in range(count)
    ]
    rows = [[draw(CELLS) for _ in range(count)] for _ in range(draw(st.integers(0, 4)))]
    places = [(i, j) for i in range(len(rows)) for j in range(count)]
    marked = frozenset(draw(st.sets(st.sampled_from(places), max_size=2))) if places else frozenset()
    return Table("a.b", draw(NAMES), columns, rows, draw(NAMES), marked=marked, mark="the best of its group")


def shown(table: Table, width: int) -> list[str]:
    return [plain(line) for line in layout(table, width)]


def words(text: str) -> str:
    return re.sub(r"\s+", "", text)


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from(WIDTHS))
def test_no_line_is_wider_and_no_number_is_cut(table: Table, width: int) -> None:
    lines = shown(table, width)
    assert max(map(cell_len, lines), default=0) <= width
    text = "\n".join(lines)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    note = words(text)
    for index, column in enumerate(table.columns):
        figures = [cell_text(row[index], column) for row in table.rows if is_number(row[index])]
        gone = [figure for figure in figures if figure not in text]
        if gone:
            assert column.priority > 0  # left out as a whole
            assert "notshown:" in note


@settings(max_examples=60, deadline=None)
@given(tables())
def test_a_wide_terminal_shows_everything(table: Table) -> None:
    text = words("\n".join(shown(table, 4000)))
    assert "notshown:" not in text
    for row in table.rows:
        for cell, column in zip(row, table.columns, strict=True):
            assert all(words(line) in text for line in cell_text(cell, column).split("\n"))


@given(st.text(), st.integers(2, 60))
def test_wrapping_loses_no_sign(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert words("".join(lines)) == words(text)


FOUND = Interval(0.5, 0.4, 0.6, 9)
TABLE = Table(
    "heads.explained",
    "What surrogates explain",
    [
        Column("surrogate", left=True),
        Column("explained"),
        Column("kl", "nats", priority=1),
        Column("lead", signed=True, priority=2),
        Column("remarks", left=True, priority=3),
    ],
    [
        ["ccmc-fit", FOUND, 0.25, Interval(0.1, 0.05, 0.2, 9), "the first"],
        ["a|b_$&\\<i>", FOUND, None, None, "x"],
    ],
    "Intervals: 95 %, bootstrap over prompts.",
    marked=frozenset({(0, 1)}),
    mark="the best of its group",
)


def test_columns_are_left_out_by_priority_and_named() -> None:
    assert "not shown" not in "\n".join(shown(TABLE, 160))
    narrow = shown(TABLE, 60)
    assert "Too wide for 60 columns, not shown: lead, remarks" in " ".join(narrow)
    assert any("0.500 [0.400, 0.600] *" in line for line in narrow)
    assert any(line.startswith("*: the best of its group.") or "*: the best" in line for line in narrow)
    narrowest = " ".join(shown(TABLE, 40))
    assert "not shown: kl (nats), lead, remarks" in narrowest
    bold = layout(TABLE, 100, star=False)
    assert [span.text.strip() for line in bold for span in line if span.style == "bold" and "0.5" in span.text] == [
        interval(FOUND)
    ]
    assert "Bold: the best of its group." in "\n".join(map(plain, bold))


def test_rows_become_blocks_where_nothing_can_be_left_out() -> None:
    columns = [Column("name", left=True), *(Column(f"figure {number}") for number in range(4))]
    table = Table("t", "Wide", columns, [["one", FOUND, FOUND, FOUND, FOUND]])
    lines = shown(table, 60)
    assert lines[1:4] == [
        "name: one",
        "  figure 0: 0.500 [0.400, 0.600]",
        "  figure 1: 0.500 [0.400, 0.600]",
    ]


def test_numbers_align_at_their_ends() -> None:
    table = Table(
        "t", "", [Column("", left=True), Column("x")], [["a", FOUND], ["b", 0.25]], marked=frozenset({(0, 1)})
    )
    lines = shown(table, 80)[2:]
    assert lines == ["a  0.500 [0.400, 0.600] *", "b                 0.250"]


def test_the_same_in_every_format() -> None:
    lines = list(csv.DictReader(io.StringIO(render([TABLE], "csv"))))
    assert len(lines) == 10
    assert lines[1] == {
        "table": "heads.explained",
        "row": "1",
        "column": "explained",
        "value": "0.5",
        "low": "0.4",
        "high": "0.6",
        "n": "9",
    }
    (record,) = json.loads(render([TABLE], "json"))
    assert record["rows"][0][1] == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "missing": None}
    assert record["columns"][2] == {"name": "kl", "unit": "nats"}
    markdown = render([TABLE], "markdown")
    assert "| ccmc-fit | **0.500 [0.400, 0.600]** | 0.250 | +0.100 [+0.050, +0.200] | the first |" in markdown
    assert r"a\|b\_$&\\\<i\>" in markdown
    assert "Bold: the best of its group." in markdown
    latex = render([TABLE], "latex")
    assert r"\textbf{0.500 [0.400, 0.600]}" in latex
    assert r"a|b\_\$\&\textbackslash{}<i>" in latex
    assert r"\begin{tabular}{lrrrl}" in latex
    assert set(FORMATS) == {"rich", "markdown", "latex", "csv", "json"}


def test_html_is_escaped() -> None:
    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.seen.append(tag)

    tags = Tags()
    tags.feed(render([TABLE], "html"))
    assert "i" not in tags.seen
    assert tags.seen.count("b") == 1
    assert tags.seen.count("tr") == 3


def test_json_has_no_nan() -> None:
    (record,) = json.loads(render([Table("t", "t", [Column("x")], [[float("nan")], [float("inf")]])], "json"))
    assert record["rows"] == [[None], [None]]
    with pytest.raises(ValueError, match="JSON"):
        data.to_json(float("nan"))


def test_answers_as_data() -> None:
    answer = Answer("Which?", "ccmc-fit: 50 %.", FOUND)
    assert data.answer_record(answer)["estimate"]["low"] == 0.4
    assert list(data.answers_table([answer]).rows[0]) == ["Which?", "ccmc-fit: 50 %.", FOUND, True]


@pytest.mark.parametrize("width", [24, 40, 60, 80])
def test_prose_is_not_broken_inside_a_figure_with_its_interval(width: int) -> None:
    figures = ["0.232 [0.205, 0.265]", "+1.5 [-0.2, 3.1],", "51 % [43, 56]", "2 × [1.5, 2.5]."]
    text = " and then ".join(f"word {figure} more words" for figure in figures)
    lines = wrap(text, width)
    assert max(map(cell_len, lines)) <= width
    assert " ".join(lines).split() == text.split()
    for figure in figures:
        assert any(figure in line for line in lines), lines


def test_an_interval_wider_than_a_line_is_broken_between_its_parts() -> None:
    assert wrap("0.232 [0.205, 0.265]", 8) == ["0.232", "[0.205,", "0.265]"]
