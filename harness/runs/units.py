"""Units: the smallest pieces of work that are stored and resumed, and the hash of everything their rows depend on."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.core.declarations import Declaration
from harness.core.hashing import canonical_hash
from harness.runs import identity

if TYPE_CHECKING:
    import pandas as pd


class Room(NamedTuple):
    """What a unit needs of the machine that does it.

    Attributes:
        cpus: cores.
        gpus: whole GPUs.
        memory: bytes.
    """

    cpus: int
    gpus: int
    memory: int


@dataclass(frozen=True)
class Unit:
    """One piece of work.

    Attributes:
        task: `module:function` that does it; called with a `Work`, returns rows.
        label: what progress bars call it.
        settings: JSON-able; with the source and the units it needs, everything that its rows depend on.
        needs: units whose folders it reads.
        local: what it needs on this machine and its rows do not depend on, such as the folder of the weights.
        threads: threads of torch and of the BLAS that it computes with, on every machine. Its last bits depend on
            them, so that a number other than one is part of its identity.
        room: what it needs of a machine; None: an estimate, by its threads, its device and the size of its model.
        uses: declarations of the registered objects that the settings name: their source counts as well.
        kept: the key of a stored unit that takes its place, made by other versions of packages and kept on request.
    """

    task: str
    label: str
    settings: dict[str, Any]
    needs: tuple[Unit, ...] = ()
    local: dict[str, Any] = field(default_factory=dict)
    threads: int = 1
    room: Room | None = field(default=None, compare=False)
    uses: tuple[Declaration, ...] = ()
    kept: str | None = None

    @property
    def source(self) -> str:
        """The hash of the source that computes it."""
        return identity.source_hash(self.task, self.uses)

    @property
    def versions(self) -> dict[str, str]:
        """Package -> version of what computes it."""
        return identity.versions(self.task, self.uses)

    @cached_property
    def recipe(self) -> str:
        """The hash of everything that its rows depend on but the versions of packages."""
        needs = [unit.recipe for unit in self.needs]
        threads = [] if self.threads == 1 else [{"threads": self.threads}]
        return canonical_hash([self.task, self.settings, needs, self.source, *threads])

    @cached_property
    def key(self) -> str:
        """The name of the unit's folder: the first 20 hex digits of the hash of everything its rows depend on."""
        if self.kept is not None:
            return self.kept
        needs = [unit.key for unit in self.needs]
        return key_of(self.task, self.settings, needs, self.source, self.versions, self.threads)

    def here(self, local: dict[str, Any]) -> Unit:
        """The same unit on a machine where other things are elsewhere."""
        return replace(self, local=local)


def key_of(
    task: str,
    settings: dict[str, Any],
    needs: list[str],
    source: str,
    versions: dict[str, str] | None,
    threads: int = 1,
) -> str:
    """The key of a unit; `needs`: keys of the units that it needs; `versions`: None in records of earlier programs."""
    more: list[Any] = [] if versions is None else [versions]
    if threads != 1:
        more.append({"threads": threads})
    return canonical_hash([task, settings, needs, source, *more])[:20]


@dataclass
class Work:
    """What a task is given.

    Attributes:
        settings, local: those of its unit.
        inputs: the folders of the units that it needs, in their order.
        folder: where it may leave files; moved into place as a whole when the task returns.
        progress: call with the share done (0 to 1) and what is being done.
    """

    settings: dict[str, Any]
    local: dict[str, Any]
    inputs: list[Path]
    folder: Path
    progress: Callable[[float, str], None]


def task_function(task: str) -> Callable[[Work], pd.DataFrame]:
    """The function that a unit's `task` names."""
    module, _, name = task.partition(":")
    function: Callable[[Work], pd.DataFrame] = getattr(importlib.import_module(module), name)
    return function
