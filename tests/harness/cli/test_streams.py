"""Where output cannot be written: one line and an exit code, never a traceback; nothing raw reaches a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import write_run

ROOT = Path(__file__).resolve().parents[3]
VERBS = [["show", "results/made-up"], ["show", "results/made-up", "--format", "json"], ["--help"], ["list"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("streams")
    write_run(found / "results" / "made-up", ("talks",))
    return found


def run(command: list[str], folder: Path, redirect: str, **settings: str) -> subprocess.CompletedProcess[str]:
    shell = f'exec "$@" {redirect}'
    return subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "harness.cli", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def complaint(errors: str) -> str:
    """What the command itself says: without the warning that a made-up experiment is not installed here."""
    return "".join(line for line in errors.splitlines(keepends=True) if not line.startswith("warning: experiment"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("command", VERBS, ids=" ".join)
def test_a_full_device(command: list[str], folder: Path) -> None:
    done = run(command, folder, "> /dev/full", PYTHONIOENCODING="ascii" if command == ["--help"] else "utf-8")
    assert done.returncode == 2
    assert complaint(done.stderr).startswith("ccmc: standard output cannot be written to: No space left")
    assert complaint(done.stderr).count("\n") == 1


@pytest.mark.parametrize("command", VERBS, ids=" ".join)
def test_a_closed_output(command: list[str], folder: Path) -> None:
    done = run(command, folder, ">&-")
    assert done.returncode == 2
    assert complaint(done.stderr).startswith("ccmc: standard output cannot be written to: it is closed")
    assert complaint(done.stderr).count("\n") == 1


def test_closed_streams_that_are_not_needed(folder: Path) -> None:
    done = run(["show", "results/made-up"], folder, "<&- 2>&-")
    assert (done.returncode, done.stdout[:9]) == (0, "made-up: ")
    assert run(["show", "nothing"], folder, "2>&-").returncode == 2
    assert run(["show", "nothing"], folder, ">&- 2>&-").returncode == 2


def test_a_file_that_is_opened_next_does_not_become_the_output(folder: Path) -> None:
    done = run(["report", "results/made-up", "-o", "page.html"], folder, "<&- >&- 2>&-")
    assert done.returncode == 2  # its path cannot be printed
    assert (folder / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("settings", [{"TERM": "dumb"}, {"FORCE_COLOR": "1"}])
def test_a_pipe_gets_no_colours(settings: dict[str, str], folder: Path) -> None:
    done = run(["show", "results/made-up"], folder, "", **settings)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout  # FORCE_COLOR speaks to the progress on standard error
