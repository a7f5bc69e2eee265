"""Run directories: made once, filled unit by unit, each unit in place as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from harness.core.errors import UsageError, one_line
from harness.core.hashing import file_hash
from harness.core.rows import SCHEMA_VERSION, to_schema

MANIFEST = "manifest.json"
NEEDED = (
    "name", "state", "config_hash", "config", "config_as_given", "seed", "prompts", "models", "git", "packages",
    "machine", "created", "units", "failures",
)  # fmt: skip
ATTENTION = "attention.parquet"  # what a unit of heads keeps of a text, to look at


def now() -> str:
    """The time as ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader or a crash sees the old content or the new, nothing between."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # noqa: PTH101 - mkstemp makes it private
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if os.name == "posix":
        _sync(path.parent)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet (zstd), without an index."""
    frame.to_parquet(path, index=False, compression="zstd")


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a table.

    Raises:
        UsageError: the file is no Parquet, or damaged.
    """
    try:
        return pd.read_parquet(path)
    except Exception as error:  # a damaged file can fail anywhere inside the reader: bits of its own notes are keys
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from None


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and vanishes otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        temporary.chmod(0o755)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # some libraries write private files
                _sync(file)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            shutil.rmtree(temporary)  # another process finished the same work first
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if os.name == "posix":
        _sync(target.parent)


class RunDirectory:
    """One run on disk: `manifest.json`, `units/<hash>/`, and the tables put together at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: FileLock | None = None

    @property
    def manifest_path(self) -> Path:
        return self.path / MANIFEST

    def unit(self, key: str) -> Path:
        """The folder of a unit; it exists once the unit is finished."""
        return self.path / "units" / key

    def finished(self, key: str) -> bool:
        """Is a unit stored as a whole?"""
        return (self.unit(key) / "rows.parquet").is_file()

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest, or None where the folder holds no run.

        Raises:
            UsageError: where it cannot be read or belongs to another version of the schema.
        """
        try:
            manifest = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.manifest_path}: not a readable manifest: {error}") from None
        if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
            version = manifest.get("schema_version") if isinstance(manifest, dict) else None
            raise UsageError(f"{self.manifest_path}: schema version {version}, this program reads {SCHEMA_VERSION}")
        if lacking := [key for key in NEEDED if key not in manifest]:
            raise UsageError(f"{self.manifest_path}: not the manifest of a run: without {', '.join(lacking)}")
        return manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomic(self.manifest_path, text.encode())

    def check_usable(self) -> None:
        """Refuse a place where no run can be, before anything is downloaded or computed. Writes nothing.

        Raises:
            UsageError: a file is in its place or above it, no permission, or a folder with other things in it.
        """
        for place in (self.path, *self.path.absolute().parents):
            if place.exists() or place.is_symlink():
                break
        if not place.is_dir():
            raise UsageError(f"--out {self.path}: {place} is a file; choose another folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise UsageError(f"--out {self.path}: {place} cannot be written to; choose another folder")
        if place == self.path and not self.manifest_path.is_file() and any(place.iterdir()):
            raise UsageError(f"--out {self.path}: the folder holds other things and no run; choose an empty or new one")

    def open(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Make the run, or continue the one that is there, and hold it until `close`. Returns the manifest in force.

        Raises:
            UsageError: where the folder holds a run of another config, other data or other weights, or where another
                process is working on it.
        """
        self.check_usable()
        old = self.read_manifest()
        if old is not None:
            if old["config_hash"] != manifest["config_hash"]:
                raise UsageError(f"{self.path} holds another run: {_difference(old, manifest)}; choose another --out")
            planned = [unit["key"] for unit in manifest["units"]]
            if old["state"] == "complete":
                if [unit["key"] for unit in old["units"]] != planned:
                    raise UsageError(f"{self.path} is complete and was made by other source code; choose another --out")
                return old
            manifest = {**manifest, "created": old["created"]}
        try:
            (self.path / "units").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {self.path}: cannot be made: {error.strerror}") from None
        self._lock = FileLock(self.path / "units" / ".lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise UsageError(f"{self.path}: another process is working on this run; wait for it") from None
        for leftover in (self.path / "units").glob(".*/"):
            shutil.rmtree(leftover, ignore_errors=True)  # of a killed process: never renamed into place
        self.write_manifest(manifest)
        return manifest

    def close(self) -> None:
        """Let other processes work on the run."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def assemble(self, keys: list[str]) -> dict[str, str]:
        """Put the rows and trajectories of finished units together, in the order of the plan.

        Returns:
            Name -> SHA-256 of each table that was written.
        """
        hashes = {}
        for name in ("rows.parquet", "trajectories.parquet"):
            files = [self.unit(key) / name for key in keys if (self.unit(key) / name).is_file()]
            frames = [frame for frame in (pd.read_parquet(file) for file in files) if len(frame)]
            if not frames:
                continue
            frame = pd.concat(frames, ignore_index=True)
            temporary = self.path / f".{name}"
            write_parquet(to_schema(frame) if name == "rows.parquet" else frame, temporary)
            _sync(temporary)
            temporary.replace(self.path / name)
            hashes[name] = file_hash(self.path / name)
        return hashes

    def read(self, name: str) -> pd.DataFrame:
        """A table of the run; of a run that is not complete, what its finished units hold.

        Raises:
            UsageError: a file cannot be read, or the rows of a complete run are not there.
        """
        whole = self.path / f"{name}.parquet"
        if whole.is_file():
            return read_parquet(whole)
        manifest = self.read_manifest() or {"units": [], "state": "running"}
        files = [self.unit(unit["key"]) / f"{name}.parquet" for unit in manifest["units"]]
        frames = [frame for frame in (read_parquet(file) for file in files if file.is_file()) if len(frame)]
        if frames:
            return pd.concat(frames, ignore_index=True)
        if name == "rows" and manifest["state"] == "complete":
            raise UsageError(f"{whole} is missing, and so are the units it was made of")
        return to_schema(pd.DataFrame()) if name == "rows" else pd.DataFrame()


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    changed = [key for key in new["config"] if old["config"].get(key) != new["config"][key]]
    if changed:
        return f"its config differs in {', '.join(changed)}"
    return "its prompts differ" if old["prompts"] != new["prompts"] else "its model weights differ"


def find_runs(root: Path) -> list[Path]:
    """Folders below `root` that hold a run, at most two levels down."""
    found = {p.parent for pattern in (MANIFEST, f"*/{MANIFEST}", f"*/*/{MANIFEST}") for p in root.glob(pattern)}
    return sorted(found)
