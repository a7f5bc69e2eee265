"""Breaking runs on purpose: start the command, kill one of its processes at some moment, look at what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.core.hashing import file_hash

COMMAND = [sys.executable, "-m", "harness.cli"]
GONE_WITHIN = 5.0  # seconds in which no process of a killed run may be left


def start(arguments: list[str], cwd: Path) -> subprocess.Popen[str]:
    """`ccmc` with these arguments, in a session of its own, so that its processes can be found."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def of_session(session: int) -> list[int]:
    """The living processes of a session, zombies left out. Linux only."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.name))
    return sorted(found)


def wait_until(there: Callable[[], bool], seconds: float) -> bool:
    """Wait for something; did it come?"""
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def stored(run: Path) -> dict[str, dict[str, str]]:
    """Unit -> file -> hash of everything that is in place."""
    folders = [folder for folder in run.glob("units/*") if folder.is_dir() and not folder.name.startswith(".")]
    return {
        folder.name: {str(file.relative_to(folder)): file_hash(file) for file in folder.rglob("*") if file.is_file()}
        for folder in folders
    }


def being_written(run: Path) -> bool:
    """Is a unit being written, in a folder that has not taken its place?"""
    return any(folder.is_dir() and any(folder.iterdir()) for folder in run.glob("units/.*"))


@dataclass(frozen=True)
class Killed:
    """What a kill met.

    Attributes:
        victim: `driver`, `worker`, or `nothing` where the run had ended.
        left: processes of the run that were alive too long after a killed driver.
        code: what the driver ended with.
        said: the last line that the driver wrote to stderr.
    """

    victim: str
    left: tuple[int, ...]
    code: int
    said: str


def kill_once(process: subprocess.Popen[str], run: Path, moment: float | None, victim: str) -> Killed:
    """Send SIGKILL to a process of a run.

    Args:
        process: the driver, made by `start`.
        run: the run directory.
        moment: seconds to wait; None waits for a unit that is being written.
        victim: `driver`, or `worker` for the youngest other process of the run; the driver where there is none.
    """
    if moment is None:
        wait_until(lambda: being_written(run) or process.poll() is not None, 120)
    else:
        wait_until(lambda: process.poll() is not None, moment)
    if process.poll() is not None:
        return Killed("nothing", (), process.wait(), last_line(process.communicate()[1]))
    others = [number for number in of_session(process.pid) if number != process.pid]
    target = others[-1] if victim == "worker" and others else process.pid
    try:
        os.kill(target, signal.SIGKILL)
    except ProcessLookupError:
        target = process.pid
        process.kill()
    said = last_line(process.communicate(timeout=300)[1])  # a driver that lost a worker goes on
    session = process.pid
    gone = wait_until(lambda: not of_session(session), GONE_WITHIN)
    left = () if gone else tuple(of_session(session))
    return Killed("driver" if target == process.pid else "worker", left, process.returncode, said)


def last_line(text: str) -> str:
    """The last line of a text; "" where there is none."""
    return text.strip().rpartition("\n")[2]
