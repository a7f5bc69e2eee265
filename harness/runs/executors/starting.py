"""Starts the executor of a place; what it needs is imported only then."""

from __future__ import annotations

from collections.abc import Sequence

from harness.runs.directory import RunDirectory
from harness.runs.executors.place import Executor, Place
from harness.runs.units import Unit


def start(place: Place, store: RunDirectory, todo: Sequence[Unit]) -> Executor:
    """Start the executor of a place that is not serial.

    Args:
        place: checked.
        store: the run directory.
        todo: the units that are to be done.

    Raises:
        UsageError: a library is missing, the cluster cannot be reached, or has no room for a unit.
    """
    directory = str(store.path.absolute())
    if place.executor != "ray":
        from harness.runs.executors.processes import Processes

        return Processes(directory, min(place.workers or 1, max(1, len(todo))))
    from harness.runs.executors.cluster import Cluster

    return Cluster(directory, place, todo)
