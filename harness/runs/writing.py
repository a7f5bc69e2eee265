"""Durable writing: a file or a folder is in place as a whole or not at all, on every platform and file system."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from harness.core.errors import StorageError, UsageError, one_line
from harness.runs.writer import temporary_prefix

ATTENTION = "attention.parquet"  # what a unit of heads keeps of a text, to look at

_FAULTS = {
    "ENOSPC": "no space is left on the disk",
    "EDQUOT": "the disk quota is used up",
    "EROFS": "the file system is read-only",
    "EIO": "the disk reports an input/output error",
    "EFBIG": "a file would be larger than this disk or process allows",
    "ESTALE": "the network file system lost the folder",
    "ENODEV": "the disk is gone",
    "ENXIO": "the disk is gone",
}
FAULTS = {getattr(errno, name): words for name, words in _FAULTS.items() if hasattr(errno, name)}
"""Errors that say that a disk cannot be written to, whatever is written."""
_TEXTS = {
    "no space left on device": "ENOSPC",
    "not enough space on the disk": "ENOSPC",
    "disk quota exceeded": "EDQUOT",
    "read-only file system": "EROFS",
    "input/output error": "EIO",
    "file too large": "EFBIG",
    "stale file handle": "ESTALE",
}
"""How libraries that keep no error number say the same."""
_CANNOT_SYNC = {getattr(errno, name) for name in ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS") if hasattr(errno, name)}
_NO_LONGER = (FileNotFoundError, NotADirectoryError, PermissionError)
_GO_ON = "make room or choose another place, then start the same command again"


def now() -> str:
    """The time as ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def later(than: str) -> str:
    """The time now, or `than` where the clock was set back since: no end lies before its start."""
    return max(now(), than)


def storage_fault(error: BaseException | None) -> str | None:
    """What is wrong with a disk, in words, where an error says that it cannot be written to or read; else None.

    Args:
        error: of any library: recognised by its number, or by its text; so are the errors that it was raised from.
    """
    for _ in range(10):
        if error is None:
            return None
        if isinstance(error, OSError) and error.errno in FAULTS:
            return FAULTS[error.errno]
        if not isinstance(error, UsageError):
            text = str(error).lower()
            for said, name in _TEXTS.items():
                if said in text:
                    return _FAULTS[name]
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Say in one line where `path` could not be written since the disk is full, read-only or broken, or it is gone.

    Raises:
        StorageError: in the place of the error of the system or of a library.
    """
    try:
        yield
    except (StorageError, UsageError):
        raise
    except Exception as error:
        fault = storage_fault(error)
        if fault is None and isinstance(error, _NO_LONGER) and _is_of(error, path):
            gone = not path.parent.exists()
            fault = "the folder was removed" if gone else f"it can no longer be written to ({error.strerror})"
        if fault is None:
            raise
        raise StorageError(f"{path}: {fault}; {_GO_ON}") from error


def _is_of(error: OSError, path: Path) -> bool:
    """Is an error about a file beside or below `path`?"""
    named = [Path(name) for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return any(name.absolute().is_relative_to(path.absolute().parent) for name in named)


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:  # some file systems have no such thing
            raise


def sync_file(path: Path) -> None:
    """Have a file's content on the disk. It is opened for writing: Windows syncs nothing else."""
    binary = getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, os.O_RDWR | binary)
    except PermissionError:
        descriptor = os.open(path, os.O_RDONLY | binary)
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk, where folders can be synced; Windows and some file systems cannot."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in FAULTS:
            raise
    finally:
        os.close(descriptor)


def _replace(source: Path, target: Path) -> None:
    """Rename over a file; Windows refuses that while somebody reads the old one, for a moment."""
    for pause in (0.02, 0.1, 0.5) if os.name == "nt" else ():
        with suppress(PermissionError):
            source.replace(target)
            return
        time.sleep(pause)
    source.replace(target)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader or a crash sees the old content or the new, nothing between.

    A link is followed; what is no ordinary file, such as /dev/null, is written to and not replaced.

    Raises:
        StorageError: the disk is full, read-only or broken; the old content is still there.
    """
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(data)
        return
    with storing(path):
        _write_atomic(path, data)


def _write_atomic(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=temporary_prefix(path.name))
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            _fsync(file.fileno())
        _make_readable(temporary, 0o644)  # mkstemp makes it private
        _replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _make_readable(path: Path, mode: int) -> None:
    with suppress(OSError):  # not every file system has modes
        path.chmod(mode)


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet (zstd), without an index."""
    frame.to_parquet(path, index=False, compression="zstd")


def read_parquet(path: Path, coded: bool = False) -> pd.DataFrame:
    """Read a table.

    Args:
        path: the file.
        coded: texts as categories, as Parquet stores them: each is read once, which takes a third of the time.

    Raises:
        UsageError: the file is no Parquet, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not coded:
            return pd.read_parquet(path)
        texts = [field.name for field in pq.read_schema(path) if field.type in {pa.string(), pa.large_string()}]
        return pd.read_parquet(path, read_dictionary=texts)
    except (OSError, ValueError, NotImplementedError, KeyError) as error:  # pyarrow's errors are ValueErrors
        raise UsageError(f"{path} cannot be read: {one_line(error)}") from None


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and vanishes otherwise.

    Its name says which process writes it, so that others leave it alone while that process lives.

    Raises:
        StorageError: the disk is full, read-only or broken, or the folder was removed meanwhile.
    """
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=temporary_prefix(target.name)))
        try:
            _make_readable(temporary, 0o755)
            yield temporary
            _settle(temporary)
            try:
                temporary.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                shutil.rmtree(temporary)  # another process finished the same work first
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(target.parent)


def _settle(folder: Path) -> None:
    """Have everything in a folder readable and on the disk."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            _make_readable(path, 0o644)  # some libraries write private files
            sync_file(path)
