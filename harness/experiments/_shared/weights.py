"""What a fit that is made again from a finished run needs: the records of its units, and the weights of its model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError, nearest
from harness.runs.directory import RunDirectory
from harness.runs.resume import unfinished
from harness.runs.run import Run


def unit_records(run: Run, task: str, experiment: str) -> list[dict[str, Any]]:
    """The records of the stored units of one task.

    Raises:
        UsageError: there are none; names the experiment that makes them.
    """
    store, found = RunDirectory(run.path), []
    for unit in run.manifest["units"]:
        file = store.unit(unit["key"]) / "unit.json"
        if file.is_file():
            found.append(json.loads(file.read_text(encoding="utf-8")))
    found = [record for record in found if record["task"] == task]
    if not found:
        raise UsageError(
            f"{run.path}: no unit of {experiment} is stored there; a run of the experiment `{experiment}` with its "
            f"folder units/ is needed{unfinished(run)}"
        )
    return found


def records_of(run: Run, task: str, experiment: str, model: str | None, strategy: str | None) -> list[dict[str, Any]]:
    """The records of one task with one model and one strategy.

    Args:
        run: with its units.
        task: of the units.
        experiment: that makes them.
        model: None: the run's only one.
        strategy: by its name in rows; None: the first.

    Raises:
        UsageError: a model or strategy that the run does not have, or several models of which none is named.
    """
    records = unit_records(run, task, experiment)
    for name, value in (("model", model), ("strategy", strategy)):
        known = list(dict.fromkeys(one["settings"][name] for one in records))
        if value is None and name == "model" and len(known) > 1:
            raise UsageError(f"{run.path} has several models; choose with --model: {', '.join(known)}")
        if value is not None and value not in known:
            raise UsageError(f"--{name} {value!r}: the run has {', '.join(known)}{nearest(value, known)}")
        records = [one for one in records if one["settings"][name] == (value or known[0])]
    return records


def inputs_of(run: Run, record: dict[str, Any]) -> list[Path]:
    """The folders of the units that a unit read.

    Raises:
        UsageError: one is missing.
    """
    found = [RunDirectory(run.path).unit(key) for key in record["needs"]]
    for unit in found:
        if not unit.is_dir():
            raise UsageError(f"{unit}: a unit that the fit reads is missing; export from the whole run")
    return found


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


def local_of(run: Run, settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """What a unit of the run needs to find its model on this machine, as `loading.model_of` takes it.

    Args:
        run: that has the unit.
        settings: of the unit.
        path: of the weights, as of `folder_of_weights`.

    Raises:
        UsageError: the device that the config names is not there.
    """
    from harness.models.loading import pick_device

    config = run.manifest["config"]
    allowed = isinstance(config["models"], dict) and config["models"]["allow_mismatch"]
    half = {"dtype": settings["dtype"]} if "dtype" in settings else {}
    return {
        "path": str(path),
        "device": pick_device(config["device"], config.get("device_map")),
        "allow_mismatch": allowed,
        **half,
    }
