"""Who works on a run: one process at a time, by a file `owner.json` in the run's folder that needs no locks.

The file is made in one step that fails where it is there already; locks of the file system have no effect or fail on
some network file systems. It names host, process and start, and a number that its process raises every few seconds. An
owner on this host is gone where its process is dead. An owner elsewhere is gone where its file is old by the clock and
its number does not change while it is watched, so that clocks that differ end nobody's run.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.core.errors import StorageError, UsageError
from harness.runs import writer
from harness.runs.writing import now, storing, sync_folder

OWNER = "owner.json"
BEAT = 10.0
"""Seconds between two signs of life."""
WATCH = 3 * BEAT
"""Seconds for which the file of an owner is watched that may be gone."""
SILENT = 900.0
"""Seconds without a sign of life after which an owner on another host may be gone."""
_SIZE = 512  # of the file, in bytes: it is rewritten in its place


class Ownership:
    """A run that this process owns, until `release`."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self._record = record
        self._pid = os.getpid()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="owner of a run", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        while not self._ended.wait(BEAT):
            self._record = {**self._record, "beat": self._record["beat"] + 1, "seen": now()}
            with suppress(OSError):  # a full disk or a lost connection is met by who writes results
                if self.holds():
                    with self.path.open("r+b") as file:
                        file.write(_text(self._record))

    def holds(self) -> bool:
        """Is the file still this process's?"""
        found = _read(self.path)[1]
        return found is not None and found["nonce"] == self._record["nonce"]

    def check(self) -> None:
        """Refuse to go on where another process took the run over, or the file was removed and another may have.

        Raises:
            StorageError: nothing more may be written.
        """
        if self.holds() or _create(self.path, self._record):
            return
        found = _read(self.path)[1] or {}
        by = f"process {found.get('pid')} on {found.get('host')}" if found else "another process"
        raise StorageError(f"{self.path.parent}: {by} took this run over; this one writes nothing more into it")

    def release(self) -> None:
        """Let others work on the run. A forked child that ends its copy changes nothing."""
        self._ended.set()
        if os.getpid() != self._pid:
            return
        self._thread.join()
        with suppress(OSError):
            if self.holds():
                self.path.unlink()


def take(folder: Path) -> tuple[Ownership, str | None]:
    """Own a run.

    Args:
        folder: of the run; it is there.

    Returns:
        The ownership, and a note where it was taken over from a process that is gone.

    Raises:
        UsageError: another process works on the run.
        StorageError: the folder cannot be written to.
    """
    path, note = folder / OWNER, None
    record = {
        "tag": writer.tag(),
        "nonce": secrets.token_hex(8),
        "host": writer.host()[:100],
        "pid": os.getpid(),
        "since": now(),
        "seen": now(),
        "beat": 0,
    }
    for _ in range(10):
        if _create(path, record):
            return Ownership(path, record), note
        content, other = _read(path)
        if content is not None:
            note = _why_gone(path, content, other)
            _set_aside(path, content)
    raise UsageError(f"{folder}: several processes try to start this run; start one of them again")


def _text(record: dict[str, Any]) -> bytes:
    return json.dumps(record, indent=1).encode().ljust(_SIZE - 1) + b"\n"


def _create(path: Path, record: dict[str, Any]) -> bool:
    """Make the file, whole, unless there is one."""
    temporary = path.with_name(f"{writer.temporary_prefix(path.name)}{record['nonce']}")
    with storing(path):
        temporary.write_bytes(_text(record))
        try:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                return _create_unlinked(path, record)
        finally:
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def _create_unlinked(path: Path, record: dict[str, Any]) -> bool:
    try:
        with path.open("xb") as file:
            file.write(_text(record))
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> tuple[bytes | None, dict[str, Any] | None]:
    """The content of the file, None where there is none; and what it says, None where that cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return None, None
    try:
        found = json.loads(content)
        writer.state_of(found["tag"])
        seen = datetime.fromisoformat(found["seen"]).tzinfo
        whole = seen is not None and isinstance(found["nonce"], str) and isinstance(found["pid"], int)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return content, None
    return content, found if whole else None


def _why_gone(path: Path, content: bytes, owner: dict[str, Any] | None) -> str:
    """Why the owner of a run is no more, in a note.

    Raises:
        UsageError: it may still work.
    """
    if owner is not None:
        who = f"process {owner['pid']} on {owner.get('host')}"
        state = writer.state_of(owner["tag"])
        if state == "dead":
            return f"{who} ended without closing this run; taken over from it"
        age = abs((datetime.now(UTC) - datetime.fromisoformat(owner["seen"])).total_seconds())
        if state == "alive" or age < SILENT or _changes(path, content):
            where = f", or remove {path} if that process is gone" if state == "elsewhere" else ""
            seen = f"{who}, last sign of life {owner['seen']}"
            raise UsageError(f"{path.parent}: another process is working on this run ({seen}); wait for it{where}")
        return f"{who} has given no sign of life since {owner['seen']}; this run is taken over from it"
    if _changes(path, content):
        raise UsageError(f"{path.parent}: another process is working on this run; wait for it")
    return f"{path.name} could not be read and nobody wrote it for {WATCH:.0f} s; this run is taken over"


def _changes(path: Path, content: bytes) -> bool:
    """Is the file written again, or removed, while it is watched?"""
    end = time.monotonic() + WATCH
    while time.monotonic() < end:
        time.sleep(min(0.5, WATCH / 4))
        if _read(path)[0] != content:
            return True
    return False


def _set_aside(path: Path, content: bytes) -> None:
    """Remove the file of an owner that is gone, unless another process did, and its own is there now."""
    aside = path.with_name(f"{writer.temporary_prefix(path.name)}{secrets.token_hex(4)}")
    with storing(path):
        try:
            path.rename(aside)
        except FileNotFoundError:
            return
        if aside.read_bytes() != content:
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink()
