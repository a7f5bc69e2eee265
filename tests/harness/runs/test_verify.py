"""Verification: every way in which a run can differ from what was written is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from datasets import load_dataset

from harness.cli.app import invoke
from harness.core.rows import Rows
from harness.runs.run import Run
from harness.runs.verify import schema_problems, verify

ROOT = Path(__file__).resolve().parents[3]
REFERENCES = sorted(path.parent for path in (ROOT / "results" / "reference").glob("*/manifest.json"))


@pytest.fixture
def copied(finished: tuple[Run, Path], tmp_path: Path) -> Path:
    """A copy of the complete small run, to be damaged."""
    return Path(shutil.copytree(finished[0].path, tmp_path / "copy"))


def first_unit(path: Path) -> Path:
    key = json.loads((path / "manifest.json").read_text())["units"][0]["key"]
    return path / "units" / str(key)


def edit(file: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_run_as_it_was_written(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verify(copied)
    assert found.problems == ()
    assert found.units == len(list((copied / "units").glob("[!.]*/")))
    assert found.rows == len(pd.read_parquet(copied / "rows.parquet"))
    assert found.files > 2 * found.units
    assert invoke(["verify", str(copied)]) == 0
    assert ": verified: " in capsys.readouterr().out


def test_a_run_without_its_units_is_checked_by_its_tables(copied: Path) -> None:
    shutil.rmtree(copied / "units")
    found = verify(copied)
    assert found.problems == ()
    assert (found.files, found.units) == (2, 0)
    with (copied / "rows.parquet").open("r+b") as file:
        file.seek(200)
        file.write(b"x")
    assert "rows.parquet was changed after it was written" in verify(copied).problems


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.name)
def test_the_reference_runs_are_as_they_were_written(path: Path) -> None:
    assert verify(path).problems == ()


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda p: shutil.rmtree(first_unit(p)), "one-layer model, repetition 1 of 2): missing"),
    (lambda p: (first_unit(p) / "loss.csv").write_text("step,loss\n"), "loss.csv was changed after it was written"),
    (lambda p: (first_unit(p) / "loss.csv").unlink(), "loss.csv is missing"),
    (lambda p: (first_unit(p) / "more.csv").write_text("x"), "more.csv was not made by the unit"),
    (lambda p: (first_unit(p) / "unit.json").write_text("{"), "unit.json cannot be read"),
    (lambda p: (first_unit(p) / "unit.json").write_text("{}"), "no hashes recorded"),
    (lambda p: edit(first_unit(p) / "unit.json", lambda d: d.update(seconds=0)), "not the one that the manifest"),
    (lambda p: edit(first_unit(p) / "unit.json", lambda d: d.update(settings={})), "its settings belong to unit"),
    (lambda p: (p / "units" / "0123").mkdir(), "units/0123: not a unit of this run"),
    (lambda p: (p / "rows.parquet").unlink(), "rows.parquet is missing"),
    (lambda p: (p / "rows.parquet").write_bytes(b"PAR1"), "rows.parquet cannot be read"),
    (lambda p: edit(p / "manifest.json", lambda d: d.update(state="partial")), "the run is partial, not complete"),
    (lambda p: edit(p / "manifest.json", lambda d: d.pop("tables")), "no hashes of the assembled tables"),
    (lambda p: edit(p / "manifest.json", lambda d: d["config"].update(held_out=0.5)), "config_hash is"),  # type: ignore[attr-defined,index]
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_damage_is_told(
    damage: Callable[[Path], object], message: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(copied)
    problems = verify(copied).problems
    assert any(message in problem for problem in problems), problems
    assert invoke(["verify", str(copied)]) == 1
    out = capsys.readouterr().out
    assert message in out
    assert "problem" in out.splitlines()[-1]


def test_rows_outside_the_schema_are_told() -> None:
    rows = Rows(experiment="heads")
    rows.add("kl", 0.5)
    rows.add("kl", None, missing="no text")
    good = rows.frame()
    assert schema_problems(good) == []
    assert "columns missing ['verdict']" in schema_problems(good.drop(columns="verdict"))[0]
    assert "must have either a value or a reason" in schema_problems(good.assign(missing=pd.NA))[0]
    assert "column 'layer' is" in schema_problems(good.assign(layer="x"))[0]
    infinite = good.assign(low=pd.Series([float("inf"), None], dtype="Float64"))
    assert schema_problems(infinite) == ["rows: row 0 has low inf"]


def test_rows_are_read_in_one_line_each() -> None:
    path = str(ROOT / "results" / "reference" / "quickstart" / "rows.parquet")
    frame = pd.read_parquet(path)
    count = duckdb.sql(f"select count(*) from '{path}' where metric = 'kl'").fetchall()[0][0]
    dataset = load_dataset("parquet", data_files=path, split="train")
    assert count == (frame["metric"] == "kl").sum() > 0
    assert dataset.num_rows == len(frame)
    assert dataset.column_names == list(frame.columns)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "rows.parquet").write_bytes(b"PAR1"), "rows.parquet cannot be read: "),
        (lambda p: [shutil.rmtree(p / "units"), (p / "rows.parquet").unlink()], "rows.parquet is missing, and so are"),
        (
            lambda p: pd.read_parquet(p / "rows.parquet").drop(columns="surrogate").to_parquet(p / "rows.parquet"),
            "the rows are damaged: columns are missing: surrogate (see: ccmc verify",
        ),
        (lambda p: edit(p / "manifest.json", lambda d: d.pop("git")), "not the manifest of a run: without git"),
    ],
    ids=["not Parquet", "no rows", "a column less", "manifest"],
)
@pytest.mark.parametrize("verb", ["show", "table", "report", "gate"])
def test_a_damaged_run_is_one_line_everywhere(
    verb: str, damage: Callable[[Path], object], message: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(copied)
    more = {"gate": ["--baseline", str(copied)], "report": ["-o", str(copied / "report.html")]}.get(verb, [])
    assert invoke([verb, str(copied), *more]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
