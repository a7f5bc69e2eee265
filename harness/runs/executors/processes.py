"""Units in processes of this machine: one process per worker, each in a pool of its own.

So a process that dies takes one unit with it and no other, and it is known which.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.core.leaving import end
from harness.runs.doing import ADVICE, Problem, attempt
from harness.runs.executors.lifeline import begin
from harness.runs.telling import place_of, told
from harness.runs.threads import shared_out
from harness.runs.units import Unit

PATIENCE = 0.7
"""Seconds in which a worker that has to end removes what it was writing."""
_KEPT_FROM_WORKERS = ("SIGINT", "SIGHUP")


class Processes:
    """Workers that start when they are first needed, and keep what they loaded from one unit to the next."""

    attempts = 1
    """How often a unit is tried whose worker was lost: what died of its memory would do so again."""

    def __init__(self, directory: str, workers: int) -> None:
        try:
            from joblib.externals import loky
        except ImportError:
            raise UsageError(
                f"--workers {workers}: joblib is not installed; install it with: pip install joblib"
            ) from None
        self._loky = loky
        self._directory, self._workers = directory, workers
        self._idle: list[Any] = []
        self._busy: dict[Future[Any], tuple[Any, str]] = {}  # to its pool, and the key of the unit
        self._places: dict[str, Path] = {}
        _start_trackers()

    @property
    def free(self) -> bool:
        """Is there a worker for another unit?"""
        return len(self._busy) < self._workers

    def submit(self, unit: Unit) -> Future[Problem | None]:
        """Start a unit."""
        while True:
            pool = self._idle.pop() if self._idle else self._pool(unit.threads)
            place = self._places[unit.key] = place_of(Path(self._directory), unit)
            try:
                with _signals_kept():
                    future: Future[Problem | None] = pool.submit(attempt, self._directory, unit, place)
            except BrokenExecutor:  # it was killed while it waited
                continue
            self._busy[future] = (pool, unit.key)
            return future

    def result(self, future: Future[Problem | None]) -> tuple[Problem | None, bool]:
        """How a finished unit ended, and whether it was its worker that was lost."""
        pool, key = self._busy.pop(future)
        _remove(self._places.pop(key))
        try:
            problem = future.result()
        except BrokenExecutor as error:
            return Problem(f"its worker process {_end_of(error)}"), True
        self._idle.append(pool)
        return problem, False

    def progress(self, unit: Unit) -> tuple[float, str] | None:
        """How far a unit is, and its current step."""
        return told(self._places[unit.key])

    def stop(self) -> None:
        """End all workers at once, whatever they do."""
        pools = [*(pool for pool, _ in self._busy.values()), *self._idle]
        end([pid for pool in pools for pid in list(pool._processes)], PATIENCE)
        for pool in pools:
            pool.shutdown(wait=True, kill_workers=True)
        for place in self._places.values():
            _remove(place)

    def close(self) -> None:
        """End all workers; none has anything to do."""
        self.stop()

    def _pool(self, threads: int) -> Any:
        return self._loky.ProcessPoolExecutor(
            1, initializer=_begin, initargs=(os.getpid(),), env=shared_out(self._workers, threads)
        )


def _remove(place: Path) -> None:
    with suppress(OSError):
        place.unlink(missing_ok=True)


def _begin(parent: int) -> None:
    """First call in a worker. Its memory may grow, as it keeps the model that it loaded."""
    begin(parent)
    from joblib.externals.loky import process_executor

    process_executor._USE_PSUTIL = False  # a worker that grew would be replaced and load the model again


def _end_of(error: BaseException) -> str:
    """Words for how a worker ended, out of the pool's message, which lists exit codes such as {SIGKILL(-9)}."""
    for number in signal.Signals:
        if f"{number.name}(-{int(number)})" in str(error):
            if number.name == "SIGKILL":
                return f"was killed, as systems do where memory runs out: {ADVICE}"
            return f"was ended by {number.name}"
    return f"ended before the unit was done; if for lack of memory, {ADVICE}"


@contextmanager
def _signals_kept() -> Iterator[None]:
    """While workers start, keep from them what the terminal sends to all: it is for this process to decide.

    A blocked signal stays blocked in a started process; here it comes as soon as the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, {getattr(signal, name) for name in _KEPT_FROM_WORKERS if hasattr(signal, name)}
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_trackers() -> None:
    """Start the processes that remove semaphores after a kill, so that they do it without a word on the terminal."""
    if os.name != "posix":
        return  # semaphores go with their processes
    from multiprocessing import resource_tracker as of_python

    from joblib.externals.loky.backend import resource_tracker as of_loky

    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
    try:
        with warnings.catch_warnings():
            of_python.ensure_running()
            of_loky.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before
