"""Local files of texts, read without guessing: what a file holds as characters stays as it is, or is refused by name.

Each reader gives the rows one after the other, as (place, row): the place is that of a message, such as "line 4".
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.core.errors import one_line

Rows = Generator[tuple[str, dict[str, Any]]]

LONGEST_CELL = 2**30  # characters of a CSV cell; the library's own limit is 128 kB
LARGEST_JSON = 2**30  # bytes of a .json file, which is read whole
_ENDS = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class TableError(Exception):
    """Something in a file that is refused: what, and where in it."""


def rows_of(path: Path, columns: Sequence[str], sample_by: str) -> Rows:
    """The rows of a .csv, .json, .jsonl, .parquet or .txt file.

    Args:
        path: the file.
        columns: that are wanted of it: first the one of the texts.
        sample_by: what a text is in a .txt file: line, paragraph or document.

    Raises:
        TableError: the file is not what its ending says, or a wanted column is not there or has no usable type.
    """
    match path.suffix.lower():
        case ".csv":
            return _csv(path, columns)
        case ".json":
            return _json(path)
        case ".jsonl":
            return _json_lines(path)
        case ".parquet":
            return _parquet(path, columns)
    return _text(path, sample_by)


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends as they are, without a byte order mark.

    Raises:
        TableError: a line is not UTF-8, or holds a NUL byte.
    """
    number = 0
    with path.open("rb") as file:
        for raw in file:
            try:
                text = raw.decode("utf-8-sig" if number == 0 else "utf-8")
            except UnicodeDecodeError:
                raise TableError(f"line {number + 1} is not UTF-8 text") from None
            if "\0" in text:
                raise TableError(f"line {number + 1} holds a NUL byte; the file must be UTF-8 text")
            for line in _ENDS.findall(text):
                number += 1
                yield line


def _csv(path: Path, columns: Sequence[str]) -> Rows:
    """Cells between commas, each exactly the characters of the file: no gaps, numbers, dates or booleans."""
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        reader = csv.reader(_lines(path), strict=True)
        header: list[str] | None = None
        while True:
            start = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise TableError(f"line {start} is not valid CSV: {one_line(error)}") from None
            if not cells:
                continue
            if header is None:
                header = cells
                _check_header(header, columns)
                continue
            if len(cells) != len(header):
                raise TableError(f"line {start} has {len(cells)} cells, the header has {len(header)}")
            yield f"line {start}", dict(zip(header, cells, strict=True))
    finally:
        csv.field_size_limit(limit)


def _check_header(header: list[str], columns: Sequence[str]) -> None:
    for name in header:
        if header.count(name) > 1:
            raise TableError(f"the header has two columns {name[:80]!r}")
    for column in columns:
        if column not in header:
            whole = ",".join(header)
            other = next((words for mark, words in _DELIMITERS.items() if mark in whole and len(header) == 1), None)
            hint = f"; the header seems to be separated by {other}, write commas" if other else ""
            raise TableError(f"has no column {column!r}; it has {names(header)}{hint}")


def names(found: Sequence[str]) -> str:
    """Names of columns for a message, cut where there are many."""
    shown = sorted(str(name)[:60] for name in found)
    return f"{shown[:20]}"[:-1] + f", ... {len(shown) - 20} more]" if len(shown) > 20 else f"{shown}"


def _json_lines(path: Path) -> Rows:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            yield f"line {number}", _object(_parsed(line, f"line {number}"), f"line {number}")


def _parsed(text: str, place: str) -> Any:
    """The value that a JSON text stands for.

    Raises:
        TableError: it is no JSON, writes a key twice, or nests too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}" if place == "it" else place
        raise TableError(f"{where} is not valid JSON: {error.msg} at character {error.colno}") from None
    except ValueError as error:
        raise TableError(f"{place} is not valid JSON: {one_line(error)[:160]}") from None
    except RecursionError:
        raise TableError(f"{place} is not valid JSON: nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:80]!r} is written twice")
    return found


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TableError(f"{place} holds {kind_of(value)}; a row is a mapping of columns")
    return value


def _json(path: Path) -> Rows:
    """A list of mappings, {"data": [...]}, or a mapping in each line."""
    if path.stat().st_size > LARGEST_JSON:
        raise TableError("is too large to be read whole; write one mapping a line into a .jsonl file")
    text = "".join(_lines(path))
    first, _, more = text.strip().partition("\n")
    if first.rstrip().endswith("}") and (more.lstrip().startswith("{") or not more):
        whole = None
        if not more:
            whole = _parsed(first, "it")
        if not (isinstance(whole, dict) and isinstance(whole.get("data"), list)):
            yield from _json_lines(path)
            return
    else:
        whole = _parsed(text, "it") if text.strip() else []
    if isinstance(whole, dict):
        whole = whole.get("data")
    if not isinstance(whole, list):
        raise TableError('holds no rows: write a list of mappings, {"data": [...]}, or a mapping in each line')
    for index, row in enumerate(whole):
        yield f"row {index}", _object(row, f"row {index}")


def _parquet(path: Path, columns: Sequence[str]) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            for column in columns:
                if schema.names.count(column) != 1:
                    state = "has no column" if column not in schema.names else "has two columns"
                    raise TableError(f"{state} {column!r}; it has {names(schema.names)}")
            if not file.metadata.num_rows:
                return
            wanted = [*columns, *(["id"] if "id" in schema.names else [])]
            labels = _labels(schema)
            for column in wanted:
                if column not in labels:
                    check_type(str(schema.field(column).type), column, texts=column == columns[0])
            number = 0
            for batch in file.iter_batches(batch_size=256, columns=list(dict.fromkeys(wanted))):
                for row in batch.to_pylist():
                    for column, known in labels.items():
                        if row.get(column) is not None:
                            row[column] = known[row[column]] if 0 <= row[column] < len(known) else None
                    yield f"row {number}", row
                    number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TableError(f"cannot be loaded as Parquet: {one_line(error)[:200]}") from None


def _labels(schema: Any) -> dict[str, list[str]]:
    """Columns that hold numbers of classes, with the names of the classes, where `datasets` wrote the file."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    return {name: list(one.names) for name, one in features.items() if isinstance(one, datasets.ClassLabel)}


def check_type(kind: str, column: str, texts: bool) -> None:
    """Refuse a typed column by name.

    Args:
        kind: the type as pyarrow or `datasets` writes it.
        column: its name.
        texts: it holds texts; else ids or kinds, which may be whole numbers.

    Raises:
        TableError: names column and type.
    """
    plain = re.sub(r"^dictionary<values=(\w+),.*$", r"\1", kind)
    allowed = {"string", "large_string", "string_view", "null"}
    if plain in allowed or (not texts and re.fullmatch(r"u?int\d+", plain)):
        return
    wanted = "a text column" if texts else "a column of texts or whole numbers"
    raise TableError(f"column {column!r} holds {plain[:60]}; {wanted} is needed")


def kind_of(value: Any) -> str:
    """What a value of a row is, in words."""
    words = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a mapping",
    }
    return "null" if value is None else words.get(type(value), f"a value of type {type(value).__name__}")


def _text(path: Path, sample_by: str) -> Rows:
    """Lines, paragraphs between blank lines, or the whole of a text file; every kind of line end counts as one."""
    lines = (f"{line.rstrip(chr(13) + chr(10))}\n" if line[-1:] in "\r\n" else line for line in _lines(path))
    if sample_by == "line":
        for number, line in enumerate(lines, 1):
            yield f"line {number}", {"text": line.removesuffix("\n")}
        return
    if sample_by == "document":
        yield "it", {"text": "".join(lines)}
        return
    for number, part in enumerate(part for part in "".join(lines).split("\n\n") if part):
        yield f"paragraph {number}", {"text": part}
