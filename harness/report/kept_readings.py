"""What a complete run says, kept in the cache folder: printed again, it costs no second reading of the rows.

An entry belongs to the rows, to the experiments that are known, to the sources of `harness` and `ccmc`, and to the
versions of the packages that compute what tables hold: where one of them is another, the run is read anew. Runs whose
experiments come from plugins, and runs that still grow, are read every time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple
from functools import lru_cache, partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core import registry
from harness.core.errors import HarnessError
from harness.core.hashing import file_hash
from harness.core.lazy import LazyRows
from harness.core.records import Answer, Cell, Column, Interval, Table
from harness.models.cache import cache_folder
from harness.runs.reading import Reading, read
from harness.runs.writing import write_atomic

if TYPE_CHECKING:
    from harness.runs.run import Run

ROWS = "rows.parquet"
PACKAGES = ("numpy", "pandas", "pyarrow", "scipy")
MOST = 64
"""Entries; the one that was used longest ago goes first."""
_NO_ENTRY = (OSError, ValueError, KeyError, TypeError, ImportError, HarnessError)
"""What a cache raises that is not there, cannot be written to, or is not what it was: then rows are read."""


def readings(run: Run) -> list[Reading]:
    """Answers and tables of a run, as `harness.runs.reading.read` makes them.

    Args:
        run: an opened run; one that is complete is looked up first.
    """
    name = _name(run)
    if name is None:
        return read(run.split)
    fresh = _Fresh(run)
    with suppress(*_NO_ENTRY):
        place = _folder() / name
        found = [_reading(fresh, one) for one in json.loads(place.read_text(encoding="utf-8"))]
        os.utime(place)
        return found
    return fresh.readings


def keep(run: Run, found: Sequence[Reading]) -> None:
    """Keep what was made of a run: its answers, and the tables whose rows were looked at.

    Nothing is kept where nothing or not everything could be made: the reason may be gone the next time.
    A cache that cannot be written to keeps nothing, in silence: only time is lost.
    """
    name = _name(run)
    if name is None or not found or any(one.problems for one in found):
        return
    with suppress(*_NO_ENTRY):
        text = json.dumps([_record(one) for one in found], default=_plain)
        folder = _folder()
        place = folder / name
        if place.is_file() and place.stat().st_size >= len(text.encode()):
            return  # it has as much already
        write_atomic(place, text.encode())
        entries = sorted(folder.glob("*.json"), key=lambda one: one.stat().st_mtime)
        for old in entries[:-MOST]:
            old.unlink(missing_ok=True)


class _Fresh:
    """What is not kept, made of the rows when it is wanted."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._found: list[Reading] | None = None

    @property
    def readings(self) -> list[Reading]:
        if self._found is None:
            self._found = read(self._run.split)
        return self._found

    def rows(self, kind: str, name: str) -> list[list[Cell]]:
        return next(
            [list(row) for row in table.rows]
            for one in self.readings
            if one.kind == kind
            for table in one.tables
            if table.name == name
        )


def _name(run: Run) -> str | None:
    """The file of an entry; None of a run that is read every time."""
    rows = run.path / ROWS
    if run.state != "complete" or not registry.only_own() or not rows.is_file():
        return None
    copies = (run.manifest.get("prompts") or {}).get("duplicates") or {}
    parts = [file_hash(rows), json.dumps(copies, sort_keys=True), *registry.experiments(), *_made_by()]
    return f"{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:32]}.json"


@lru_cache(maxsize=1)
def _made_by() -> tuple[str, ...]:
    """Versions of packages, and names, sizes and times of the sources."""
    stats = []
    for package in ("ccmc", "harness"):
        found = find_spec(package)  # found, not imported: that takes longer than all that is kept
        assert found is not None and found.origin is not None
        root = Path(found.origin).parent
        stats += [f"{path}:{info.st_size}:{info.st_mtime_ns}" for path, info in sorted(_sources(root))]
    return (*(f"{name} {metadata.version(name)}" for name in PACKAGES), *stats)


def _sources(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and entry.name != "__pycache__":
                yield from _sources(Path(entry.path))
            elif entry.name.endswith(".py"):
                yield entry.path, entry.stat()


def _folder() -> Path:
    folder = cache_folder() / "readings"
    folder.mkdir(exist_ok=True)
    return folder


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be kept")


def _record(one: Reading) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "problems": one.problems,
        "answers": [
            {**asdict(answer), "estimate": None if answer.estimate is None else astuple(answer.estimate)}
            for answer in one.answers
        ],
        "tables": [_table_record(table) for table in one.tables],
    }


def _table_record(table: Table) -> dict[str, Any]:
    lazy = isinstance(table.rows, LazyRows) and not table.rows.made
    return {
        "name": table.name,
        "title": table.title,
        "columns": [asdict(column) for column in table.columns],
        "rows": None if lazy else [[_cell(cell) for cell in row] for row in table.rows],
        "caption": table.caption,
        "headline": table.headline,
        "marked": sorted(table.marked),
        "mark": table.mark,
    }


def _cell(cell: Cell) -> Any:
    return {"interval": astuple(cell)} if isinstance(cell, Interval) else cell


def _reading(fresh: _Fresh, one: dict[str, Any]) -> Reading:
    answers = tuple(
        Answer(**{**answer, "estimate": None if answer["estimate"] is None else Interval(*answer["estimate"])})
        for answer in one["answers"]
    )
    tables = tuple(_table(fresh, one["kind"], table) for table in one["tables"])
    return Reading(one["kind"], answers, tables, tuple(one["problems"]))


def _table(fresh: _Fresh, kind: str, record: dict[str, Any]) -> Table:
    rows = record["rows"]
    lazy = LazyRows(partial(fresh.rows, kind, record["name"]))
    columns = [Column(**column) for column in record["columns"]]
    marked = frozenset((int(row), int(column)) for row, column in record["marked"])
    body = lazy if rows is None else [[_uncelled(cell) for cell in row] for row in rows]
    return Table(**{**record, "columns": columns, "rows": body, "marked": marked})


def _uncelled(cell: Any) -> Cell:
    return Interval(*cell["interval"]) if isinstance(cell, dict) else cell
