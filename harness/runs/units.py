"""Units: the smallest pieces of work that are stored and resumed, and the hash of everything their rows depend on."""

from __future__ import annotations

import ast
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.load import canonical_hash

if TYPE_CHECKING:
    import pandas as pd

_ROOT = Path(__file__).resolve().parents[2]


def _module_file(name: str) -> Path | None:
    base = _ROOT.joinpath(*name.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _imports(file: Path) -> frozenset[str]:
    """Modules of this project that a file imports anywhere, at the top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(n for n in names if n.split(".")[0] in {"ccmc", "harness"} and _module_file(n))


@cache
def source_hash(module: str) -> str:
    """SHA-256 over a module and every module of this project that it imports, directly or not."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _module_file(name)
        if name in seen or file is None:
            continue
        seen.add(name)
        waiting += _imports(file)
    digest = hashlib.sha256()
    for name in sorted(seen):
        file = _module_file(name)
        assert file is not None
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class Unit:
    """One piece of work.

    Attributes:
        task: `module:function` that does it; called with a `Work`, returns rows.
        label: what progress bars call it.
        settings: JSON-able; with the source and the units it needs, everything that its rows depend on.
        needs: units whose folders it reads.
        local: what it needs on this machine and its rows do not depend on, such as the folder of the weights.
        threads: threads of torch that it runs with; None: as many as torch takes.
    """

    task: str
    label: str
    settings: dict[str, Any]
    needs: tuple[Unit, ...] = ()
    local: dict[str, Any] = field(default_factory=dict)
    threads: int | None = field(default=None, compare=False)

    @cached_property
    def key(self) -> str:
        """The name of the unit's folder: the first 20 hex digits of the hash of everything its rows depend on."""
        module = self.task.partition(":")[0]
        needs = [unit.key for unit in self.needs]
        return canonical_hash([self.task, self.settings, needs, source_hash(module)])[:20]


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
