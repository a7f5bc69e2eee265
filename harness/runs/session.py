"""One session of work on a run: do what its plan still lacks, and write down how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from harness.core.errors import UnitsFailedError
from harness.core.hashing import file_hash
from harness.runs.directory import RunDirectory, now
from harness.runs.execution import Place, Watcher, execute
from harness.runs.units import Unit


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
    """
    start = time.perf_counter()
    keys = [unit.key for unit in plan]
    try:
        failures = execute(store, plan, watcher or SilentWatcher(), place)
        _close(store, manifest, keys, "partial" if failures else "complete", failures, start)
    except BaseException:
        _close(store, manifest, keys, "partial", {}, start)
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
    store: RunDirectory, manifest: dict[str, Any], keys: list[str], state: str, failures: dict[str, str], start: float
) -> None:
    """Write the manifest at the end of a session, and of a complete run its tables."""
    if state == "complete":
        manifest["tables"] = store.assemble(keys)
        for unit in manifest["units"]:
            unit["record_sha256"] = file_hash(store.unit(unit["key"]) / "unit.json")
    manifest["state"] = state
    manifest["finished"] = now()
    manifest["failures"] = [{"key": key, "error": message} for key, message in failures.items()]
    seconds = {}
    peaks = []
    for unit in manifest["units"]:
        about = store.unit(unit["key"]) / "unit.json"
        if about.is_file():
            record = json.loads(about.read_text(encoding="utf-8"))
            seconds[unit["key"]] = record["seconds"]
            peaks.append(record["peak_memory_bytes"])
    manifest["timings"] = {
        "units_seconds": seconds,
        "sum_of_units_seconds": round(sum(seconds.values()), 1),
        "last_session_seconds": round(time.perf_counter() - start, 1),
        "peak_memory_bytes": max((peak for peak in peaks if peak is not None), default=None),
    }
    store.write_manifest(manifest)
