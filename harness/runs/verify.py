"""Verification of a run directory: are all files there, as they were written, in the schema they promise?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.core.errors import UsageError
from harness.core.hashing import canonical_hash, file_hash
from harness.core.rows import COLUMNS
from harness.runs.directory import RunDirectory
from harness.runs.records import unchanged
from harness.runs.stored import check_unit
from harness.runs.token_ids import token_problems

TABLES = ("rows.parquet", "trajectories.parquet")


@dataclass(frozen=True)
class TableProblem:
    """What is wrong with an assembled table.

    Attributes:
        file: the table, or the manifest where that has no hashes.
        problem: in words, after the name of the file.
        unknown: the table may be as it was written: there is no hash to compare it with.
    """

    file: str
    problem: str
    unknown: bool = False

    @property
    def text(self) -> str:
        """File and problem in one line."""
        return f"{self.file}{':' if self.unknown else ''} {self.problem}"


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Attributes:
        files: how many files were read and compared with their recorded hash.
        units: how many units were checked; 0 for a run that keeps only its assembled tables.
        rows: how many rows the run has.
        problems: one line for each thing that is wrong; empty where the run is as it was written.
    """

    files: int
    units: int
    rows: int
    problems: tuple[str, ...]


def verify(path: Path) -> Verification:
    """Check hashes, schema and completeness of a run. Changes nothing.

    Args:
        path: a run directory.

    Returns:
        What was checked, and every problem.

    Raises:
        UsageError: there is no readable manifest.
    """
    store = RunDirectory(path)
    manifest = store.read_manifest()
    assert manifest is not None, f"{path} holds no run"
    problems: list[str] = []
    files = 0
    if not unchanged(manifest):
        problems.append("manifest.json was changed after it was written")
    keys = [unit["key"] for unit in manifest["units"]]
    problems += [f"manifest.json: unit {key} is listed twice" for key in sorted(set(keys)) if keys.count(key) > 1]
    if (found := _config_hash(manifest)) != manifest["config_hash"]:
        problems.append(f"manifest.json: config_hash is {manifest['config_hash'][:12]}, its config has {found[:12]}")
    keeps_units = (path / "units").is_dir()
    complete = manifest["state"] == "complete"
    if not complete:
        problems.append(f"the run is {manifest['state']}, not complete")
    if keeps_units or not complete:
        for unit in manifest["units"]:
            checked, found_problems = _unit(store, unit)
            files += checked
            problems += found_problems
        problems += _strangers(store, manifest)
    if complete:
        checked, of_tables = check_tables(path, manifest)
        files += checked
        problems += [one.text for one in of_tables]
    rows = _rows(store, problems)
    return Verification(files, len(manifest["units"]) if keeps_units else 0, rows, tuple(problems))


def _config_hash(manifest: dict[str, Any]) -> str:
    weights = [model["weights_sha256"] for model in manifest["models"]]
    taken = [model.get("generation_config") or {} for model in manifest["models"]]
    return canonical_hash(
        [manifest["config"], manifest["prompts"]["sha256"], weights, *([taken] if any(taken) else [])]
    )


def _unit(store: RunDirectory, unit: dict[str, Any]) -> tuple[int, list[str]]:
    """Files checked and problems of one unit."""
    name = f"units/{unit['key']} ({unit['label']})"
    folder = store.unit(unit["key"])
    checked, problems = check_unit(folder, unit.get("record_sha256"))
    problems += token_problems(folder)
    return checked, [f"{name}: {problem}" for problem in problems]


def _strangers(store: RunDirectory, manifest: dict[str, Any]) -> list[str]:
    planned = {unit["key"] for unit in manifest["units"]} | set(manifest.get("earlier_units", []))
    folders = (store.path / "units").glob("[!.]*/")
    return [f"units/{folder.name}: not a unit of this run" for folder in sorted(folders) if folder.name not in planned]


def check_tables(path: Path, manifest: dict[str, Any]) -> tuple[int, list[TableProblem]]:
    """How many assembled tables were compared with the hashes in a manifest, and each problem."""
    recorded = manifest.get("tables") or {}
    if not recorded:
        why = "no hashes of the assembled tables; it was made before they were kept"
        return 0, [TableProblem("manifest.json", why, unknown=True)]
    problems = []
    for name in TABLES:
        file = path / name
        if name in recorded and not file.is_file():
            problems.append(TableProblem(name, "is missing"))
        elif name not in recorded and file.is_file():
            problems.append(TableProblem(name, "was not made by the run"))
        elif name in recorded and file_hash(file) != recorded[name]:
            problems.append(TableProblem(name, "was changed after it was written"))
    return len(recorded), problems


def _rows(store: RunDirectory, problems: list[str]) -> int:
    """Read the rows, add what is wrong with them to `problems`, and count them."""
    try:
        rows = store.read("rows")
    except UsageError as error:
        problems.append(str(error))
        return 0
    problems += schema_problems(rows)
    return len(rows)


def schema_problems(rows: pd.DataFrame) -> list[str]:
    """What a table of rows has that the schema does not allow.

    Args:
        rows: as read from disk.

    Returns:
        One line for each kind of violation.
    """
    if list(rows.columns) != list(COLUMNS):
        missing, more = set(COLUMNS) - set(rows.columns), set(rows.columns) - set(COLUMNS)
        return [f"rows: columns missing {sorted(missing)}, unknown {sorted(more)}, or in another order"]
    problems = []
    types = pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in COLUMNS.items()}).dtypes
    for name in COLUMNS:
        if rows[name].dtype.kind != types[name].kind:
            problems.append(f"rows: column {name!r} is {rows[name].dtype}, not {COLUMNS[name]}")
    if problems:  # numbers are looked at where they are numbers
        return problems
    value = rows["value"]
    both = value.isna() == rows["missing"].isna()
    if both.any():
        problems.append(f"rows: row {int(both.to_numpy().argmax())} must have either a value or a reason for none")
    for name in ("value", "low", "high", "prediction"):
        numbers = rows[name].astype("Float64").fillna(0.0).to_numpy(dtype=float)
        wrong = np.flatnonzero(~np.isfinite(numbers))
        if wrong.size:
            problems.append(f"rows: row {wrong[0]} has {name} {numbers[wrong[0]]}")
    return problems
