"""Units and weights in a folder that all nodes of a cluster reach by a URL, where they share no disk.

Everything there is named by what it holds: a unit by its key, weights by their hash. So nothing is ever changed, two
runs may use one folder, and what is there already need not be done or sent again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError, one_line
from harness.core.hashing import file_hash
from harness.core.leaving import half_made
from harness.runs.directory import RunDirectory
from harness.runs.writing import new_folder

_LIST = "files.json"
"""Written last: a folder without it is not whole."""


class Storage:
    """Folders below a URL such as s3://bucket/run or file:///mnt/run.

    Args:
        url: of any file system that fsspec knows.

    Raises:
        UsageError: an unknown kind of URL, one whose package is missing, or one that ends with this process.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec

            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"--storage {url!r}: {one_line(error)[:200]}") from None
        if url.startswith("memory:"):
            raise UsageError(f"--storage {url!r} lives in one process, which workers do not reach; give a folder's URL")
        self._root = root.rstrip("/")

    def has(self, name: str) -> bool:
        """Is a folder there as a whole?"""
        return bool(self._files.exists(f"{self._root}/{name}/{_LIST}"))

    def put(self, folder: Path, name: str) -> None:
        """Send a folder, unless it is there.

        Args:
            folder: with files, also in folders below it.
            name: such as units/KEY.
        """
        if self.has(name):
            return
        target = f"{self._root}/{name}"
        listed = {}
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            inner = file.relative_to(folder).as_posix()
            listed[inner] = file_hash(file)
            self._files.makedirs(f"{target}/{inner}".rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(file), f"{target}/{inner}")
        self._files.pipe_file(f"{target}/{_LIST}", json.dumps(listed).encode())

    def get(self, name: str, target: Path) -> None:
        """Fetch a folder; `target` appears as a whole, with files whose hashes are right, or not at all.

        Raises:
            UsageError: a file there is damaged.
        """
        listed: dict[str, str] = json.loads(self._files.cat_file(f"{self._root}/{name}/{_LIST}"))
        with new_folder(target) as folder, half_made(folder):
            for inner, wanted in listed.items():
                file = folder / inner
                if not file.resolve().is_relative_to(folder.resolve()):
                    raise UsageError(f"{self._root}/{name}: its list names {inner!r}, outside of the folder; remove it")
                file.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(f"{self._root}/{name}/{inner}", str(file))
                if file_hash(file) != wanted:
                    raise UsageError(f"{self._root}/{name}/{inner} is damaged; remove {self._root}/{name}")


def unit_name(key: str) -> str:
    """The name of a unit's folder."""
    return f"units/{key}"


def weights_name(settings: Mapping[str, Any]) -> str | None:
    """The name of the folder of a unit's model; None where it has none."""
    return f"weights/{settings['weights']}" if "weights" in settings else None


def local_here(storage: Storage, settings: Mapping[str, Any], local: Mapping[str, Any]) -> dict[str, Any]:
    """What a unit needs on this machine: its model's folder is fetched where it is not on this node's disk.

    Args:
        storage: where the driver put the weights.
        settings, local: of the unit.
    """
    name = weights_name(settings)
    if name is None or "path" not in local or Path(local["path"]).is_dir():
        return dict(local)
    kept = Path(tempfile.gettempdir()) / "ccmc-harness" / name
    if not kept.is_dir():
        storage.get(name, kept)
    return {**local, "path": str(kept)}


def scratch() -> Path:
    """A folder for one unit on a node."""
    return Path(tempfile.mkdtemp(prefix="ccmc-unit-"))


def bring(storage: Storage, store: RunDirectory, keys: list[str]) -> None:
    """Fetch units that a unit needs."""
    for key in keys:
        storage.get(unit_name(key), store.unit(key))


def discard(folder: Path) -> None:
    """Remove a folder of `scratch`."""
    shutil.rmtree(folder, ignore_errors=True)
