"""Texts from a dataset: a hub id, or a local text, JSON, CSV or Parquet file. What a cell holds is never guessed."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.inline import check_name
from harness.config.reading import is_file, joined
from harness.core.errors import UsageError, one_line
from harness.data import hub, network
from harness.data.tables import Rows, TableError, check_type, kind_of, names, rows_of

if TYPE_CHECKING:
    from harness.config.texts import Dataset

PATIENCE = 1_000  # rows that are looked at for each text that is wanted
LOCAL_FORMATS = (".txt", ".json", ".jsonl", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dataset."""

    id: str
    """The value of its column `id`, or the number of the row where there is none or all of it is null."""
    kind: str
    text: str
    """Empty where the dataset holds null."""


def read_rows(
    spec: Dataset, base: Path, where: str, kind_column: str | None = None, sample_by: str = "line"
) -> Generator[Row]:
    """The rows of a dataset, one after the other.

    Args:
        spec: which dataset.
        base: the folder that a relative path counts from; the current folder is looked at next.
        where: the key of the config, for messages.
        kind_column: the column that holds the kind of a text; without one every kind is "text".
        sample_by: what a text is in a .txt file.

    Raises:
        UsageError: a dataset that is not there or cannot be read, an unknown ending, a missing column, a column or
            cell that holds something else than a text. Names the column, and the line or row.
    """
    what = f"{where}: dataset {spec.dataset!r}"
    columns = (spec.column, *([kind_column] if kind_column else []))
    local = _local_file(spec, base, where)
    rows = _hub_rows(spec, columns, what) if local is None else _local_rows(spec, local, columns, sample_by, what)
    try:
        with closing(rows):
            first = next(rows, None)
            if first is None:
                raise UsageError(f"{what}, split {spec.split!r}, is empty")
            nameless = first[0] if first[1].get("id", "") is None else None
            for index, (place, row) in enumerate(chain([first], rows)):
                if nameless and row.get("id") is not None:
                    raise TableError(f"{nameless}: 'id' holds null, and not so at {place}")
                own = {key: value for key, value in row.items() if key != "id"} if nameless else row
                yield _row(own, index, place, spec.column, kind_column)
    except TableError as error:
        raise UsageError(f"{what}{'' if str(error).startswith(('has', 'cannot', 'is ')) else ':'} {error}") from None
    except OSError as error:
        raise UsageError(f"{what} cannot be loaded: {error.strerror or one_line(error)[:200]}") from None


def _row(row: dict[str, Any], index: int, place: str, column: str, kind_column: str | None) -> Row:
    """Check one row, and take from it what is wanted."""
    for name in (column, kind_column):
        if name is not None and name not in row:
            raise TableError(f"has no column {name!r}; it has {names(list(row))} (seen at {place})")
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise TableError(f"{place}: {column!r} holds {kind_of(text)}, no text")
    own = _name(row["id"], "id", place) if "id" in row else str(index)
    kind = "text" if kind_column is None else _name(row[kind_column], kind_column, place)
    try:
        return Row(own, kind, joined(text or ""))
    except ValueError as error:
        raise TableError(f"{place}: {column!r}: {error}") from None


def _name(value: Any, column: str, place: str) -> str:
    """An id or kind as a text: a text as it is, a whole number as its decimal digits.

    Raises:
        TableError: it is something else, empty, or cannot stand on a line.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        shown = f" ({value!r})" if isinstance(value, bool | float) else ""
        raise TableError(f"{place}: {column!r} holds {kind_of(value)}{shown}; a text or a whole number is needed")
    try:
        return check_name(joined(value)) if isinstance(value, str) else check_name(str(value))
    except ValueError as error:
        raise TableError(f"{place}: {column!r}: {error}") from None


def _local_file(spec: Dataset, base: Path, where: str) -> Path | None:
    """The file that a dataset names; None where it is one of the hub.

    Raises:
        UsageError: no such file, a folder, an unknown ending, an empty file, or a part of a split that should be
            streamed.
    """
    what = f"{where}: dataset {spec.dataset[:200]!r}"
    places = (base / spec.dataset, Path(spec.dataset))
    local = next((path for path in places if is_file(path)), None)
    ending = Path(spec.dataset).suffix.lower()
    if local is None and (ending in LOCAL_FORMATS or spec.dataset.count("/") > 1 or len(spec.dataset) > 200):
        raise UsageError(
            f"{where}: {spec.dataset[:200]!r}: no such file (looked beside the config and in the current folder)"
        )
    if local is None and any(path.is_dir() for path in places):
        raise UsageError(f"{what} is a folder; name a file in it: {', '.join(LOCAL_FORMATS)}")
    if "[" in spec.split and spec.streaming:
        raise UsageError(f"{what}, split {spec.split!r}: a part of a split cannot be streamed; add streaming: false")
    if local is not None and ending not in LOCAL_FORMATS:
        raise UsageError(f"{where}: {spec.dataset}: unknown ending {ending!r}; use {', '.join(LOCAL_FORMATS)}")
    if local is not None and local.stat().st_size < 64 and not local.read_bytes().strip(b"\xef\xbb\xbf \t\r\n"):
        raise UsageError(f"{what} is empty")
    return local


def _local_rows(spec: Dataset, path: Path, columns: tuple[str, ...], sample_by: str, what: str) -> Rows:
    """The rows of a file, or those that a split such as `train[:100]` takes of it.

    Raises:
        UsageError: no such part.
    """
    rows = rows_of(path, columns, sample_by)
    if "[" not in spec.split and "+" not in spec.split:
        yield from rows
        return
    from datasets import ReadInstruction

    every = list(rows)
    name = spec.split.partition("[")[0]
    try:
        parts = ReadInstruction.from_spec(spec.split).to_absolute({name: len(every)})
    except (ValueError, AssertionError, TypeError) as error:
        raise UsageError(f"{what}, split {spec.split[:80]!r} cannot be taken: {one_line(error)[:160]}") from None
    for part in parts:
        yield from every[part.from_ : part.to]


def _hub_rows(spec: Dataset, columns: tuple[str, ...], what: str) -> Rows:
    """The rows of a dataset of the hub, as its features say.

    Raises:
        UsageError: the hub does not give it.
        TableError: a column is not there, or holds no texts.
    """
    hub.no_retries_told()
    try:
        network.bound_hub()
        network.check_hub()
        table = hub_table(spec)
        features = table.features or {}
        rows = iter(table)
        first = next(rows, None)
    except Exception as error:  # the library raises a dozen kinds for a name that leads nowhere
        raise UsageError(f"{what} cannot be loaded: {_root(error)}") from None
    if first is None:
        return
    for column in columns:
        if column not in (features or first):
            raise TableError(f"has no column {column!r}; it has {names(list(features or first))}")
    labels = {name: one for name, one in features.items() if hasattr(one, "int2str")}
    for column in {*columns, *({"id"} & features.keys())} & features.keys() - labels.keys():
        kind = getattr(features[column], "dtype", None) or type(features[column]).__name__.lower()
        check_type(str(kind), column, texts=column == columns[0])
    yield from _labelled(chain([first], _to_the_end(rows, what)), labels)


def _labelled(rows: Iterator[dict[str, Any]], labels: dict[str, Any]) -> Rows:
    """Rows whose numbers of classes are the names of the classes."""
    for index, row in enumerate(rows):
        known = {
            name: one.int2str(row[name])
            for name, one in labels.items()
            if isinstance(row[name], int) and row[name] >= 0
        }
        yield f"row {index}", {**row, **known}


def _to_the_end(rows: Iterator[dict[str, Any]], what: str) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except Exception as error:  # streamed: a fault further down shows while it is read
        raise UsageError(f"{what} cannot be read to its end: {_root(error)}") from None


def hub_table(spec: Dataset) -> Any:
    """A dataset of the hub as `datasets` gives it; cells of CSV files are texts where the dataset declares no types."""
    import datasets

    datasets.utils.logging.disable_progress_bar()
    builder = datasets.load_dataset_builder(spec.dataset, spec.subset)
    more: dict[str, Any] = {}
    if hasattr(builder.config, "keep_default_na"):
        more = {"keep_default_na": False}
        if not builder.info.features:
            peek = datasets.load_dataset(spec.dataset, spec.subset, split=spec.split.partition("[")[0], streaming=True)
            header: dict[str, Any] = next(iter(peek), {})
            more["features"] = datasets.Features({name: datasets.Value("string") for name in header})
    return datasets.load_dataset(spec.dataset, spec.subset, split=spec.split, streaming=spec.streaming, **more)


def _root(error: BaseException) -> str:
    """What an error comes from: the library says of many that "an error occurred" and keeps the reason below."""
    if (lost := network.unreachable(error)) is not None:
        return f"{lost}; give a local file"
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)[:200]


def read_documents(
    spec: Dataset, base: Path, where: str, most: int, sample_by: str, empty: list[str] | None = None
) -> list[tuple[str, str]]:
    """The first texts of a dataset that are not empty, with those among them that occur again.

    Args:
        spec, base, where: as for `read_rows`.
        most: how many different ones.
        sample_by: what a text is in a text file: line, paragraph or document.
        empty: gets the ids of the texts that are passed over because they are empty.

    Returns:
        (id, text): the number of the row, or the value of its column `id`. A text may come several times.

    Raises:
        UsageError: as `read_rows`; nothing but empty texts.
    """
    found, different = [], set()
    with closing(read_rows(spec, base, where, sample_by=sample_by)) as rows:
        for row in islice(rows, PATIENCE * most):
            if row.text.strip():
                found.append((row.id, row.text))
                different.add(row.text)
                if len(different) == most:
                    break
            elif empty is not None:
                empty.append(row.id)
    if not found:
        raise UsageError(f"{where}: dataset {spec.dataset!r}: every {spec.column!r} is empty")
    return found
