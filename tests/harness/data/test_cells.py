"""Cells of data files are the texts that they hold: nothing that looks like a gap, a number or a date is one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.config.load import load_config
from harness.core.errors import UsageError
from harness.data.prompts import Prompt, load_prompts

GAPS = ["null", "NA", "nan", "None", "N/A", "NULL", "NaN", "#N/A", "-", "inf", "true", "1", "2024-01-01"]
IDS = ["001", "1", "01", "1e3", "1000", "1.0", "+1", "2024-01-01", "true", "nan", "NA", "null", "None"]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows in the format that the ending says."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        pd.DataFrame(rows).to_parquet(path)


def read(folder: Path, name: str, **more: Any) -> tuple[list[Prompt], Any]:
    config = {
        "name": "cells",
        "models": ["m"],
        "prompts": {"dataset": str(folder / name), **more},
        "experiments": [{"kind": "heads"}],
    }
    loaded = load_config(config)
    return load_prompts(loaded), loaded


ENDINGS = ("csv", "jsonl", "json", "parquet")


@pytest.mark.parametrize("ending", ENDINGS)
def test_cells_that_look_like_gaps_are_texts(ending: str, tmp_path: Path) -> None:
    write(tmp_path / f"d.{ending}", [{"id": f"p{i}", "text": text} for i, text in enumerate(GAPS)])
    found, loaded = read(tmp_path, f"d.{ending}")
    assert {p.id: p.text for p in found} == {f"p{i}": text for i, text in enumerate(GAPS)}
    assert not any("left out" in note for note in loaded.notes)


@pytest.mark.parametrize("ending", ENDINGS)
def test_ids_stay_as_they_are_written(ending: str, tmp_path: Path) -> None:
    write(tmp_path / f"d.{ending}", [{"id": name, "text": f"text {i}"} for i, name in enumerate(IDS)])
    found, _ = read(tmp_path, f"d.{ending}")
    assert {p.text: p.id for p in found} == {f"text {i}": name for i, name in enumerate(IDS)}


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_whole_numbers_as_ids_are_their_digits(ending: str, tmp_path: Path) -> None:
    numbers = [1, 20, 2**62]
    write(tmp_path / f"d.{ending}", [{"id": number, "text": f"text {number}"} for number in numbers])
    assert sorted(p.id for p in read(tmp_path, f"d.{ending}")[0]) == sorted(str(number) for number in numbers)


def test_columns_of_numbers_in_csv_are_texts(tmp_path: Path) -> None:
    texts = ["007", "1e3", "1.50", "12"]
    write(tmp_path / "d.csv", [{"text": text} for text in texts])
    assert sorted(p.text for p in read(tmp_path, "d.csv")[0]) == sorted(texts)


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("values", [[1, 2, 3], [True, False, True], [0.5, 1.5, 2.5]])
def test_typed_columns_are_refused_by_name(ending: str, values: list[Any], tmp_path: Path) -> None:
    write(tmp_path / f"d.{ending}", [{"text": value} for value in values])
    with pytest.raises(UsageError, match="'text' holds") as caught:
        read(tmp_path, f"d.{ending}")
    assert "\n" not in str(caught.value)


def test_a_column_of_dates_is_refused_by_name(tmp_path: Path) -> None:
    pd.DataFrame({"text": pd.to_datetime(["2024-01-01", "2024-01-02"])}).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(UsageError, match="'text' holds"):
        read(tmp_path, "d.parquet")


@pytest.mark.parametrize("value", [None, 0.5, True, ["a"], {"a": 1}])
def test_ids_that_are_no_names_are_refused_by_place(value: Any, tmp_path: Path) -> None:
    write(tmp_path / "d.jsonl", [{"id": "a", "text": "x"}, {"id": value, "text": "y"}, {"id": "c", "text": "z"}])
    with pytest.raises(UsageError, match=r"line 2.*'id' holds"):
        read(tmp_path, "d.jsonl")


def test_quotes_line_breaks_and_marks_of_order_in_csv(tmp_path: Path) -> None:
    text = '\ufeffid,text\r\n1,"two\nlines, and ""quotes"""\r\n2,plain\r\n'
    (tmp_path / "d.csv").write_bytes(text.encode("utf-8"))
    assert {p.id: p.text for p in read(tmp_path, "d.csv")[0]} == {"1": 'two\nlines, and "quotes"', "2": "plain"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"id;text\n1;x\n2;y\n", "has no column 'text'; it has .* separated by"),
        (b"id,text\n1,x\n2,y,z\n", "line 3"),
        (b"text,text\nx,y\n", "two columns 'text'"),
        (b"id,text\n1,\xff\n", "UTF-8"),
        (b"id,text\n", "is empty"),
    ],
)
def test_broken_csv_is_one_line(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(data)
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, "d.csv")
    assert "\n" not in str(caught.value)


def test_one_text_under_many_ids_is_one_unit(tmp_path: Path) -> None:
    rows = [{"id": f"p{i}", "text": "the same"} for i in range(10)] + [
        {"id": f"q{i}", "text": f"t{i}"} for i in range(3)
    ]
    write(tmp_path / "d.jsonl", [*rows, {"id": "gap", "text": "  "}])
    found, loaded = read(tmp_path, "d.jsonl")
    assert sorted(p.id for p in found) == ["p0", "q0", "q1", "q2"]
    assert {p.split for p in found} == {"train", "held_out"}
    empty, again = (next(note for note in loaded.notes if word in note) for word in ("empty", "again"))
    assert "'gap'" in empty
    assert "left out: 9, with ids 'p1', 'p2'" in again
    assert again.endswith("as 'p0'")


def test_prompts_in_a_config(tmp_path: Path) -> None:
    prompts = [{"id": f"p{i}", "kind": "k", "text": f"text {i}"} for i in range(4)]
    config = {"name": "inline", "models": ["m"], "prompts": prompts, "experiments": [{"kind": "heads"}]}
    assert sorted(p.text for p in load_prompts(load_config(config))) == [f"text {i}" for i in range(4)]
    for wrong, message in [
        ([*prompts, {"id": "x", "kind": "k"}], "text"),
        ([*prompts, "file.yaml"], "prompts"),
        ([{**prompts[0], "id": "\ud83d"}, *prompts[1:]], "surrogate"),
        ([{**prompts[0], "id": 3}, *prompts[1:]], "id"),
    ]:
        with pytest.raises(UsageError, match=message) as caught:
            load_prompts(load_config({**config, "prompts": wrong}))
        assert "Input should" not in str(caught.value)
        assert "\n" not in str(caught.value)
