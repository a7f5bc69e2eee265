"""Execution: the units of a plan, in turn or several at once. The rows are the same wherever they are done."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Protocol

from harness.core.errors import StorageError, UsageError
from harness.runs.directory import RunDirectory
from harness.runs.doing import Problem, Progress, problem_of, run_unit
from harness.runs.executors.place import Executor, Place
from harness.runs.executors.starting import start
from harness.runs.telling import PERIOD
from harness.runs.units import Unit
from harness.runs.writing import storing

__all__ = ["Place", "Progress", "Watcher", "execute"]


class Watcher(Protocol):
    """Is notified of the progress of a plan."""

    def started(self, unit: Unit) -> None: ...
    def moved(self, unit: Unit, share: float, what: str) -> None: ...
    def finished(self, unit: Unit, error: str | None) -> None: ...


def execute(store: RunDirectory, plan: Sequence[Unit], watcher: Watcher, place: Place | None = None) -> dict[str, str]:
    """Do every unit of a plan that is not stored yet.

    Args:
        store: where finished units are.
        plan: units in an order in which each comes after those that it needs.
        watcher: notified of each event.
        place: where, and how many at once; default: one after the other in this process.

    Returns:
        key -> message of each unit that failed, or could not start since one that it needs failed.

    Raises:
        UsageError: where a unit finds that the config cannot work, or the place is not there.
    """
    place = place or Place()
    todo = [unit for unit in plan if not store.finished(unit.key)]
    if not todo:
        return {}
    session = _Session(store, watcher)
    if place.serial:
        for unit in todo:
            session.serial(unit)
        return session.failures
    executor = start(place, store, todo)
    try:
        session.several(todo, executor)
    except BaseException:
        executor.stop()
        raise
    executor.close()
    return session.failures


class _Session:
    """The units of one call of `execute`, and which of them failed."""

    def __init__(self, store: RunDirectory, watcher: Watcher) -> None:
        self.store, self.watcher = store, watcher
        self.failures: dict[str, str] = {}
        self._tried: dict[str, int] = {}

    def serial(self, unit: Unit) -> None:
        """Do a unit here, if those that it needs are done."""
        broken = self._broken(unit)
        self.watcher.started(unit)
        if broken is not None:
            self.failures[unit.key] = broken
        else:
            try:
                run_unit(self.store.path, unit, lambda share, what: self.watcher.moved(unit, share, what))
            except (UsageError, StorageError):
                raise
            except Exception as error:
                self._fail(unit, problem_of(error))
        self.watcher.finished(unit, self.failures.get(unit.key))

    def several(self, todo: list[Unit], executor: Executor) -> None:
        """Do units elsewhere, each as soon as those that it needs are done and a worker is free."""
        running: dict[Future[Problem | None], Unit] = {}
        waiting = list(todo)
        while waiting or running:
            for unit in list(waiting):
                broken = self._broken(unit)
                if broken is not None:
                    waiting.remove(unit)
                    self.failures[unit.key] = broken
                    self.watcher.finished(unit, broken)
                elif executor.free and all(self.store.finished(need.key) for need in unit.needs):
                    waiting.remove(unit)
                    if unit.key not in self._tried:
                        self.watcher.started(unit)
                    running[executor.submit(unit)] = unit
            if not running:
                for unit in waiting:  # nothing that is still to come makes one of these possible
                    lacking = next(need.label for need in unit.needs if not self.store.finished(need.key))
                    self._fail(unit, Problem(f"needs '{lacking}', which is not stored"))
                    self.watcher.finished(unit, self.failures[unit.key])
                return
            ended = wait(running, timeout=PERIOD, return_when=FIRST_COMPLETED).done
            for unit in running.values():
                if told := executor.progress(unit):
                    self.watcher.moved(unit, *told)
            for future in ended:
                unit = running.pop(future)
                problem, lost = executor.result(future)
                self._tried[unit.key] = self._tried.get(unit.key, 0) + 1
                if problem is not None and lost and self._tried[unit.key] < executor.attempts:
                    waiting.insert(0, unit)
                    continue
                if problem is not None:
                    self._fail(unit, problem)
                self.watcher.finished(unit, self.failures.get(unit.key))

    def _broken(self, unit: Unit) -> str | None:
        """Why a unit cannot be done, where one that it needs failed."""
        failed = next((need.label for need in unit.needs if need.key in self.failures), None)
        return None if failed is None else f"needs '{failed}', which failed"

    def _fail(self, unit: Unit, problem: Problem) -> None:
        if problem.usage:
            raise UsageError(problem.message)
        if problem.storage:
            raise StorageError(problem.message)
        self.failures[unit.key] = problem.message
        file = self.store.path / "errors" / f"{unit.key}.txt"
        with storing(file):
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{unit.label}\n{problem.trace}", encoding="utf-8")
