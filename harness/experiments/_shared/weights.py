"""The weights that a finished run was made with, found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.runs.run import Run


def folder_of_weights(run: Run, settings: dict[str, Any], why: str, progress: Callable[[float, str], None]) -> Path:
    """The folder of the model of a unit.

    Args:
        run: that has the unit.
        settings: of the unit, with `model`, `revision` and `weights`.
        why: what they are needed for, in words.
        progress: called with a description of each step.

    Raises:
        UsageError: it is gone, or its weights are others than the run's.
    """
    from harness.data import hub
    from harness.models import catalogue
    from harness.models.cache import folder_hash

    name, revision = settings["model"], settings["revision"]
    path = catalogue.folder_of(run.manifest, name)
    if path is None and (name in catalogue.aliases() or hub.is_name(name)):
        commit = f"{name.partition('@')[0]}@{revision}"  # a branch may have moved on since
        path = catalogue.resolve(name if name in catalogue.aliases() else commit, progress).path
    if path is None:
        record: dict[str, Any] = next((m for m in run.manifest["models"] if m["name"] == name), {})
        raise UsageError(
            f"{run.path}: the folder of the model {name!r} is gone ({record.get('folder') or name}), and {why}; "
            "put it back"
        )
    if folder_hash(path) != settings["weights"]:
        raise UsageError(f"{run.path}: the weights of {name!r} are not those that the run was made with ({path})")
    return path
