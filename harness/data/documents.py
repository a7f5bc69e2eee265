"""Texts that people wrote, from a dataset: a hub id, or a local text, JSON or Parquet file."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import UsageError, one_line
from harness.data import hub

if TYPE_CHECKING:
    from harness.config.texts import Dataset

PATIENCE = 1_000  # rows that are looked at for each text that is wanted
LOCAL_FORMATS = {".txt": "text", ".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def read_rows(
    spec: Dataset, base: Path, where: str, columns: tuple[str, ...], **options: Any
) -> Generator[dict[str, Any]]:
    """The rows of a dataset, one after the other.

    Args:
        spec: which dataset.
        base: the folder that a relative path counts from; the current folder is looked at next.
        where: the key of the config, for messages.
        columns: that must be there.
        options: for the reader of local text files.

    Raises:
        UsageError: a dataset that is not there or cannot be read, an unknown ending, a missing column.
    """
    hub.no_retries_told()
    what = f"{where}: dataset {spec.dataset!r}"
    local = _local_file(spec, base, where)
    try:
        rows = iter(_table(spec, local, options))
        first = next(rows, None)
    except Exception as error:  # the library raises a dozen kinds for a name that leads nowhere
        if local is not None and _holds_no_rows(error):
            first = None
        else:
            raise UsageError(f"{what} cannot be loaded: {_root(error)}") from None
    if first is None:
        raise UsageError(f"{what}, split {spec.split!r}, is empty")
    for column in columns:
        if column not in first:
            raise UsageError(f"{what} has no column {column!r}; it has {sorted(first)}")
    yield first
    try:
        yield from rows
    except Exception as error:  # streamed: a fault further down shows while it is read
        raise UsageError(f"{what} cannot be read to its end: {_root(error)}") from None


def _local_file(spec: Dataset, base: Path, where: str) -> Path | None:
    """The file that a dataset names; None where it is one of the hub.

    Raises:
        UsageError: no such file, an unknown ending, an empty file, or a part of a split that should be streamed.
    """
    what = f"{where}: dataset {spec.dataset!r}"
    local = next((p for p in (base / spec.dataset, Path(spec.dataset)) if p.is_file()), None)
    ending = Path(spec.dataset).suffix.lower()
    if local is None and (ending in LOCAL_FORMATS or spec.dataset.count("/") > 1):
        raise UsageError(
            f"{where}: {spec.dataset!r}: no such file (looked beside the config and in the current folder)"
        )
    if "[" in spec.split and spec.streaming:
        raise UsageError(f"{what}, split {spec.split!r}: a part of a split cannot be streamed; add streaming: false")
    if local is not None and ending not in LOCAL_FORMATS:
        raise UsageError(f"{where}: {spec.dataset}: unknown ending {ending!r}; use {', '.join(LOCAL_FORMATS)}")
    if local is not None and local.stat().st_size < 64 and not local.read_bytes().strip():
        raise UsageError(f"{what} is empty")
    return local


def _table(spec: Dataset, local: Path | None, options: dict[str, Any]) -> Any:
    """The rows of a dataset as `datasets` gives them; `options` are for local text files."""
    import datasets

    datasets.utils.logging.disable_progress_bar()
    if local is None:
        return datasets.load_dataset(spec.dataset, spec.subset, split=spec.split, streaming=spec.streaming)
    form, split = LOCAL_FORMATS[local.suffix.lower()], spec.split.partition("[")[0]
    files, more = {split: str(local)}, options if form == "text" else {}
    return datasets.load_dataset(form, data_files=files, split=spec.split, streaming=spec.streaming, **more)


def _root(error: BaseException) -> str:
    """What an error comes from: the library says of many that "an error occurred" and keeps the reason below."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)[:200]


def _holds_no_rows(error: Exception) -> bool:
    """Is this how the library says that a table has columns and nothing in them?"""
    return any(text in _root(error) for text in ("corresponds to no data", "BatchSize must be greater than 0"))


def read_documents(spec: Dataset, base: Path, where: str, most: int, sample_by: str) -> list[tuple[str, str]]:
    """The first texts of a dataset that are not empty.

    Args:
        spec, base, where: as for `read_rows`.
        most: how many.
        sample_by: what a text is in a text file: line, paragraph or document.

    Returns:
        (id, text): the number of the row, or the value of its column `id`.

    Raises:
        UsageError: as `read_rows`; a text that is none; nothing but empty texts.
    """
    found = []
    with closing(read_rows(spec, base, where, (spec.column,), sample_by=sample_by)) as rows:
        for index, row in islice(enumerate(rows), PATIENCE * most):
            text = row[spec.column]
            if text is not None and not isinstance(text, str):
                what = f"row {index}: {spec.column!r} holds {type(text).__name__}, no text"
                raise UsageError(f"{where}: dataset {spec.dataset!r}, {what}")
            if text and text.strip():
                name = row.get("id")
                found.append((str(index if name is None else name), text))
                if len(found) == most:
                    break
    if not found:
        raise UsageError(f"{where}: dataset {spec.dataset!r}: every {spec.column!r} is empty")
    return found
