"""What a complete run says is read off its rows once, and anew where rows, sources or packages are others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.core import registry
from harness.core.lazy import LazyRows
from harness.core.records import Answer, Column, Interval, Table
from harness.report import kept, kept_readings, page
from harness.runs import reading
from harness.runs.reading import Reading
from harness.runs.run import Run, load_run

SMOKE = Path(__file__).resolve().parents[3] / "results/reference/smoke"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the reference run, and an empty cache."""
    monkeypatch.setenv("CCMC_CACHE", str(tmp_path / "cache"))
    shutil.copytree(SMOKE, tmp_path / "smoke")
    return load_run(tmp_path / "smoke")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever rows are read."""
    found: list[int] = []

    def read(rows: Any) -> list[Reading]:
        found.append(1)
        return reading.read(rows)

    monkeypatch.setattr(kept_readings, "read", read)
    return found


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "readings").glob("*.json"))


def test_the_second_time_no_row_is_read(run: Run, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    first = kept_readings.readings(run)
    for one in first:
        for table in one.tables:
            _ = list(table.rows)
    kept_readings.keep(run, first)
    monkeypatch.setattr(Run, "rows", property(lambda self: pytest.fail("rows were read")))
    again = kept_readings.readings(load_run(run.path))
    assert len(calls) == 1
    assert again == first
    assert [[table.headline for table in one.tables] for one in again] == [
        [table.headline for table in one.tables] for one in first
    ]


def test_rows_that_nobody_looked_at_are_made_later(run: Run, calls: list[int]) -> None:
    first = kept_readings.readings(run)
    lazy = Table("smoke.lazy", "", [Column("a")], LazyRows(lambda: pytest.fail("made")))
    kept_readings.keep(run, [Reading(one.kind, one.answers, (lazy, *one.tables)) for one in first])
    again = kept_readings.readings(run)
    assert not again[0].tables[0].rows.made  # type: ignore[attr-defined]
    assert again[0].tables[1:] == first[0].tables
    assert len(calls) == 1
    with pytest.raises(StopIteration):  # rows have no such table: they were read for it
        list(again[0].tables[0].rows)
    assert len(calls) == 2


def test_cells_and_estimates_come_back_as_they_were(run: Run) -> None:
    cells = [None, "a", 3, 0.1 + 0.2, float("inf"), Interval(0.1, None, None, 3, "few"), Interval(None, 1.0, 2.0, 7)]
    table = Table(
        "smoke.t", "title", [Column("a", "nats", 2, True, True)], [cells], "said", True, frozenset({(0, 1)}), "m"
    )
    made = [Reading("smoke", (Answer("q", "t", Interval(1.0, 0.5, 1.5, 9), False),), (table,))]
    kept_readings.keep(run, made)
    assert kept_readings.readings(run) == made


def test_what_could_not_be_made_is_tried_again(run: Run, tmp_path: Path) -> None:
    kept_readings.keep(run, [Reading("smoke", problems=("smoke: its tables cannot be made",))])
    kept_readings.keep(run, [])  # none of its experiments is known
    assert not entries(tmp_path)


@pytest.mark.parametrize("change", ["rows", "experiments", "sources", "packages", "damage", "shape"])
def test_another_run_program_or_entry_is_read_anew(
    run: Run, calls: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    first = kept_readings.readings(run)
    kept_readings.keep(run, first)
    (entry,) = entries(tmp_path)
    if change == "rows":
        frame = pd.read_parquet(run.path / "rows.parquet")
        frame.assign(value=frame["value"] + 1.0).to_parquet(run.path / "rows.parquet")
    elif change == "experiments":
        known = {**registry.experiments(), "another": next(iter(registry.experiments().values()))}
        monkeypatch.setattr(registry, "experiments", lambda: known)
    elif change == "damage":
        entry.write_text("[{")
    elif change == "shape":
        entry.write_text(json.dumps([{"kind": "smoke"}]))
    else:
        made_by = kept.made_by()
        other = ("numpy 0.1", *made_by[1:]) if change == "packages" else (*made_by[:-1], "other.py:1:1")
        monkeypatch.setattr(kept, "made_by", lambda: other)
    again = kept_readings.readings(load_run(run.path))
    assert len(calls) == 2
    assert (again == first) == (change != "rows")


def test_sources_are_those_of_both_packages() -> None:
    told = "\n".join(kept.made_by())
    assert kept.__file__ in told
    assert "ccmc/chain.py" in told.replace("\\", "/") or "ccmc/__init__.py" in told.replace("\\", "/")
    assert "__pycache__" not in told


def test_growing_runs_and_plugins_are_never_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kept_readings.readings(run)
    kept_readings.keep(Run(run.path, {**run.manifest, "state": "partial"}), found)
    assert not entries(tmp_path)
    monkeypatch.setattr(registry, "only_own", lambda: False)
    kept_readings.keep(run, found)
    assert not entries(tmp_path)


def test_a_cache_that_cannot_be_written_costs_time_only(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CCMC_CACHE", str(tmp_path / "file"))
    found = kept_readings.readings(run)
    kept_readings.keep(run, found)
    assert found == reading.read(run.split)


def test_figures_are_drawn_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, lost = page._kept_pictures(run, "r0")
    assert len(first) == len(run.figures()) > 0
    assert not lost
    with monkeypatch.context() as patched:
        patched.setattr(page, "inline_svg", lambda figure, name: pytest.fail("drawn again"))
        assert page._kept_pictures(load_run(run.path), "r0") == (first, [])
    drawn: list[str] = []
    monkeypatch.setattr(page, "inline_svg", lambda figure, name: drawn.append(name) or "<svg/>")  # type: ignore[func-returns-value]
    assert page._kept_pictures(run, "r1")[0] != first  # ids of its own
    trajectories = pd.read_parquet(run.path / "trajectories.parquet")
    trajectories.iloc[:-1].to_parquet(run.path / "trajectories.parquet")
    page._kept_pictures(load_run(run.path), "r0")
    assert len(drawn) == 2 * len(first)


def test_a_figure_that_fails_is_drawn_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(figure: Any, name: str) -> str:
        raise RuntimeError("no ink")

    with monkeypatch.context() as patched:
        patched.setattr(page, "inline_svg", fails)
        made, lost = page._kept_pictures(run, "r0")
    assert not made
    assert "no ink" in lost[0]
    assert not entries(tmp_path)
    assert page._kept_pictures(run, "r0")[0]


def test_the_oldest_entries_go(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 2)
    found = kept_readings.readings(run)
    for number in range(4):
        monkeypatch.setattr(kept, "made_by", lambda number=number: (str(number),))
        kept_readings.keep(run, found)
    assert len(entries(tmp_path)) == 2
    assert kept.name_of(run) in {entry.name for entry in entries(tmp_path)}
