"""A run that is stopped ends within seconds, with its exit code and one line, and leaves no process behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import psutil
import pytest

TESTS = Path(__file__).resolve().parents[2]
LOOPS = int(os.environ.get("CCMC_TEST_LOOPS", "3"))
"""How often a run is stopped at a random moment; more on request."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def start(folder: Path, task: str, count: int, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path[:1], *_paths()])}
    return subprocess.Popen(
        [sys.executable, str(TESTS / "stoppable.py"), str(folder), task, str(count), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # shells start jobs in the background with Ctrl-C ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _paths() -> list[str]:
    return [str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]


def wait_until(met: object, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; Python's resource trackers end a moment after the process that they serve."""
    return psutil.wait_procs(processes, timeout=2)[1]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for file in tmp_path.glob("begun-*"):
        pid = int(file.read_text() or 0)
        if pid and psutil.pid_exists(pid) and "loky" in " ".join(psutil.Process(pid).cmdline()):
            psutil.Process(pid).kill()


OPTIONS = {"serial": ["--executor", "serial"], "processes": ["--workers", "2"]}


@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.parametrize("task", ["sleeping", "stuck"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_within_five_seconds(
    folder: Path, executor: str, task: str, number: signal.Signals
) -> None:
    process = start(folder, task, 3, *OPTIONS[executor])
    begun = 1 if executor == "serial" else 2
    wait_until(lambda: len(list(folder.glob("begun-*"))) == begun or process.poll() is not None)
    below = family(process)
    assert len(below) >= (0 if executor == "serial" else 2)
    sent = time.monotonic()
    process.send_signal(number)
    time.sleep(0.01)
    process.send_signal(number)  # nobody presses Ctrl-C only once
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - sent < 5
    assert process.returncode == 128 + number, errors
    assert alive(below) == []
    lines = [line for line in errors.splitlines() if line.strip()]
    assert len(lines) == 1, errors
    assert lines[0].startswith("ccmc: ")
    assert "the same command goes on" in lines[0]
    assert [p for p in (folder / "run" / "units").iterdir() if not p.name.startswith(".lock")] == []


@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install '.[ray]'")
@pytest.mark.parametrize("task", ["sleeping", "stuck"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_cluster_of_the_run_too(folder: Path, task: str, number: signal.Signals) -> None:
    process = start(folder, task, 3, "--executor", "ray", "--workers", "2")
    wait_until(lambda: len(list(folder.glob("begun-*"))) == 2 or process.poll() is not None)
    below = family(process)
    sent = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - sent < 5
    assert process.returncode == 128 + number, errors
    assert alive(below) == []
    assert errors.count("ccmc: ") == 1
    assert "Traceback" not in errors
    assert not list((folder / "run" / "units").glob("[!.]*"))


def test_a_closed_terminal_ends_it_too(folder: Path) -> None:
    process = start(folder, "sleeping", 2, "--workers", "2")
    wait_until(lambda: len(list(folder.glob("begun-*"))) == 2)
    below = family(process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=5) == 129
    assert alive(below) == []
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_at_any_moment_give_one_line_and_no_traceback(folder: Path, number: signal.Signals) -> None:
    """During imports, while workers start, between units, at the end: and then the same command goes on."""
    chance = random.Random(number)
    for _ in range(LOOPS):
        process = start(folder, "short", 6, "--workers", "2")
        time.sleep(0.3)  # Python itself starts
        below: list[psutil.Process] = []
        until = time.monotonic() + chance.uniform(0, 5)
        while time.monotonic() < until and process.poll() is None:
            below = family(process) or below
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(number)
            time.sleep(chance.uniform(0, 0.02))
            process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert "Traceback" not in errors
        assert process.returncode in {128 + number, 0}, errors
        assert alive(below) == []
        if process.returncode:
            assert errors.count("ccmc: ") == 1, errors
    process = start(folder, "short", 6, "--workers", "2")
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    assert len(list((folder / "run" / "units").glob("[!.]*/rows.parquet"))) == 6


@pytest.mark.parametrize("task", ["sleeping", "stuck"])
def test_workers_end_with_a_driver_that_is_killed(folder: Path, task: str) -> None:
    process = start(folder, task, 3, "--workers", "2")
    wait_until(lambda: len(list(folder.glob("begun-*"))) == 2)
    below = family(process)
    assert len(below) >= 2
    process.kill()
    _, errors = process.communicate(timeout=10)
    assert psutil.wait_procs(below, timeout=3)[1] == []
    assert "resource_tracker" not in errors  # that semaphores were left to it is not for the terminal
    assert len(list(folder.glob("begun-*"))) == 2


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_disk_that_takes_no_more_ends_the_run_which_goes_on_later(folder: Path, executor: str) -> None:
    """The system refuses to let a file grow. The driver of a serial run cannot write its manifest either."""
    (folder / "full").touch()
    process = start(folder, "large", 3, *OPTIONS[executor])
    _, errors = process.communicate(timeout=90)
    lines = [line for line in errors.splitlines() if line.startswith("ccmc: ")]
    assert process.returncode == 3, errors
    assert len(lines) == 1, errors
    assert "a file would be larger than this disk or process allows; make room" in lines[0]
    assert "Traceback" not in errors
    assert [p.name for p in (folder / "run").rglob("*.tmp*")] == []
    (folder / "full").unlink()
    process = start(folder, "large", 3, *OPTIONS[executor])
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    assert sorted(pd.read_parquet(folder / "run" / "rows.parquet")["value"]) == [0, 1, 2]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("task", "executor", "said"),
    [
        ("hungry", "serial", "hungry 0: out of memory (Unable to allocate 32.0 MiB"),
        ("hungry", "processes", "hungry 0: out of memory (Unable to allocate 32.0 MiB"),
        ("starving", "processes", "its worker process was killed, as systems do where memory runs out: use fewer --w"),
    ],
)
def test_a_lack_of_memory_costs_one_unit(folder: Path, task: str, executor: str, said: str) -> None:
    process = start(folder, task, 4, *OPTIONS[executor])
    _, errors = process.communicate(timeout=90)
    (line,) = [line for line in errors.splitlines() if line.startswith("ccmc: ")]
    assert process.returncode == 3, errors
    assert line.startswith("ccmc: 1 of 4 units failed, the first: ")
    assert said in line
    assert "Traceback" not in errors
    stored = [pd.read_parquet(file)["value"].item() for file in (folder / "run" / "units").glob("*/rows.parquet")]
    assert sorted(stored) == [1, 2, 3]
