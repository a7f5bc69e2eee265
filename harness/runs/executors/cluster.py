"""Units on a Ray cluster: placed by the cores, GPUs and memory that they need, tried again where a worker is lost."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError, one_line
from harness.core.leaving import descendants, end
from harness.runs.directory import RunDirectory
from harness.runs.doing import ADVICE, Problem, attempt, problem_of
from harness.runs.executors.place import Place
from harness.runs.executors.room import room_of
from harness.runs.identity import identity
from harness.runs.storage import Storage, bring, discard, local_here, scratch, unit_name, weights_name
from harness.runs.units import Room, Unit

CONNECT = 10.0
"""Seconds for a cluster to answer."""
PATIENCE = 0.5
"""Seconds in which processes of a cluster on this machine end."""


class Cluster:
    """A Ray cluster: one that an address names, or one of this machine for the time of the run."""

    attempts = 3
    """How often a unit is tried whose worker was lost."""

    def __init__(self, directory: str, place: Place, todo: Sequence[Unit]) -> None:
        self._storage = None if place.storage is None else Storage(place.storage)
        self._storage_url = place.storage
        self._store = RunDirectory(Path(directory))
        self._before = set(descendants())
        self._ray = _connect(place.address)
        self._running: dict[Future[Any], Any] = {}
        try:
            self._nodes = [_room_of_node(node) for node in self._ray.nodes() if node["Alive"]]
            for unit in todo:
                self._check(unit)
            cores = sum(node.cpus for node in self._nodes)
            self._workers = place.workers or max(1, cores)
            # A worker keeps its process, and with it the weights it loaded, from one unit to the next.
            self._remote = self._ray.remote(max_retries=0, max_calls=0)(on_node)
        except BaseException:
            self.stop()
            raise

    @property
    def free(self) -> bool:
        """Is there a worker for another unit?"""
        return len(self._running) < self._workers

    def submit(self, unit: Unit) -> Future[Problem | None]:
        """Start a unit as soon as a node has room for it."""
        if self._storage is not None:
            self._send(unit)
        room = self._check(unit)
        options = {"num_cpus": room.cpus, "num_gpus": room.gpus, "memory": room.memory}
        directory = None if self._storage_url is not None else str(self._store.path)
        reference = self._remote.options(**options).remote(
            directory, self._storage_url, unit, identity(unit.task, unit.uses)
        )
        future: Future[Problem | None] = reference.future()
        self._running[future] = (reference, unit)
        return future

    def result(self, future: Future[Problem | None]) -> tuple[Problem | None, bool]:
        """How a finished unit ended, and whether it was its worker that was lost."""
        _, unit = self._running.pop(future)
        try:
            problem = future.result()
            if problem is None and self._storage is not None:
                self._storage.get(unit_name(unit.key), self._store.unit(unit.key))
        except self._ray.exceptions.RayTaskError as error:
            return Problem(one_line(error.cause if hasattr(error, "cause") else error), str(error)), False
        except self._ray.exceptions.RayError as error:
            how = f"{type(error).__name__}: {one_line(error)[:120]}"
            return Problem(f"its worker was lost {self.attempts} times ({how}); if for lack of memory, {ADVICE}"), True
        except (OSError, UsageError) as error:
            return Problem(f"its result cannot be fetched from --storage: {one_line(error)}"), False
        return problem, False

    def progress(self, unit: Unit) -> tuple[float, str] | None:
        """Nodes do not say how far a unit is."""
        return None

    def stop(self) -> None:
        """End what runs, and the cluster if it is of this machine and of this run."""
        for reference, _ in self._running.values():
            self._ray.cancel(reference, force=True)
        self.close()

    def close(self) -> None:
        """Leave the cluster; one of this machine and of this run ends."""
        own = set(descendants()) - self._before
        self._ray.shutdown()
        end(own, PATIENCE)

    def _check(self, unit: Unit) -> Room:
        """The room of a unit, on some node of the cluster."""
        room = room_of(unit)
        fits = [node for node in self._nodes if node.cpus >= room.cpus and node.gpus >= room.gpus]
        if not fits:
            largest = max(self._nodes, default=Room(0, 0, 0))
            raise UsageError(
                f"--executor ray: '{unit.label}' needs {room.cpus} cores and {room.gpus} GPUs on one node, the largest "
                f"has {largest.cpus} and {largest.gpus}; lower threads, set device: cpu, or add a node"
            )
        most = max(node.memory for node in fits)
        if room.memory > most and unit.room is not None:
            raise UsageError(
                f"--executor ray: '{unit.label}' needs {room.memory / 1e9:.1f} GB on one node, the largest has "
                f"{most / 1e9:.1f} GB; add a node"
            )
        return room._replace(memory=min(room.memory, most))  # an estimate does not forbid what may well work

    def _send(self, unit: Unit) -> None:
        """Put into the storage what a unit needs and what is not there."""
        assert self._storage is not None
        for need in unit.needs:
            self._storage.put(self._store.unit(need.key), unit_name(need.key))
        weights = weights_name(unit.settings)
        if weights is not None and "path" in unit.local:
            self._storage.put(Path(unit.local["path"]), weights)


def on_node(directory: str | None, storage_url: str | None, unit: Unit, source: str) -> Problem | None:
    """Do a unit on a node.

    Args:
        directory: of the run, where nodes share it.
        storage_url: of the storage, where they do not.
        unit: its needs are stored in one of the two.
        source: hash of code and packages of the machine that planned the unit.
    """
    os.environ.setdefault("CCMC_THREADS", str(unit.threads))
    node = socket.gethostname()
    try:
        if identity(unit.task, unit.uses) != source:
            return Problem(f"node {node} has other versions of ccmc-harness or its packages; install the same there")
        if storage_url is not None:
            return _through_storage(Storage(storage_url), unit)
        if directory is None or not Path(directory, "units").is_dir():
            return Problem(f"node {node} does not see the run directory {directory}; give --storage URL")
    except Exception as error:
        return problem_of(error)
    return attempt(directory, unit)


def _through_storage(storage: Storage, unit: Unit) -> Problem | None:
    """Do a unit in a folder of this node, with what it needs from the storage, and put it there."""
    if storage.has(unit_name(unit.key)):
        return None  # of a run that ended before it was fetched
    folder = scratch()
    try:
        store = RunDirectory(folder)
        bring(storage, store, [need.key for need in unit.needs])
        problem = attempt(str(folder), unit.here(local_here(storage, unit.settings, unit.local)))
        if problem is None:
            storage.put(store.unit(unit.key), unit_name(unit.key))
        return problem
    finally:
        discard(folder)


def _connect(address: str | None) -> Any:
    """The module ray, connected.

    Raises:
        UsageError: it is not installed, or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--executor ray: ray is not installed; install it with: pip install 'ccmc-harness[ray]'"
        ) from None
    if address not in (None, "auto", "local"):
        _reach(str(address))
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        if not ray.is_initialized():
            own = {"include_dashboard": False} if address is None else {}
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise UsageError(f"--address {address}: no Ray cluster: {one_line(error)[:200]}") from None
    finally:
        if main:  # ray takes SIGTERM for itself
            signal.signal(signal.SIGTERM, before)
    return ray


def _reach(address: str) -> None:
    """Refuse an address where nobody answers; ray would try for a minute and more."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit() or not host:
        raise UsageError(f"--address {address!r}: give HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--address {address}: no Ray cluster answers there: {one_line(error)}") from None


def _room_of_node(node: dict[str, Any]) -> Room:
    has = node.get("Resources", {})
    return Room(int(has.get("CPU", 0)), int(has.get("GPU", 0)), int(has.get("memory", 0)))
