"""The commit of a run is that of this package's own checkout, or none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.runs.provenance import git_state

NONE = {"commit": None, "dirty": None}


def repository(folder: Path, package: Path) -> str:
    """A repository, and a package below it; the commit."""
    (package / "harness" / "runs").mkdir(parents=True)
    for name in ("harness/__init__.py", "harness/runs/provenance.py"):
        (package / name).write_text("")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "x", "--allow-empty"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def test_its_own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = repository(tmp_path, tmp_path)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "notes.txt").write_text("")  # not ours
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "harness" / "new.py").write_text("")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}


def test_installed_inside_the_repository_of_somebody(tmp_path: Path) -> None:
    site = tmp_path / "venv" / "lib" / "site-packages"
    repository(tmp_path, site)
    assert git_state(site) == NONE
    (tmp_path / "outside" / "harness").mkdir(parents=True)
    assert git_state(tmp_path / "outside") == NONE
