"""What was made of complete runs, kept in the cache folder by everything that it depends on.

An entry belongs to the rows, to the experiments that are known, to the sources of `harness` and `ccmc`, and to the
versions of the packages that compute it: where one of them is another, it is made anew. Of runs whose experiments come
from plugins, and of runs that still grow, nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core import registry
from harness.core.errors import HarnessError
from harness.core.hashing import file_hash
from harness.models.cache import cache_folder
from harness.runs.writing import write_atomic

if TYPE_CHECKING:
    from harness.runs.run import Run

ROWS = "rows.parquet"
PACKAGES = ("numpy", "pandas", "pyarrow", "scipy", "matplotlib")
MOST = 128
"""Entries; the one that was used longest ago goes first."""
NO_ENTRY = (OSError, ValueError, KeyError, TypeError, ImportError, HarnessError)
"""What a cache raises that is not there, cannot be written to, or is not what it was: then it is all made anew."""


def name_of(run: Run, *more: str) -> str | None:
    """The file of an entry.

    Args:
        run: what is kept was made of it.
        more: what else tells entries of a run apart.

    Returns:
        Its name; None of a run of which nothing is kept.
    """
    rows = run.path / ROWS
    if run.state != "complete" or not registry.only_own() or not rows.is_file():
        return None
    copies = (run.manifest.get("prompts") or {}).get("duplicates") or {}
    parts = [file_hash(rows), json.dumps(copies, sort_keys=True), *registry.experiments(), *made_by(), *more]
    return f"{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:32]}.json"


@lru_cache(maxsize=1)
def made_by() -> tuple[str, ...]:
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


def look_up(name: str) -> Any:
    """What an entry holds.

    Raises:
        one of NO_ENTRY: there is none, or it cannot be read.
    """
    place = _folder() / name
    found = json.loads(place.read_text(encoding="utf-8"))
    os.utime(place)
    return found


def store(name: str, content: Sequence[Any]) -> None:
    """Keep an entry, unless there is one that holds as much already.

    A cache that cannot be written to keeps nothing, in silence: only time is lost.
    """
    with suppress(*NO_ENTRY):
        text = json.dumps(content, default=_plain)
        folder = _folder()
        place = folder / name
        if place.is_file() and place.stat().st_size >= len(text.encode()):
            return
        write_atomic(place, text.encode())
        entries = sorted(folder.glob("*.json"), key=lambda one: one.stat().st_mtime)
        for old in entries[:-MOST]:
            old.unlink(missing_ok=True)


def _folder() -> Path:
    folder = cache_folder() / "readings"
    folder.mkdir(exist_ok=True)
    return folder


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be kept")
