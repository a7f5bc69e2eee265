"""Stored units: what they record, and whether they are as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.errors import one_line
from harness.core.hashing import file_hash, folder_hashes
from harness.runs.records import UnitRecord, parsed
from harness.runs.units import key_of

RECORD = "unit.json"


def read_record(folder: Path) -> dict[str, Any]:
    """What a stored unit was made of.

    Raises:
        ValueError: there is no readable record; in words.
    """
    try:
        content = (folder / RECORD).read_bytes()
    except OSError as error:
        raise ValueError(f"{RECORD} cannot be read: {error.strerror}") from None
    try:
        return parsed(content, UnitRecord)
    except ValueError as error:
        if str(error).startswith("without ") and "files" in str(error).removeprefix("without ").split(", "):
            raise ValueError("no hashes recorded; it was made before they were kept") from None
        raise ValueError(f"{RECORD} cannot be read: {one_line(error)}") from None


def recorded_key(record: dict[str, Any]) -> str:
    """The key that belongs to what a record says."""
    task, settings, needs, source = (record[name] for name in ("task", "settings", "needs", "source"))
    return key_of(task, settings, needs, source, record.get("versions"), record.get("threads", 1))


def check_unit(folder: Path, wanted: str | None = None) -> tuple[int, list[str]]:
    """Compare a stored unit with its record, and the record with the unit's key.

    Args:
        folder: of the unit; its name is the key.
        wanted: SHA-256 of the record, where the manifest has it.

    Returns:
        How many files were compared, and what is wrong, a line each.
    """
    if not folder.is_dir():
        return 0, ["missing"]
    try:
        record = read_record(folder)
    except ValueError as error:
        return 0, [str(error)]
    problems = []
    if wanted is not None and file_hash(folder / RECORD) != wanted:
        problems.append(f"{RECORD} is not the one that the manifest records")
    if (key := recorded_key(record)) != folder.name:
        problems.append(f"its settings belong to unit {key}")
    if record["key"] != folder.name:
        problems.append(f"{RECORD} is of unit {record['key']}")
    try:
        present = folder_hashes(folder, without=(RECORD,))
    except OSError as error:
        return 0, [*problems, f"cannot be read: {one_line(error)}"]
    recorded = record["files"]
    if "rows.parquet" not in recorded:
        problems.append(f"{RECORD} records no rows.parquet")
    for file in sorted(recorded.keys() | present.keys()):
        if file not in present:
            problems.append(f"{file} is missing")
        elif file not in recorded:
            problems.append(f"{file} was not made by the unit")
        elif present[file] != recorded[file]:
            problems.append(f"{file} was changed after it was written")
    return len(present), problems
