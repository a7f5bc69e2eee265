"""Run directories: whole files, honest refusals."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from stores import manifest, plan, work_on

from harness.cli.app import invoke
from harness.core.errors import UsageError
from harness.core.rows import COLUMNS, Rows
from harness.runs.directory import RunDirectory, find_runs
from harness.runs.opening import begin
from harness.runs.writing import new_folder, write_atomic


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "units" / "a") as folder:
        (folder / "x").write_text("x")
        raise KeyboardInterrupt
    assert list((tmp_path / "units").iterdir()) == []
    with new_folder(tmp_path / "units" / "a") as folder:
        (folder / "x").write_text("x")
        assert not (tmp_path / "units" / "a").exists()
    assert (tmp_path / "units" / "a" / "x").read_text() == "x"
    assert (tmp_path / "units" / "a" / "x").stat().st_mode & 0o777 == 0o644


def test_the_second_of_two_that_did_the_same_gives_way(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a") as slow:
        with new_folder(tmp_path / "a") as fast:
            (fast / "x").write_text("fast")
        (slow / "x").write_text("slow")
    assert (tmp_path / "a" / "x").read_text() == "fast"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_atomic_write_keeps_the_old_file_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_places_where_no_run_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for place, message in [("file", "is a file"), ("file/below", "is a file"), ("full", "holds other things")]:
        with pytest.raises(UsageError, match=message):
            RunDirectory(tmp_path / place).check_usable()
    RunDirectory(tmp_path / "new" / "deep").check_usable()
    assert not (tmp_path / "new").exists()


def test_odd_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("empty").mkdir()
    for name, target in [("nowhere", "gone"), ("round", "round"), ("to-file", "file"), ("to-folder", "empty")]:
        Path(name).symlink_to(target)
    os.mkfifo("pipe")
    refused = {
        "nowhere": "--out nowhere: nowhere is a link that leads nowhere; choose another folder",
        "nowhere/below": "nowhere is a link that leads nowhere",
        "round/below": "round is a link that leads nowhere",
        "to-file": "to-file is a file",
        "to-file/below": "to-file is a file",
        "pipe/below": "pipe is a file",
        "/dev/null": "/dev/null is a file",
        "..": "holds other things",
        "no-text-\udcff": "its name is no text in UTF-8",
        "null-\0": "no folder has this sign in its name",
        "y" * 300: "cannot be a folder: File name too long",
        "y/" * 5000: "cannot be a folder: File name too long",
    }
    for place, message in refused.items():
        with pytest.raises(UsageError) as caught:
            RunDirectory(Path(place)).check_usable()
        assert message in str(caught.value)
        assert len(str(caught.value)) < 400
    for place in ("empty", "to-folder", "to-folder/new", "empty/../new", "a\nb", " ", "-x", "ü/ß", "c\x1b[31m"):
        RunDirectory(Path(place)).check_usable()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "empty", "file", "nowhere", "pipe", "round", "to-file", "to-folder",
    ]  # fmt: skip


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    for place in ("closed", "closed/below/it"):
        with pytest.raises(UsageError, match="closed cannot be written to; choose another folder"):
            RunDirectory(tmp_path / place).check_usable()


def test_a_run_in_a_folder_of_an_odd_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made under a common name and moved: no verb crashes, and no control sign is printed."""
    for name in ("a\nb", "c\x1b[31m", "no-text-\udcff"):
        run = tmp_path / name
        work_on(tmp_path / "run", plan(1))[0].path.rename(run)
        for verb in ("show", "verify", "report"):
            assert invoke([verb, str(run)]) in {0, 1, 2}  # Parquet takes no name that is no text
        assert invoke(["ls", str(tmp_path)]) == 0
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert not set(said.out) & {"\x1b", "\udcff"}
        shutil.rmtree(run)


def test_another_config_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    units = plan()
    work_on(tmp_path / "run", units)
    with pytest.raises(UsageError, match="its config differs in seed"):
        work_on(tmp_path / "run", units, config_hash="b", config={"seed": 1, "limit": None, "experiments": []})


def test_a_run_begun_keeps_when_it_was_made(tmp_path: Path) -> None:
    store = RunDirectory(tmp_path / "run")
    begin(store, manifest(plan()), plan())
    store.close()
    again, _ = begin(store, manifest(plan(), created="2026-02-02T00:00:00+00:00"), plan())
    store.close()
    assert again["created"] == "2026-01-01T00:00:00+00:00"


def test_a_complete_run_of_other_source_code_is_refused(tmp_path: Path) -> None:
    work_on(tmp_path / "run", plan(2))
    assert work_on(tmp_path / "run", plan(2))[0].state == "complete"
    with pytest.raises(UsageError, match="made by other source code"):
        work_on(tmp_path / "run", plan(3))


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"schema_version": 99})])
def test_manifests_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match=r"manifest\.json"):
        RunDirectory(tmp_path).read_manifest()


def test_runs_are_found_two_levels_down(tmp_path: Path) -> None:
    for place in ("a", "reference/b", "too/deep/for/it"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "manifest.json").write_text("{}")
    assert find_runs(tmp_path) == [tmp_path / "a", tmp_path / "reference" / "b"]


def test_rows_keep_the_schema() -> None:
    rows = Rows(experiment="heads", condition={"b": 1, "a": 2})
    rows.add("kl", 0.5, layer=3)
    rows.add("kl", None, missing="no text")
    frame = rows.frame()
    assert list(frame.columns) == list(COLUMNS)
    assert frame["condition"].tolist() == ['{"a": 2, "b": 1}'] * 2
    assert frame["layer"].isna().tolist() == [False, True]
    assert pd.isna(frame["value"].iloc[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": float("nan")}, "value is nan"),
        ({"value": 1.0, "high": float("inf")}, "high is inf"),
        ({"value": None}, "exactly one of value and reason"),
        ({"value": 1.0, "missing": "why"}, "exactly one of value and reason"),
        ({"value": 1.0, "colour": "red"}, "unknown columns"),
    ],
)
def test_rows_that_would_be_dishonest(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rows(experiment="heads").add("kl", **arguments)
