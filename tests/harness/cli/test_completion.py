"""Completion in shells: configs, runs and metrics, and what a pipe that is closed ends with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.completion import complete_config, complete_metric, complete_run

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = str(ROOT / "results" / "reference" / "quickstart")


def completed(words: str, folder: Path = ROOT) -> list[str]:
    """What bash is offered for the last of some words."""
    typed = words.split(" ")
    environment = {
        **os.environ,
        "_CCMC_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(typed) - 1),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "harness.cli"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_a_shell_is_offered_verbs_configs_runs_and_metrics() -> None:
    assert {"gate", "leaderboard"} <= set(completed("ccmc "))
    assert completed("ccmc run paper/cov") == ["paper/coverage"]
    assert completed("ccmc gate results/reference/sm") == ["results/reference/smoke"]
    assert "winner_jaccard" in completed("ccmc table x --metric winner_")


def test_runs_anywhere_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep" / "mine").mkdir(parents=True)
    (tmp_path / "deep" / "mine" / "manifest.json").write_text("{}")
    (tmp_path / "deep" / "more").mkdir()
    (tmp_path / "my.yaml").write_text("name: x")
    assert complete_run("") == []
    assert complete_run("de") == ["deep/"]
    assert complete_run("deep/m") == ["deep/mine", "deep/more/"]
    assert complete_run(f"{tmp_path}/deep/mi") == [f"{tmp_path}/deep/mine"]
    assert complete_config("my") == ["my.yaml"]
    assert "quickstart" in complete_config("")
    assert {name for name, _ in complete_metric("kl")} == {
        "kl",
        "kl_alone",
        "kl_position",
        "kl_weights",
        "kl_with_escape",
        "kl_with_sink",
    }


@pytest.mark.parametrize("more", [[], ["--format", "csv"]])
def test_a_closed_pipe_is_no_failed_gate(more: list[str]) -> None:
    command = [sys.executable, "-m", "harness.cli", "table", REFERENCE, *more]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(command, cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")
