"""A run that is killed at any moment, or damaged on disk, loses no finished unit and ends with the same rows.

CCMC_FAULTS=N makes each loop N kills or damages long, and kills in more ways; by default they take about a minute.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import faults
import pandas as pd
import pytest

import harness
from harness.cli.app import invoke
from harness.core.errors import HarnessError

LOOPS = int(os.environ.get("CCMC_FAULTS", "0"))
KILLS = [(1, "driver", True), (2, "worker", False), (1, "driver", False), (2, "driver", False), (2, "worker", True)]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc and sends signals")


def rows_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "rows.parquet")


@linux
@pytest.mark.parametrize(
    ("workers", "victim", "in_a_write"),
    KILLS if LOOPS else KILLS[:2],
)
def test_kills_at_random_moments(finished: Any, tmp_path: Path, workers: int, victim: str, in_a_write: bool) -> None:
    run, folder = finished
    out = tmp_path / "run"
    arguments = ["run", "small.yaml", "--out", str(out), "--workers", str(workers)]
    random_moments = random.Random(f"{workers} {victim} {in_a_write}")
    wanted, met = LOOPS or 1, Counter[str]()
    before: dict[str, dict[str, str]] = {}
    while met["driver"] + met["worker"] < wanted:
        process = faults.start(arguments, folder)
        moment = None if in_a_write and met["nothing"] == 0 else random_moments.uniform(2.0, 25.0)
        killed = faults.kill_once(process, out, moment, victim)
        met[killed.victim] += 1
        assert not killed.left, f"processes of a killed run are alive: {killed}"
        after = faults.stored(out)
        assert before.items() <= after.items(), "a finished unit was lost or changed"
        before = after
        if killed.victim == "driver":
            assert killed.code == -9
        else:  # a lost worker costs its unit at most
            assert killed.code in {0, 3}, killed
        if killed.code == 0:  # the run is complete: start over
            assert rows_of(out).equals(run.rows)
            assert invoke(["verify", str(out)]) == 0
            shutil.rmtree(out)
            before, met["nothing"] = {}, 0
    last = subprocess.run([*faults.COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert last.returncode == 0, last.stderr
    assert before.items() <= faults.stored(out).items()
    assert rows_of(out).equals(run.rows)
    assert invoke(["verify", str(out)]) == 0
    assert not list(out.glob("units/.*/")), "leftovers of killed processes"


def damage(file: Path, how: str, dice: random.Random) -> None:
    """Break one file: cut it, change one bit, empty it, or take it away."""
    data = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
        return
    if how == "cut":
        data = data[: dice.randrange(len(data))]
    elif how == "empty":
        data = bytearray()
    else:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    file.chmod(0o644)
    file.write_bytes(bytes(data))


def test_damaged_files_are_named(finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file of a complete run, damaged one at a time: `verify` names it, no verb crashes."""
    dice = random.Random(3)
    whole = finished[0].path
    names = sorted(str(file.relative_to(whole)) for file in whole.rglob("*") if counted(file, whole))
    for number in range(LOOPS or 8):
        out = tmp_path / f"run-{number}"
        shutil.copytree(whole, out)
        name, how = dice.choice(names), dice.choice(["cut", "bit", "empty", "gone"])
        damage(out / name, how, dice)
        capsys.readouterr()
        code = invoke(["verify", str(out)])
        said = capsys.readouterr()
        text = said.out + said.err
        assert code in {1, 2}, f"{how} {name}: {text}"
        unit = name.split("/")[1] if name.startswith("units/") else Path(name).name
        assert unit in text or Path(name).name in text, f"{how} {name}: {text}"
        assert "Traceback" not in text
        for verb in (["show", str(out)], ["ls", str(tmp_path)], ["table", str(out)]):
            assert invoke(verb) in {0, 2}, f"{verb} after {how} {name}"
            assert "Traceback" not in capsys.readouterr().err
        shutil.rmtree(out)


def counted(file: Path, run: Path) -> bool:
    """Is a file part of what a run promises? Figures are drawn again from the rows, locks are not."""
    parts = file.relative_to(run).parts
    return file.is_file() and "plots" not in parts and not any(part.startswith(".") for part in parts)


def test_a_resumed_run_computes_damaged_units_again(finished: Any, tmp_path: Path) -> None:
    """Units of a run that is not complete, damaged: the next start names them, computes them, and ends the same."""
    dice = random.Random(5)
    run, folder = finished
    for number in range(max(1, LOOPS // 5)):
        out = tmp_path / f"run-{number}"
        shutil.copytree(run.path, out)
        for name in ("rows.parquet", "trajectories.parquet"):
            (out / name).unlink()
        manifest = out / "manifest.json"
        manifest.write_text(manifest.read_text(encoding="utf-8").replace('"complete"', '"partial"'), encoding="utf-8")
        files = sorted(file for file in out.glob("units/*/*") if file.is_file())
        for file in dice.sample(files, 2):
            damage(file, dice.choice(["cut", "bit", "empty", "gone"]), dice)
        done = harness.run(folder / "small.yaml", out=out)
        assert done.state == "complete"
        assert rows_of(out).equals(run.rows)
        assert invoke(["verify", str(out)]) == 0
        shutil.rmtree(out)


def test_a_damaged_manifest_is_named_and_made_again(finished: Any, tmp_path: Path) -> None:
    dice = random.Random(7)
    run, folder = finished
    for number in range(LOOPS or 2):
        out = tmp_path / f"run-{number}"
        shutil.copytree(run.path, out)
        damage(out / "manifest.json", dice.choice(["cut", "empty"]), dice)
        with pytest.raises(HarnessError, match=r"manifest\.json") as caught:
            harness.load_run(out)
        assert "\n" not in str(caught.value)
        done = harness.run(folder / "small.yaml", out=out)
        assert any("manifest.json" in note for note in done.manifest["sessions"][-1]["notes"])
        assert rows_of(out).equals(run.rows)
        assert faults.stored(out) == faults.stored(run.path)
        shutil.rmtree(out)
