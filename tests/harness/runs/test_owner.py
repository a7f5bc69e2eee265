"""One process at a time works on a run, with locks or without; what dead processes leave is taken over."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stores import manifest, plan, python, work_on

from harness.core.errors import StorageError, UsageError
from harness.runs import owner, writer
from harness.runs.directory import RunDirectory
from harness.runs.opening import begin

HOLD = """
import sys
from pathlib import Path
from stores import manifest, plan
from harness.runs.directory import RunDirectory
from harness.runs.opening import begin
from harness.runs.writing import new_folder
store = RunDirectory(Path(sys.argv[1]))
begin(store, manifest(plan()), plan())
with new_folder(store.unit(plan()[0].key)) as folder:
    (folder / "half").write_text("half")
    print("holding", flush=True)
    sys.stdin.read()
    (folder / "rows.parquet").write_text("")
store.close()
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners are watched for a moment only."""
    monkeypatch.setattr(owner, "WATCH", 0.6)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Any]:
    """A process that holds a run and is in the middle of a unit."""
    started = python(HOLD, str(tmp_path / "run"), wait=False)
    assert started.stdout is not None
    assert started.stdout.readline() == "holding\n", started.communicate()[1]
    yield started
    if started.poll() is None:
        started.kill()
        started.communicate()
    for stream in (started.stdin, started.stdout, started.stderr):
        stream.close()


def temporary(run: Path) -> list[Path]:
    return [path for path in (run / "units").iterdir() if path.name.startswith(".")]


def open_run(run: Path) -> RunDirectory:
    store = RunDirectory(run)
    begin(store, manifest(plan()), plan())
    return store


def without_locks(monkeypatch: pytest.MonkeyPatch, fault: int | None) -> None:
    """Locks of files have no effect, or fail."""
    import fcntl

    def lock(*_: Any) -> None:
        if fault is not None:
            raise OSError(fault, os.strerror(fault))

    for name in ("flock", "lockf", "fcntl"):
        monkeypatch.setattr(fcntl, name, lock)


@pytest.mark.parametrize("fault", [None, 37, 95], ids=["no effect", "ENOLCK", "EOPNOTSUPP"])
def test_a_second_run_is_refused_and_harms_nothing(
    other: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int | None
) -> None:
    without_locks(monkeypatch, fault)
    run = tmp_path / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="another process is working on this run") as caught:
        open_run(run)
    assert f"process {other.pid} on {socket.gethostname()}" in str(caught.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert len(temporary(run)) == 1
    other.communicate(timeout=60)
    assert other.returncode == 0
    assert (run / "units" / plan()[0].key / "half").is_file()  # the live folder was left alone
    assert not (run / owner.OWNER).exists()


def test_two_of_one_process_do_not_share_a_run(tmp_path: Path) -> None:
    first = open_run(tmp_path / "run")
    with pytest.raises(UsageError, match="another process is working on this run"):
        open_run(tmp_path / "run")
    first.close()
    open_run(tmp_path / "run").close()


def test_a_killed_owner_is_followed_and_what_it_left_is_removed(other: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / ".manifest.json.half").write_text("")  # of somebody else
    (run / "units" / ".somebody").mkdir()
    other.send_signal(signal.SIGKILL)
    time.sleep(0.2)  # dead, and not collected by its parent: a zombie
    store = open_run(run)
    assert store.notes == [f"process {other.pid} on {writer.host()} ended without closing this run; taken over from it"]
    assert [path.name for path in temporary(run)] == [".somebody"]
    store.close()


def as_if(run: Path, **changes: Any) -> Path:
    """An owner file of some other process."""
    run.mkdir(exist_ok=True)
    (run / "units").mkdir(exist_ok=True)
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"tag": writer.tag(), "nonce": "x", "host": "node7", "pid": 1, "seen": stamp, "since": stamp, "beat": 3}
    path = run / owner.OWNER
    path.write_text(json.dumps({**record, **changes}))
    return path


def parts(**changes: str) -> str:
    """This process's tag with some parts changed."""
    host, boot, pid, start = writer.tag().split("-")
    return "-".join({"host": host, "boot": boot, "pid": pid, "start": start, **changes}.values())


@pytest.mark.parametrize(
    "changes",
    [{"start": "1"}, {"boot": "0" * 6}, {"pid": "4194305"}],
    ids=["another process has the number now", "the machine was started again", "no such process"],
)
def test_an_owner_that_is_dead_by_its_tag(tmp_path: Path, changes: dict[str, str]) -> None:
    as_if(tmp_path / "run", tag=parts(**changes))
    store = open_run(tmp_path / "run")
    assert "ended without closing this run" in store.notes[0]
    store.close()


def ago(**time_: int) -> str:
    return (datetime.now(UTC) - timedelta(**time_)).isoformat(timespec="seconds")


def test_an_owner_on_another_host_is_respected_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    path = as_if(tmp_path / "run", tag=parts(host="0" * 8), seen=ago(minutes=2))
    with pytest.raises(UsageError, match=r"process 1 on node7.* wait for it, or remove .*owner\.json if that process"):
        open_run(tmp_path / "run")
    path.unlink()
    open_run(tmp_path / "run").close()


@pytest.mark.parametrize("seen", [ago(days=2), ago(days=-2)], ids=["old", "of tomorrow: a clock is wrong"])
def test_a_silent_owner_on_another_host_is_watched_and_then_followed(tmp_path: Path, seen: str) -> None:
    as_if(tmp_path / "run", tag=parts(host="0" * 8), seen=seen)
    store = open_run(tmp_path / "run")
    assert "has given no sign of life since" in store.notes[0]
    store.close()


def test_an_owner_whose_clock_is_wrong_is_seen_to_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_if(tmp_path / "run", tag=parts(host="0" * 8), seen=ago(days=2))
    sleep = time.sleep

    def beats(seconds: float) -> None:
        sleep(seconds)
        as_if(tmp_path / "run", tag=parts(host="0" * 8), seen=ago(days=2), beat=4)

    monkeypatch.setattr("harness.runs.owner.time.sleep", beats)
    with pytest.raises(UsageError, match="another process is working on this run"):
        open_run(tmp_path / "run")
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[]", b'{"tag": 3}', b'{"nonce": "x"}', b"[" * 100_000])
def test_an_owner_file_that_cannot_be_read_is_not_for_ever(tmp_path: Path, content: bytes) -> None:
    as_if(tmp_path / "run").write_bytes(content)
    store = open_run(tmp_path / "run")
    assert "owner.json could not be read" in store.notes[0]
    store.close()


def test_the_lock_file_of_earlier_versions_means_nothing(tmp_path: Path) -> None:
    (tmp_path / "run" / "units").mkdir(parents=True)
    (tmp_path / "run" / "units" / ".lock").write_text("")
    store = open_run(tmp_path / "run")
    assert (tmp_path / "run" / owner.OWNER).is_file()
    store.close()


def test_signs_of_life_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT", 0.05)
    store = open_run(tmp_path / "run")
    time.sleep(0.5)
    assert json.loads((tmp_path / "run" / owner.OWNER).read_bytes())["beat"] >= 2
    store.close()
    assert not (tmp_path / "run" / owner.OWNER).exists()


def test_who_lost_a_run_writes_nothing_more_into_it(tmp_path: Path) -> None:
    store = open_run(tmp_path / "run")
    path = as_if(tmp_path / "run", nonce="another")
    with pytest.raises(StorageError, match="process 1 on node7 took this run over"):
        store.write_manifest(manifest(plan(), state="complete"))
    store.close()
    assert path.exists()
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["state"] == "running"


def test_an_owner_file_removed_by_hand_is_made_again(tmp_path: Path) -> None:
    store = open_run(tmp_path / "run")
    (tmp_path / "run" / owner.OWNER).unlink()
    store.write_manifest(manifest(plan()))
    assert (tmp_path / "run" / owner.OWNER).exists()
    store.close()


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    first = open_run(tmp_path / "run")
    with pytest.raises(UsageError, match="another process is working on this run"):
        open_run(tmp_path / "run")
    first.close()


@pytest.mark.parametrize("left", ["nothing", "units", "owner", "empty manifest", "temporary"])
def test_a_half_made_folder_is_usable(tmp_path: Path, left: str) -> None:
    run = tmp_path / "run"
    (run / "units").mkdir(parents=True)
    if left == "nothing":
        (run / "units").rmdir()
    elif left == "units":
        (run / "units" / ("0" * 20)).mkdir()  # of a plan that is no more
        (run / "units" / plan()[0].key).mkdir()
    elif left == "owner":
        as_if(run, tag=parts(start="1"))
    elif left == "empty manifest":
        (run / "manifest.json").write_text("")
    else:
        (run / f".manifest.json.tmp-{parts(start='1')}-abc").write_text("")
    done, _ = work_on(run, plan())
    assert done.state == "complete"
    assert sorted(done.rows["value"]) == [0, 1, 5]
    assert not list(run.glob(".*"))


def test_what_is_not_ours_makes_a_folder_unusable(tmp_path: Path) -> None:
    for name in ("units/thesis.tex", "owner.json.bak", "manifest.json.old"):
        run = tmp_path / name.replace("/", "-")
        (run / name).parent.mkdir(parents=True)
        (run / name).write_text("")
        with pytest.raises(UsageError, match="holds other things and no run"):
            open_run(run)
        assert [path.name for path in run.rglob("*") if path.is_file()] == [Path(name).name]


def test_many_processes_start_one_run_at_once(tmp_path: Path) -> None:
    """One of them works, all others are refused, where there is a dead owner to follow as well."""
    as_if(tmp_path / "run", tag=parts(start="1"))
    code = HOLD.replace("begin(store", 'print("ready", flush=True); sys.stdin.readline(); begin(store')
    started = [python(code, str(tmp_path / "run"), wait=False) for _ in range(5)]
    for one in started:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    end = time.monotonic() + 60
    while sum(one.poll() is None for one in started) > 1 and time.monotonic() < end:
        time.sleep(0.1)
    results = []
    for one in started:
        out, err = one.communicate(timeout=60)
        results.append((out, one.returncode, err))
    held = [result for result in results if result[0] == "holding\n"]
    assert [result[1] for result in held] == [0], results
    refused = [err for out, _, err in results if out == ""]
    assert all("another process is working" in err or "several processes" in err for err in refused), refused
