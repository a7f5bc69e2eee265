"""How one unit is done: its task runs with its inputs and its threads, and its folder moves into place as a whole."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness.core.errors import StorageError, UsageError, one_line
from harness.core.hashing import folder_hashes
from harness.core.leaving import half_made
from harness.core.memory import forget_peak, out_of_memory, peak_memory
from harness.runs.directory import RunDirectory
from harness.runs.telling import teller
from harness.runs.threads import limited
from harness.runs.units import Unit, Work, task_function
from harness.runs.writing import new_folder, now, write_parquet

Progress = Callable[[float, str], None]

ADVICE = "use fewer --workers or a smaller generation.batch_size"


def run_unit(directory: Path, unit: Unit, progress: Progress) -> None:
    """Do one unit and move its folder into place."""
    store = RunDirectory(directory)
    start = time.perf_counter()
    forget_peak()
    with new_folder(store.unit(unit.key)) as folder, half_made(folder):
        inputs = [store.unit(need.key) for need in unit.needs]
        with limited(unit.threads):  # before the task's module imports torch
            rows = task_function(unit.task)(Work(unit.settings, unit.local, inputs, folder, progress))
        write_parquet(rows, folder / "rows.parquet")
        about = {
            "key": unit.key,
            "task": unit.task,
            "label": unit.label,
            "settings": unit.settings,
            "needs": [need.key for need in unit.needs],
            "source": unit.source,
            "versions": unit.versions,
            "recipe": unit.recipe,
            "threads": unit.threads,
            "files": folder_hashes(folder),
            "finished": now(),
            "seconds": round(time.perf_counter() - start, 2),
            "peak_memory_bytes": peak_memory(),
        }
        (folder / "unit.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class Problem(NamedTuple):
    """Why a unit failed; it crosses processes, since not every exception can be pickled.

    Attributes:
        message: one line.
        trace: for the folder `errors`.
        usage: the config cannot work, so that no further unit is tried.
        storage: the disk takes nothing more, so that none is tried either.
    """

    message: str
    trace: str = ""
    usage: bool = False
    storage: bool = False


def problem_of(error: Exception) -> Problem:
    """What is kept of the error that a unit ended with."""
    if isinstance(error, UsageError):
        return Problem(one_line(error), usage=True)
    if isinstance(error, StorageError):
        return Problem(one_line(error), storage=True)
    message = f"out of memory ({one_line(error)[:80]}); {ADVICE}" if out_of_memory(error) else one_line(error)
    return Problem(message, traceback.format_exc())


def quiet(share: float, what: str) -> None:
    """Progress inside a unit on another machine is not shown."""


def attempt(directory: str, unit: Unit, place: Path | None = None) -> Problem | None:
    """Do a unit in a worker.

    Args:
        directory: of the run.
        unit: one whose needs are stored there.
        place: a file for its progress.

    Returns:
        Why it failed, or None.
    """
    try:
        run_unit(Path(directory), unit, quiet if place is None else teller(place))
    except Exception as error:
        return problem_of(error)
    return None
