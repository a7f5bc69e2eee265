"""The cache of weights on this machine, and the hash of what a model's answers depend on."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from harness.core.errors import UsageError

RECORD = "ccmc-source.json"
"""The file that says where cached weights come from."""


def cache_folder() -> Path:
    """`CCMC_CACHE`, or the platform's cache folder.

    Raises:
        UsageError: where a file is in its place, or the folder cannot be made or written to.
    """
    given = os.environ.get("CCMC_CACHE")
    if given:
        path, origin = Path(given), "CCMC_CACHE"
    else:
        import platformdirs

        path, origin = Path(platformdirs.user_cache_dir("ccmc")), "cache"
    for place in (path, *path.absolute().parents):
        if place.exists():
            if not place.is_dir():
                raise UsageError(f"{origin} {path}: {place} is a file; set CCMC_CACHE to a folder")
            if not os.access(place, os.W_OK | os.X_OK):
                raise UsageError(f"{origin} {path}: {place} cannot be written to; set CCMC_CACHE to another folder")
            break
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{origin} {path}: cannot be made: {error.strerror}; set CCMC_CACHE to another folder"
        ) from None
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_HASHED = re.compile(
    r"\.(safetensors|gguf|bin|json|model|jinja|tiktoken|spm|bpe|codes|vocab)$|^(vocab|merges|tokenizer).*\.txt$"
)


def folder_hash(folder: Path) -> str:
    """SHA-256 over what a model's answers depend on: weights, config, tokenizer; names and contents."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and _HASHED.search(file.name) and file.name != RECORD:
            digest.update(f"{file.relative_to(folder).as_posix()}\0{file_sha256(file)}\0".encode())
    return digest.hexdigest()


def recorded_hash(folder: Path) -> str | None:
    """The hash that the cache recorded for a folder; None where its record is missing or damaged."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    value = found.get("hash") if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


def folder_size(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
