"""Run directories: made once, filled unit by unit, each unit in place as a whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from harness.core.errors import UsageError
from harness.core.hashing import file_hash
from harness.core.rows import SCHEMA_VERSION, completed, to_schema
from harness.runs import writer
from harness.runs.owner import OWNER, Ownership, take
from harness.runs.records import CHECKSUM, DamagedManifestError, Manifest, checksum, parsed
from harness.runs.writing import read_parquet, storing, sync_file, write_atomic, write_parquet

MANIFEST = "manifest.json"
DAMAGED = "damaged"
"""The folder of a run with what was found damaged in it."""
LONGEST = 200
"""Signs of a path in a message."""
_OWN = {OWNER, MANIFEST, DAMAGED, "errors"}
_UNIT = re.compile(r"[0-9a-f]{20}|\..*")


class RunDirectory:
    """One run on disk: `manifest.json`, `units/<hash>/`, and the tables put together at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        """What was found and done when the run was opened, a line each."""
        self._owner: Ownership | None = None

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
            DamagedManifestError: it cannot be read, or does not say what a manifest says.
            UsageError: it belongs to another version of the schema, or the path cannot be one.
        """
        try:
            if not self.manifest_path.is_file():
                return None
            content = self.manifest_path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"{self.path}: not a readable run: {reason}") from None
        version = _version_of(content)
        if version is not None and version != SCHEMA_VERSION:
            raise UsageError(f"{self.manifest_path}: schema version {version}, this program reads {SCHEMA_VERSION}")
        try:
            return parsed(content, Manifest)
        except json.JSONDecodeError as error:
            raise DamagedManifestError(f"{self.manifest_path}: not a readable manifest: {error}") from None
        except ValueError as error:
            raise DamagedManifestError(f"{self.manifest_path}: not the manifest of a run: {error}") from None

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, with a hash of its content.

        Raises:
            StorageError: the disk cannot be written to, or another process took the run over.
        """
        self.check_owner()
        content = {**manifest, CHECKSUM: checksum(manifest)}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomic(self.manifest_path, text.encode())

    def check_usable(self) -> None:
        """Refuse a place where no run can be, before anything is downloaded or computed. Writes nothing.

        Raises:
            UsageError: a file is in its place or above it, no permission, or a folder with other things in it.
        """
        name = str(self.path)
        wrong = f"--out {name if len(name) <= LONGEST else f'{name[:LONGEST]}...'}"
        if "\0" in name:
            raise UsageError(f"--out {name!r}: no folder has this sign in its name; choose another one")
        try:
            str(self.path.absolute()).encode()
        except UnicodeEncodeError:
            raise UsageError(f"--out {name!r}: its name is no text in UTF-8; choose another folder") from None
        try:
            place = next(p for p in (self.path, *self.path.absolute().parents) if p.exists() or p.is_symlink())
            if not place.is_dir():
                what = "is a link that leads nowhere" if place.is_symlink() and not place.exists() else "is a file"
                raise UsageError(f"{wrong}: {place} {what}; choose another folder")
            if not os.access(place, os.W_OK | os.X_OK):
                raise UsageError(f"{wrong}: {place} cannot be written to; choose another folder")
            if place == self.path and not self.manifest_path.is_file() and not self._only_ours():
                raise UsageError(f"{wrong}: the folder holds other things and no run; choose an empty or new one")
            for part in self.path.absolute().relative_to(place.absolute()).parts:
                (place / part).exists()  # a name that this file system does not take
        except OSError as error:
            raise UsageError(f"{wrong}: cannot be a folder: {error.strerror}; choose another one") from None

    def _only_ours(self) -> bool:
        """Does a folder without a manifest hold nothing but what a session that was killed leaves?"""
        for entry in self.path.iterdir():
            if entry.name == "units":
                if not all(_UNIT.fullmatch(unit.name) for unit in entry.iterdir()):
                    return False
            elif entry.name not in _OWN and writer.tag_in(entry.name) is None:
                return False
        return True

    def hold(self) -> None:
        """Own the run until `close`, and remove what dead processes left unfinished.

        Raises:
            UsageError: another process works on it, or the folder cannot be made.
            StorageError: the disk is full or read-only.
        """
        with storing(self.path / "units"):
            try:
                (self.path / "units").mkdir(parents=True, exist_ok=True)
            except (PermissionError, FileExistsError, NotADirectoryError, FileNotFoundError) as error:
                raise UsageError(f"--out {self.path}: cannot be made: {error.strerror}") from None
        try:
            self._owner, note = take(self.path)
        except PermissionError as error:
            raise UsageError(f"--out {self.path}: cannot be written to: {error.strerror}") from None
        if note is not None:
            self.notes.append(note)
        self._sweep()

    def check_owner(self) -> None:
        """Refuse to write into a run that another process took over.

        Raises:
            StorageError: it did.
        """
        if self._owner is not None:
            self._owner.check()

    def _sweep(self) -> None:
        """Remove what dead processes of this host left; what others write is theirs."""
        left = 0
        for entry in [*self.path.iterdir(), *(self.path / "units").iterdir()]:
            tag = writer.tag_in(entry.name)
            state = writer.state_of(tag) if tag is not None else "alive"
            if state == "dead":
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    with suppress(OSError):
                        entry.unlink()
            left += state == "elsewhere"
        if left:
            self.notes.append(
                f"{left} unfinished folders or files in {self.path} were written on other hosts and are left alone; "
                "remove those with .tmp- in their names when no process there works on this run"
            )

    def close(self) -> None:
        """Let other processes work on the run."""
        if self._owner is not None:
            self._owner.release()
            self._owner = None

    def set_aside(self, path: Path) -> Path:
        """Move something damaged into the folder for it, and return where it is now."""
        folder = self.path / DAMAGED
        with storing(folder / path.name):
            folder.mkdir(exist_ok=True)
            names = (f"{path.name}-{number}" for number in range(1, 100_000))
            target = next(folder / name for name in names if not os.path.lexists(folder / name))
            path.rename(target)
        return target

    def assemble(self, keys: list[str]) -> dict[str, str]:
        """Put the rows and trajectories of finished units together, in the order of the plan.

        Returns:
            Name -> SHA-256 of each table that was written.

        Raises:
            StorageError: the disk cannot be written to.
        """
        hashes = {}
        for name in ("rows.parquet", "trajectories.parquet"):
            files = [self.unit(key) / name for key in keys if (self.unit(key) / name).is_file()]
            frames = [frame for frame in (read_parquet(file) for file in files) if len(frame)]
            if not frames:
                continue
            frame = pd.concat(frames, ignore_index=True)
            self.check_owner()
            temporary = self.path / f"{writer.temporary_prefix(name)}table"
            with storing(self.path / name):
                try:
                    write_parquet(to_schema(frame) if name == "rows.parquet" else frame, temporary)
                    sync_file(temporary)
                    hashes[name] = file_hash(temporary)
                    temporary.replace(self.path / name)
                except BaseException:
                    with suppress(OSError):
                        temporary.unlink(missing_ok=True)
                    raise
        return hashes

    def read(self, name: str, coded: bool = False) -> pd.DataFrame:
        """A table of the run; of a run that is not complete, what its finished units hold.

        Rows of older runs get the columns that they lack, without values.

        Args:
            name: `rows` or `trajectories`.
            coded: of a complete run, texts as categories, which are read faster.

        Raises:
            UsageError: a file cannot be read, or the rows of a complete run are not there.
        """
        found = self._stored(name, coded)
        return completed(found) if name == "rows" else found

    def _stored(self, name: str, coded: bool) -> pd.DataFrame:
        """The same, as it is on disk."""
        whole = self.path / f"{name}.parquet"
        manifest = self.read_manifest() or {"units": [], "state": "running"}
        if whole.is_file() and (manifest["state"] == "complete" or not manifest["units"]):
            return read_parquet(whole, coded)
        files = [self.unit(unit["key"]) / f"{name}.parquet" for unit in manifest["units"]]
        frames = [frame for frame in (read_parquet(file) for file in files if file.is_file()) if len(frame)]
        if frames:
            return pd.concat(frames, ignore_index=True)
        if name == "rows" and manifest["state"] == "complete":
            raise UsageError(f"{whole} is missing, and so are the units it was made of")
        return to_schema(pd.DataFrame()) if name == "rows" else pd.DataFrame()


def _version_of(content: bytes) -> Any:
    """The schema version that a manifest names, where it names one."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    version = found.get("schema_version") if isinstance(found, dict) else None
    return version if isinstance(version, int | float | str) and not isinstance(version, bool) else None


def find_runs(root: Path) -> list[Path]:
    """Folders below `root` that hold a run, at most two levels down."""
    found = {p.parent for pattern in (MANIFEST, f"*/{MANIFEST}", f"*/*/{MANIFEST}") for p in root.glob(pattern)}
    return sorted(found)
