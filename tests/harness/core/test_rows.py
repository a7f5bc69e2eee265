"""The columns `fold` and `group`: written where they are known, missing in rows of older runs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from harness.core.rows import COLUMNS, LATER, Rows, completed, type_problems
from harness.runs.directory import RunDirectory
from harness.runs.run import load_run
from harness.runs.verify import schema_problems, verify
from harness.runs.writing import read_parquet, write_parquet

REFERENCE = Path(__file__).resolve().parents[3] / "results" / "reference"


def rows() -> pd.DataFrame:
    made = Rows(experiment="e", model="m", split="held_out")
    made.add("kl", 0.5, prompt="a", fold=3, group="g")
    made.add("kl", 0.25, prompt="b", fold=0)
    return made.frame()


def test_rows_say_in_which_fold_and_of_which_group(tmp_path: Path) -> None:
    write_parquet(rows(), tmp_path / "rows.parquet")
    found = read_parquet(tmp_path / "rows.parquet")
    assert found["fold"].tolist() == [3, 0]
    assert found["group"][0] == "g"
    assert found["group"].isna().tolist() == [False, True]
    assert (found.dtypes["fold"].kind, found.dtypes["group"].kind) == ("i", "O")
    assert type_problems(found) == schema_problems(found) == []


def test_columns_of_another_type_are_found() -> None:
    assert "column 'fold' holds" in type_problems(rows().assign(fold="x"))[0]
    assert "column 'group' holds" in type_problems(rows().assign(group=1.5))[0]


@pytest.mark.parametrize("lacking", [sorted(LATER), ["fold"], ["group"]])
def test_rows_of_older_runs_get_the_columns_that_they_lack(lacking: list[str]) -> None:
    old = rows().drop(columns=lacking)
    assert type_problems(old) == []
    found = completed(old)
    assert list(found.columns) == list(COLUMNS)
    assert schema_problems(found) == []
    assert found[lacking].isna().all().all()
    pd.testing.assert_frame_equal(found[old.columns], old)


def test_other_columns_are_not_made_up() -> None:
    old = rows().drop(columns=["fold", "split"])
    assert "split" not in completed(old)
    assert type_problems(old) == ["columns are missing: split"]


def test_what_is_complete_stays_as_it_is() -> None:
    whole = rows()
    assert completed(whole) is whole
    swapped = whole[["fold", *(name for name in COLUMNS if name != "fold")]]
    assert list(completed(swapped).columns) == list(swapped.columns)


def test_a_reference_run_is_read_and_verified() -> None:
    path = REFERENCE / "smoke"
    found = load_run(path).rows
    stored = read_parquet(path / "rows.parquet")
    assert list(found.columns) == list(COLUMNS)
    pd.testing.assert_frame_equal(found[stored.columns], stored)
    assert found[sorted(LATER - set(stored.columns))].isna().all().all()
    assert verify(path).problems == ()
    assert list(RunDirectory(path).read("trajectories").columns)
