"""Where the units of a run are done, as the user says it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from harness.core.errors import UsageError, nearest
from harness.runs.doing import Problem
from harness.runs.units import Unit

EXECUTORS = ("local", "serial", "processes", "ray")
MOST_WORKERS = 1024


class Executor(Protocol):
    """Starts units, each elsewhere, and says how they ended."""

    attempts: int
    """How often a unit is tried whose worker was lost."""

    @property
    def free(self) -> bool: ...
    def submit(self, unit: Unit) -> Future[Problem | None]: ...
    def result(self, future: Future[Problem | None]) -> tuple[Problem | None, bool]: ...
    def progress(self, unit: Unit) -> tuple[float, str] | None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Place:
    """Where units are done. No row depends on it.

    Attributes:
        executor: `serial` in this process; `processes` on this machine; `ray` on a cluster; `local` is serial for one
            worker and processes for more.
        workers: units at once; None: one, and on a cluster as many as it has room for.
        address: of a Ray cluster, HOST:PORT, `auto` or ray://...; None starts one on this machine.
        storage: URL of a folder that all nodes of a cluster reach, where they do not share the run directory.

    Raises:
        UsageError: an option that cannot be, or does not go with the others.
    """

    executor: str = "local"
    workers: int | None = None
    address: str | None = None
    storage: str | None = None

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise UsageError(f"--executor {self.executor!r}{nearest(self.executor, EXECUTORS)}")
        if self.workers is not None and not 1 <= self.workers <= MOST_WORKERS:
            raise UsageError(f"--workers {self.workers}: give a number from 1 to {MOST_WORKERS}")
        if self.executor == "serial" and self.workers not in (None, 1):
            raise UsageError(f"--executor serial does one unit at a time, not {self.workers}; use --executor processes")
        for option in ("address", "storage"):
            value = getattr(self, option)
            if value is not None and self.executor != "ray":
                raise UsageError(f"--{option} {value!r} is for --executor ray, not for {self.executor}")

    @property
    def serial(self) -> bool:
        """Are units done one after the other in this process?"""
        return self.executor == "serial" or (self.executor == "local" and self.workers in (None, 1))
