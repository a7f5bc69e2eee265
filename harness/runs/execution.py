"""Execution: the units of a plan, in turn, in local processes or on a Ray cluster. The rows are the same."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from harness.core.errors import UsageError, one_line
from harness.core.hashing import folder_hashes
from harness.runs.directory import RunDirectory, new_folder, now, write_parquet
from harness.runs.units import Unit, Work, task_function

Progress = Callable[[float, str], None]


class Watcher(Protocol):
    """Is notified of the progress of a plan."""

    def started(self, unit: Unit) -> None: ...
    def moved(self, unit: Unit, share: float, what: str) -> None: ...
    def finished(self, unit: Unit, error: str | None) -> None: ...


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def run_unit(directory: Path, unit: Unit, progress: Progress) -> None:
    """Do one unit and move its folder into place."""
    store = RunDirectory(directory)
    start = time.perf_counter()
    with new_folder(store.unit(unit.key)) as folder:
        inputs = [store.unit(need.key) for need in unit.needs]
        task = task_function(unit.task)
        with _threads(unit):
            rows = task(Work(unit.settings, unit.local, inputs, folder, progress))
        write_parquet(rows, folder / "rows.parquet")
        about = {
            "key": unit.key,
            "task": unit.task,
            "label": unit.label,
            "settings": unit.settings,
            "needs": [need.key for need in unit.needs],
            "source": unit.source,
            "files": folder_hashes(folder),
            "finished": now(),
            "seconds": round(time.perf_counter() - start, 2),
            "peak_memory_bytes": peak_memory(),
        }
        (folder / "unit.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _threads(unit: Unit) -> Iterator[None]:
    """Limit the threads of torch where the unit says so: small models lose time to threads that wait for others."""
    torch = sys.modules.get("torch")
    if torch is None or unit.threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(unit.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quiet(share: float, what: str) -> None:
    """Progress inside a unit that runs in another process is not shown."""


class _Problem(NamedTuple):
    """Why a unit failed; it crosses processes, since not every exception can be pickled.

    `usage`: the config cannot work, so that no further unit is tried.
    """

    message: str
    trace: str = ""
    usage: bool = False


def _in_worker(directory: str, unit: Unit) -> _Problem | None:
    """Run a unit elsewhere; its error, or None."""
    try:
        run_unit(Path(directory), unit, _quiet)
    except UsageError as error:
        return _Problem(one_line(error), usage=True)
    except Exception as error:
        return _Problem(one_line(error), traceback.format_exc())
    return None


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides


class _RayPool:
    """The part of `concurrent.futures.Executor` that is used here, on a Ray cluster that shares the run's folder."""

    def __init__(self) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError(
                "--executor ray: ray is not installed; install it with: pip install 'ccmc-harness[ray]'"
            ) from None
        self._ray = ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        self._remote = ray.remote(_in_worker)

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = self._remote.remote(*arguments).future()
        return future

    def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        self._ray.shutdown()


def _fail(store: RunDirectory, unit: Unit, problem: _Problem, failures: dict[str, str]) -> None:
    if problem.usage:
        raise UsageError(problem.message)
    failures[unit.key] = problem.message
    folder = store.path / "errors"
    folder.mkdir(exist_ok=True)
    (folder / f"{unit.key}.txt").write_text(f"{unit.label}\n{problem.trace}", encoding="utf-8")


def execute(
    store: RunDirectory, plan: Sequence[Unit], watcher: Watcher, workers: int = 1, executor: str = "local"
) -> dict[str, str]:
    """Do every unit of a plan that is not stored yet.

    Args:
        store: where finished units are.
        plan: units in an order in which each comes after those that it needs.
        watcher: notified of each event.
        workers: how many units at once.
        executor: `local` or `ray`.

    Returns:
        key -> message of each unit that failed, or could not start since one that it needs failed.

    Raises:
        UsageError: where a unit finds that the config cannot work.
    """
    failures: dict[str, str] = {}
    todo = [unit for unit in plan if not store.finished(unit.key)]
    if workers == 1 and executor == "local":
        for unit in todo:
            broken = next((need.label for need in unit.needs if need.key in failures), None)
            watcher.started(unit)
            if broken is not None:
                failures[unit.key] = f"needs '{broken}', which failed"
            else:
                try:
                    run_unit(store.path, unit, lambda share, what, unit=unit: watcher.moved(unit, share, what))  # type: ignore[misc]
                except UsageError:
                    raise
                except Exception as error:
                    _fail(store, unit, _Problem(one_line(error), traceback.format_exc()), failures)
            watcher.finished(unit, failures.get(unit.key))
        return failures
    _execute_pool(store, todo, watcher, workers, executor, failures)
    return failures


def _make_pool(executor: str, workers: int) -> Any:
    if executor == "ray":
        return _RayPool()
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_ignore_interrupts)


def _execute_pool(
    store: RunDirectory, todo: list[Unit], watcher: Watcher, workers: int, executor: str, failures: dict[str, str]
) -> None:
    pool = _make_pool(executor, workers)
    running: dict[Future[Any], Unit] = {}
    waiting, dead = list(todo), False
    try:
        while waiting or running:
            for unit in list(waiting):
                broken = next((need.label for need in unit.needs if need.key in failures), None)
                if broken is not None:
                    waiting.remove(unit)
                    failures[unit.key] = f"needs '{broken}', which failed"
                    watcher.finished(unit, failures[unit.key])
                elif not dead and len(running) < workers and all(store.finished(need.key) for need in unit.needs):
                    waiting.remove(unit)
                    watcher.started(unit)
                    running[pool.submit(_in_worker, str(store.path.absolute()), unit)] = unit
            if not running:
                continue
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                unit = running.pop(future)
                try:
                    problem = future.result()
                except BrokenExecutor:  # one process died, and its pool gives up those beside it too
                    problem, dead = _Problem("a worker process was killed; is there enough memory for so many?"), True
                if problem is not None:
                    _fail(store, unit, problem, failures)
                watcher.finished(unit, failures.get(unit.key))
            if dead and not running:
                pool.shutdown(wait=False)
                pool, dead = _make_pool(executor, workers), False
    except BaseException:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
