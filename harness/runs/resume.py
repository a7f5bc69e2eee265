"""What a run that is not complete still lacks, and the command that goes on with it."""

from __future__ import annotations

import shlex
from typing import Any

from harness.runs.directory import RunDirectory

SHOWN = 10
NO_NAME = "CONFIG.yaml"
"""In a command, in the place of a config that is not one of those shipped."""


def missing_units(run: Any) -> list[str]:
    """Labels of the units that are not stored, in the order of the plan."""
    store = RunDirectory(run.path)
    return [unit["label"] for unit in run.manifest["units"] if not store.finished(unit["key"])]


def resume_command(run: Any) -> str:
    """The command that goes on with a run; `CONFIG.yaml` where its config is not one of those shipped."""
    from harness.config.load import shipped_configs  # takes long to import, and a complete run needs none

    config = run.manifest["config"]
    shipped = (shipped_configs() / f"{run.name}.yaml").is_file()
    name = run.name if shipped else NO_NAME
    limit = f" --limit {config['limit']}" if config["limit"] is not None else ""
    return f"ccmc run {shlex.quote(name)}{limit} --out {shlex.quote(str(run.path))}"


def unfinished(run: Any) -> str:
    """What a message adds about something that a run does not hold; nothing where the run is complete."""
    if run.state == "complete":
        return ""
    missing, units = len(missing_units(run)), len(run.manifest["units"])
    return f"; {missing} of {units} units are not done, go on with: {resume_command(run)}"


def missing_lines(run: Any) -> list[str]:
    """Lines that say what is missing and how to go on; none for a complete run.

    Args:
        run: an opened run.

    Returns:
        Lines for the terminal: the missing units by label, failures with their errors.
    """
    if run.state == "complete":
        return []
    missing = missing_units(run)
    failures = {failure["key"]: failure["error"] for failure in run.manifest["failures"]}
    errors = {unit["label"]: failures[unit["key"]] for unit in run.manifest["units"] if unit["key"] in failures}
    lines = [f"not complete: {len(missing)} of {len(run.manifest['units'])} units are missing"]
    for label in missing[:SHOWN]:
        lines.append(f"  {label}" + (f": failed: {errors[label]}" if label in errors else ""))
    if len(missing) > SHOWN:
        lines.append(f"  and {len(missing) - SHOWN} more")
    where = " (its config is in manifest.json, config_as_given)" if NO_NAME in resume_command(run) else ""
    lines.append(f"to go on where it stopped, with the overrides that it was started with{where}:")
    return lines
