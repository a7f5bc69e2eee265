"""The commit of a run is that of this package's own checkout, or none."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness.runs.provenance import git_state, installed

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


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (None, {"from": "index"}),
        ({"url": "file:///some/folder/x", "dir_info": {"editable": True}}, {"from": "editable folder"}),
        ({"url": "file:///some/folder/x", "dir_info": {}}, {"from": "folder"}),
        (
            {"url": "file:///some/folder/made%20up-1-py3-none-any.whl", "archive_info": {"hashes": {"sha256": "ab"}}},
            {"from": "archive", "file": "made up-1-py3-none-any.whl", "hashes": {"sha256": "ab"}},
        ),
        (
            {"url": "https://example.org/x.whl", "archive_info": {"hash": "sha256=ab"}},
            {"from": "archive", "file": "x.whl", "hashes": {"sha256": "ab"}},
        ),
        (
            {"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "c0"}},
            {"from": "repository", "url": "https://example.org/x.git", "commit": "c0"},
        ),
    ],
)
def test_how_it_was_installed(
    record: dict[str, object] | None, wanted: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made_up-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1\n", encoding="utf-8")
    if record is not None:
        (folder / "direct_url.json").write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed("made-up") == wanted
    assert installed("no-such-package-here") == {"from": "nowhere"}
