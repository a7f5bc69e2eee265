"""Result folders that are wrong in any way are one line: manifests and tables with other types, keys and columns.

CCMC_FUZZ=N tries N of each kind; by default some dozens.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mutations import changed

from harness.cli.app import invoke

CASES = int(os.environ.get("CCMC_FUZZ", "40"))
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**30, 1.5, float("nan"), "", "x", "\ud83d", "../../x", "a\nb", "\x1b[31m", [], [None],
    [[]], {}, {"a": None}, {"key": 1}, ["x"] * 3,
)  # fmt: skip
VERBS = ("show", "table", "verify", "leaderboard", "plot")


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed run without its figures."""
    source = Path(__file__).resolve().parents[2] / "results" / "reference" / "paper" / "equivalence"
    target = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("plots", "report.html"))
    return target


def check(arguments: list[str], about: object, capsys: pytest.CaptureFixture[str]) -> int:
    """Run a command: it ends well, or with one line."""
    capsys.readouterr()
    code = invoke(arguments)
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("ccmc: ")]
    assert code in {0, 1, 2}, f"{arguments}: exit {code} after {about}: {said[-2000:]}"
    assert "Traceback" not in said
    assert code != 2 or len(errors) == 1, f"{arguments} after {about}: {said}"
    return code


def files_outside(folder: Path) -> set[str]:
    return {str(file) for file in folder.parent.rglob("*") if folder not in file.parents}


def test_manifests_of_other_shapes(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads((small_run / "manifest.json").read_text(encoding="utf-8"))
    folder = tmp_path / "runs" / "run"
    shutil.copytree(small_run, folder)
    good = tmp_path / "runs" / "good"
    shutil.copytree(small_run, good)
    for case in range(CASES):
        dice = random.Random(case)
        made = changed(whole, dice, ODD)
        if dice.random() < 0.3:
            made = changed(made, dice, ODD)
        (folder / "manifest.json").write_text(json.dumps(made), encoding="utf-8")
        before = files_outside(folder)
        check([dice.choice(VERBS), str(folder)], case, capsys)
        for verb in (["compare", str(good), str(folder)], ["gate", str(folder), "--baseline", str(good)]):
            check(verb, case, capsys)
        assert check(["ls", str(tmp_path / "runs")], case, capsys) == 0
        assert files_outside(folder) == before
        shutil.rmtree(folder / "plots", ignore_errors=True)


def test_manifests_that_are_no_json(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    whole = (folder / "manifest.json").read_bytes()
    deep = b"[" * 100_000 + b"]" * 100_000
    cases = [b"", b"null", b"[]", b"{}", b'"x"', b"\xff\xfe", b"\x00" * 100, deep, whole[: len(whole) // 2], b"1e999"]
    for case, data in enumerate(cases):
        (folder / "manifest.json").write_bytes(data)
        for verb in (*VERBS, "report"):
            assert check([verb, str(folder)], case, capsys) == 2
        assert check(["ls", str(tmp_path)], case, capsys) == 0


def other_table(rows: pd.DataFrame, dice: random.Random) -> pd.DataFrame:
    """The rows with one column dropped, retyped, doubled in meaning, or filled with odd values."""
    made = rows.copy()
    column = dice.choice(list(made.columns))
    how = dice.randrange(6)
    if how == 0:
        return made.drop(columns=column)
    if how == 1:
        return made.assign(extra=1)
    if how == 2:
        return made.iloc[:0]
    if how == 3:
        return made.assign(**{column: made[column].astype("string")})
    if how == 4:
        return made.assign(**{column: dice.choice([1, 0.5, "x", "{", "[]", "\x1b[31m", None, True, float("inf")])})
    return pd.concat([made, made.sample(3, random_state=dice.randrange(1000))], ignore_index=True)


def test_tables_of_another_schema(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    rows = pd.read_parquet(small_run / "rows.parquet")
    for case in range(CASES):
        dice = random.Random(case)
        other_table(rows, dice).to_parquet(folder / "rows.parquet", index=False)
        check([dice.choice(VERBS), str(folder)], case, capsys)
        check(["gate", str(folder), "--baseline", str(small_run)], case, capsys)
        check(["compare", str(small_run), str(folder)], case, capsys)
        shutil.rmtree(folder / "plots", ignore_errors=True)


def test_tables_that_are_no_parquet(small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    whole = (folder / "rows.parquet").read_bytes()
    for case in range(CASES):
        dice = random.Random(case)
        data = bytearray(whole)
        if dice.random() < 0.3:
            data = data[: dice.randrange(len(data))]
        else:
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        (folder / "rows.parquet").write_bytes(bytes(data))
        check([dice.choice(["show", "table", "plot"]), str(folder)], case, capsys)
        assert check(["verify", str(folder)], case, capsys) in {1, 2}
        shutil.rmtree(folder / "plots", ignore_errors=True)
