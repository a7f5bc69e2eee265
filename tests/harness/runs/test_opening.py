"""Runs go on after damage, upgrades and full disks: what is wrong is named, and the rows end the same."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import manifest, plan, work_on

from harness.cli.app import invoke
from harness.core.errors import StorageError, UsageError
from harness.runs import identity, writing
from harness.runs.directory import RunDirectory
from harness.runs.opening import begin
from harness.runs.versions import kept_lines


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A complete run of three units."""
    return work_on(tmp_path / "run", plan())[0].path


def partial(run: Path) -> None:
    """As if the session had stopped before its end."""
    path = run / "manifest.json"
    content = json.loads(path.read_text())
    content["state"] = "partial"
    store = RunDirectory(run)
    store.write_manifest(content)
    (run / "rows.parquet").unlink()


def unit(run: Path, index: int = 1) -> Path:
    return run / "units" / plan()[index].key


def flip(path: Path, at: int = 40) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(bytes(content))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated rows": (lambda p: (p / "rows.parquet").write_bytes(b"PAR1"), "rows.parquet was changed"),
    "flipped rows": (lambda p: flip(p / "rows.parquet"), "rows.parquet was changed"),
    "truncated record": (lambda p: (p / "unit.json").write_text('{"key": '), "unit.json cannot be read"),
    "no record": (lambda p: (p / "unit.json").unlink(), "unit.json cannot be read"),
    "other settings": (
        lambda p: (p / "unit.json").write_text((p / "unit.json").read_text().replace('"x": 1', '"x": 7')),
        "unit.json is not the one that the manifest records",
    ),
    "one file more": (lambda p: (p / "more").write_text(""), "more was not made by the unit"),
}


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "partial"])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_unit_is_named_set_aside_and_computed_again(done: Path, name: str, complete: bool) -> None:
    damage, message = DAMAGE[name]
    if not complete:
        partial(done)
    damage(unit(done))
    again, notes = work_on(done, plan())
    assert any(message in note and "moved to" in note and "computed again" in note for note in notes), notes
    assert (done / "damaged" / f"{unit(done).name}-1").is_dir()
    assert (again.state, sorted(again.rows["value"])) == ("complete", [0, 1, 5])
    assert any(message in note for note in again.manifest["sessions"][-1]["notes"])
    assert work_on(done, plan())[1] == []


@pytest.mark.parametrize("content", ["", "{", "null", "flip"])
def test_a_damaged_manifest_is_named_and_made_again(done: Path, content: str) -> None:
    path = done / "manifest.json"
    if content == "flip":
        path.write_text(path.read_text().replace('"config_hash": "a"', '"config_hash": "c"'))
    else:
        path.write_text(content)
    again, notes = work_on(done, plan())
    assert "manifest.json" in notes[0]
    assert (again.state, sorted(again.rows["value"])) == ("complete", [0, 1, 5])
    assert again.manifest["sessions"][-1]["units"] == 0


def test_a_damaged_manifest_of_another_run_is_refused(done: Path) -> None:
    (done / "manifest.json").write_text("{")
    other = [one for one in plan(5) if one.settings["x"] > 2]
    with pytest.raises(UsageError, match="none of this run's units is there"):
        work_on(done, other)


def test_a_damaged_table_is_put_together_again_or_refused(done: Path) -> None:
    (done / "rows.parquet").write_bytes(b"x")
    again, notes = work_on(done, plan())
    assert notes == ["rows.parquet was changed after it was written; it is put together again"]
    assert sorted(again.rows["value"]) == [0, 1, 5]
    shutil.rmtree(done / "units")
    assert work_on(done, plan())[1] == []
    (done / "rows.parquet").write_bytes(b"x")
    with pytest.raises(UsageError, match="its units are not there"):
        work_on(done, plan())


@pytest.fixture
def upgraded(done: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first two units of a run, made by the torch of before."""
    shutil.rmtree(unit(done, 2))
    partial(done)
    versions = {**identity._versions(), "torch": "99.0"}
    monkeypatch.setattr(identity, "_versions", lambda: versions)
    return done


NEW = {"packages": {"torch": "99.0"}}


def test_units_of_other_versions_are_computed_again_and_neither_deleted_nor_counted(upgraded: Path) -> None:
    before = sorted(path.name for path in (upgraded / "units").iterdir())
    run, notes = work_on(upgraded, plan(), **NEW)
    assert notes[0].startswith("2 stored units were made with torch ")
    assert notes[0].endswith("(now 99.0) and are computed again; --keep-old-units keeps them instead")
    assert run.finished_units() == (3, 3)
    assert sorted(run.rows["value"]) == [0, 1, 5]
    assert set(before) < {path.name for path in (upgraded / "units").iterdir()}
    assert [session["packages"]["torch"] for session in run.manifest["sessions"]] == ["1.0", "99.0"]
    assert [session["units"] for session in run.manifest["sessions"]] == [3, 3]
    assert not any(unit_.get("versions") for unit_ in run.manifest["units"])


def test_units_of_other_versions_are_kept_on_request_and_recorded(upgraded: Path) -> None:
    old = sorted(path.name for path in (upgraded / "units").iterdir())
    run, notes = work_on(upgraded, plan(), keep=True, **NEW)
    assert notes[0].startswith("2 stored units were made with torch ")
    assert notes[0].endswith("kept, as --keep-old-units says")
    assert sorted(run.rows["value"]) == [0, 1, 5]
    kept = [one for one in run.manifest["units"] if "versions" in one]
    assert sorted(one["key"] for one in kept) == old
    assert all(one["versions"]["torch"] != "99.0" for one in kept)
    assert plan()[2].key not in {one["key"] for one in run.manifest["units"]}  # made of kept ones: another key
    assert work_on(upgraded, plan(), keep=True, **NEW)[0].state == "complete"
    with pytest.raises(UsageError, match="--keep-old-units"):
        work_on(upgraded, plan(), **NEW)


def test_kept_units_are_shown_with_their_versions(upgraded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = work_on(upgraded, plan(), keep=True, **NEW)
    (line,) = kept_lines(run.manifest)
    assert line.startswith("2 units were made with torch ")
    assert line.endswith(" (the run has 99.0) and kept: square 0; square 1")
    assert kept_lines(run.manifest, most=1)[0].endswith("kept: square 0; and 1 more")
    capsys.readouterr()
    for verb, code in (("show", 0), ("verify", 1)):  # the hash of this made-up config is none
        assert invoke([verb, str(upgraded)]) == code
        assert f"note: {line}" in capsys.readouterr().out.replace("\n  ", " ")
    assert invoke(["show", str(upgraded), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["notes"] == [line]


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EROFS", "EIO"])
@pytest.mark.parametrize("which", [1, 3, 5])
def test_a_full_disk_is_one_line_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, which: int
) -> None:
    """The disk fails at the n-th table: of a unit, or of the run."""
    calls = []
    number = getattr(errno, name)

    def fail(frame: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) >= which:
            path.write_bytes(b"PAR1")
            raise OSError(number, "of the system")
        frame.to_parquet(path, index=False, compression="zstd")

    for module in ("doing", "directory"):
        monkeypatch.setattr(f"harness.runs.{module}.write_parquet", fail)
    if which == 5:
        which = 4
    with pytest.raises(StorageError, match=r"start the same command again \(\d of 3 units are stored") as caught:
        work_on(tmp_path / "run", plan())
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 3
    monkeypatch.undo()
    again, notes = work_on(tmp_path / "run", plan())
    assert notes == []
    assert sorted(again.rows["value"]) == [0, 1, 5]


@pytest.mark.parametrize(
    "error",
    [
        OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        ValueError("Disk quota exceeded"),
    ],
)
def test_libraries_that_keep_no_number_are_understood(error: Exception) -> None:
    assert writing.storage_fault(error) is not None
    assert writing.storage_fault(ValueError("something else")) is None


def test_a_folder_removed_while_a_run_works_is_one_line(tmp_path: Path) -> None:
    store = RunDirectory(tmp_path / "run")
    begin(store, manifest(plan()), plan())
    with pytest.raises(StorageError, match="removed"), writing.new_folder(store.unit(plan()[0].key)) as folder:
        shutil.rmtree(store.path)
        (folder / "x").write_text("x")
    store.close()


def test_a_clock_that_is_set_back_makes_no_end_before_its_start(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial(done)
    monkeypatch.setattr(writing, "now", lambda: "2001-01-01T00:00:00+00:00")
    again, _ = work_on(done, plan())
    for session in again.manifest["sessions"]:
        assert session["finished"] >= session["started"]
    assert again.manifest["finished"] >= again.manifest["created"]


def test_files_are_synced_where_folders_and_read_only_files_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows: folders cannot be opened, and what was opened for reading cannot be synced."""
    import fcntl
    import os

    opened, synced = os.open, os.fsync

    def open_(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *more, **named)

    def sync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        synced(descriptor)

    monkeypatch.setattr("os.open", open_)
    monkeypatch.setattr("os.fsync", sync)
    monkeypatch.setattr(shutil.rmtree, "avoids_symlink_attacks", False, raising=False)
    assert work_on(tmp_path / "run", plan())[0].state == "complete"


@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP"])
def test_a_file_system_that_cannot_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(getattr(errno, name), "cannot")

    monkeypatch.setattr("os.fsync", refuse)
    assert work_on(tmp_path / "run", plan())[0].state == "complete"
