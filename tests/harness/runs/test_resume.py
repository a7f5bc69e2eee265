"""A run that is not complete says what it lacks and how to go on; shells complete names of runs and metrics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.cli.app import invoke
from harness.cli.results import complete_metric, complete_run
from harness.runs.resume import missing_lines, missing_units, resume_command
from harness.runs.run import Run, load_run


def partial(base: Run, folder: Path, lost: list[int], **manifest: Any) -> Run:
    """A copy of a run that lacks some units."""
    shutil.copytree(base.path, folder)
    content = json.loads((folder / "manifest.json").read_text())
    for index in lost:
        shutil.rmtree(folder / "units" / content["units"][index]["key"])
    for name in ("rows.parquet", "trajectories.parquet"):
        (folder / name).unlink()
    (folder / "manifest.json").write_text(json.dumps({**content, "state": "partial", **manifest}))
    return load_run(folder)


def test_missing_units_are_told_by_label(finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    units = finished[0].manifest["units"]
    failures = [{"key": units[1]["key"], "error": "no memory"}]
    run = partial(finished[0], tmp_path / "part", [1, 4], failures=failures)
    assert missing_units(run) == [units[1]["label"], units[4]["label"]]
    assert invoke(["show", str(run.path)]) == 0
    out = capsys.readouterr().out
    assert f"not complete: 2 of {len(units)} units are missing" in out
    assert f"{units[1]['label']}: failed: no memory" in " ".join(out.split())
    assert f"  {units[4]['label']}\n" in out
    assert f"\n  ccmc run CONFIG.yaml --out {run.path}\n" in out
    assert "its config is in manifest.json" in " ".join(out.split())


def test_a_complete_run_lacks_nothing(finished: Any) -> None:
    assert missing_lines(finished[0]) == []


def test_a_shipped_config_is_named_with_its_limit(finished: Any, tmp_path: Path) -> None:
    config = {**finished[0].manifest["config"], "limit": 2}
    run = partial(finished[0], tmp_path / "a part", [0], name="quickstart", config=config)
    assert resume_command(run) == f"ccmc run quickstart --limit 2 --out '{run.path}'"


def test_many_missing_units_are_counted(finished: Any, tmp_path: Path) -> None:
    units = [{"key": f"{index:020}", "label": f"unit {index}"} for index in range(30)]
    run = partial(finished[0], tmp_path / "part", [], units=units)
    assert "  and 20 more" in missing_lines(run)


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "reference/two"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "manifest.json").write_text("{}")
    assert complete_run("") == ["results/one", "results/reference/two"]
    assert complete_run("results/re") == ["results/reference/", "results/reference/two"]
    completed = dict(complete_metric("winner_"))
    assert {"winner_jaccard", "winner_precision", "winner_recall", "winner_size"} <= set(completed)
    assert all(name.startswith("winner_") and about for name, about in completed.items())
