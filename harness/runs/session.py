"""One session of work on a run: do what its plan still lacks, and write down how it ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from harness.core.errors import HarnessError, StorageError, UnitsFailedError
from harness.core.hashing import file_hash
from harness.runs.directory import RunDirectory
from harness.runs.execution import Place, Watcher, execute
from harness.runs.stored import RECORD, read_record
from harness.runs.units import Unit
from harness.runs.writing import later


class SilentWatcher:
    """Shows nothing."""

    def started(self, unit: Unit) -> None: ...
    def moved(self, unit: Unit, share: float, what: str) -> None: ...
    def finished(self, unit: Unit, error: str | None) -> None: ...


def carry_out(
    store: RunDirectory,
    manifest: dict[str, Any],
    plan: Sequence[Unit],
    watcher: Watcher | None = None,
    place: Place | None = None,
) -> None:
    """Do the units that are not stored yet, then assemble the tables and close the run.

    Args:
        store: an opened run directory.
        manifest: of the run; gets its end state, timings and the hashes of its tables.
        plan: all units, each after those that it needs.
        watcher: is informed about each unit.
        place: where units are done; default: one after the other in this process.

    Raises:
        UnitsFailedError: some units failed; the others are stored.
        StorageError: the disk takes nothing more; finished units are stored.
    """
    start = time.perf_counter()
    keys = [unit.key for unit in plan]
    before = sum(store.finished(key) for key in keys)
    try:
        failures = execute(store, plan, watcher or SilentWatcher(), place)
        _close(store, manifest, keys, "partial" if failures else "complete", failures, start, before)
    except StorageError as error:
        with suppress(HarnessError, OSError):  # a disk that took no unit may take no manifest
            _close(store, manifest, keys, "partial", {}, start, before)
        done = sum(store.finished(key) for key in keys)
        raise StorageError(f"{error} ({done} of {len(keys)} units are stored in {store.path})") from error
    except BaseException:
        with suppress(HarnessError):  # what ended the session is what is shown
            _close(store, manifest, keys, "partial", {}, start, before)
        raise
    finally:
        store.close()
    if failures:
        labels = {unit.key: unit.label for unit in plan}
        first = next(iter(failures))
        raise UnitsFailedError(
            f"{len(failures)} of {len(plan)} units failed, the first: {labels[first]}: {failures[first]}; "
            f"the rest is stored in {store.path}, tracebacks in {store.path / 'errors'}"
        )


def _close(
    store: RunDirectory,
    manifest: dict[str, Any],
    keys: list[str],
    state: str,
    failures: dict[str, str],
    start: float,
    before: int,
) -> None:
    """Write the manifest at the end of a session, and of a complete run its tables.

    Args:
        store, manifest: of the run.
        keys: of its units.
        state: that it is in now.
        failures: key -> message.
        start: of the session, on the clock that only counts.
        before: how many units were stored then.
    """
    if state == "complete":
        manifest["tables"] = store.assemble(keys)
        for unit in manifest["units"]:
            unit["record_sha256"] = file_hash(store.unit(unit["key"]) / RECORD)
    finished = later(_last_start(manifest))
    manifest["state"] = state
    manifest["finished"] = finished
    manifest["failures"] = [{"key": key, "error": message} for key, message in failures.items()]
    seconds = {}
    peaks = []
    for unit in manifest["units"]:
        with suppress(ValueError):  # not stored
            record = read_record(store.unit(unit["key"]))
            seconds[unit["key"]] = record["seconds"]
            peaks.append(record.get("peak_memory_bytes"))
    manifest["timings"] = {
        "units_seconds": seconds,
        "sum_of_units_seconds": round(sum(seconds.values()), 1),
        "last_session_seconds": round(time.perf_counter() - start, 1),
        "peak_memory_bytes": max((peak for peak in peaks if peak is not None), default=None),
    }
    if sessions := manifest.get("sessions"):
        sessions[-1] |= {"finished": finished, "state": state, "units": len(seconds) - before}
    store.write_manifest(manifest)


def _last_start(manifest: dict[str, Any]) -> str:
    """When the session began, by the clock of then."""
    sessions = manifest.get("sessions")
    return str(sessions[-1]["started"] if sessions else manifest["created"])
