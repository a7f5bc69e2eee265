"""Datasets as the hub gives them, made here: features decide what a column holds, and cells are not guessed."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from harness.config.load import DatasetPrompts, load_config
from harness.config.texts import Prose
from harness.core.errors import UsageError
from harness.data import documents, network
from harness.data.prompts import load_prompts, read_prose

CELLS = ["null", "NA", "nan", "None", "N/A", "001", "1e3", "True", "2020-01-01", "", "-", "a, b"]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "check_hub", lambda: None)
    monkeypatch.setattr(network, "bound_hub", lambda: None)


def give(monkeypatch: pytest.MonkeyPatch, table: Any) -> None:
    monkeypatch.setattr(documents, "hub_table", lambda spec: table)


def rows(kind_column: str | None = None, **spec: Any) -> list[tuple[str, str, str]]:
    given = DatasetPrompts(dataset="owner/made", kind_column=kind_column, **spec)
    return [(row.id, row.kind, row.text) for row in documents.read_rows(given, Path(), "prompts", kind_column)]


@pytest.mark.parametrize("streamed", [False, True])
def test_classes_are_called_by_their_names(monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["dry", "wet"]), "id": Value("int64")})
    table = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1], "id": [7, 8, 10**17]}, features=features)
    give(monkeypatch, table.to_iterable_dataset() if streamed else table)
    assert rows("label") == [("7", "wet", "a"), ("8", "dry", "b"), (str(10**17), "wet", "c")]


def test_a_class_without_a_name_is_a_number_and_no_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["dry", "wet"])})
    give(monkeypatch, Dataset.from_dict({"text": ["a", "b"], "label": [0, -1]}, features=features))
    assert rows("label") == [("0", "dry", "a"), ("1", "-1", "b")]  # -1: not labelled
    give(monkeypatch, Dataset.from_dict({"text": ["a", "b"], "label": [0, None]}, features=features))
    with pytest.raises(UsageError, match="row 1: 'label' holds null; a text or a whole number is needed"):
        rows("label")


@pytest.mark.parametrize(
    ("feature", "values", "message"),
    [
        (Value("int64"), [1, 2], "column 'text' holds int64; a text column is needed"),
        (Value("float32"), [1.0, 2.0], "column 'text' holds float32; a text column is needed"),
        (Value("bool"), [True, False], "column 'text' holds bool; a text column is needed"),
        (Value("timestamp[s]"), [0, 1], r"column 'text' holds timestamp\[s\]; a text column is needed"),
        (Sequence(Value("string")), [["a"], ["b"]], "column 'text' holds .*; a text column is needed"),
        ({"inner": Value("string")}, [{"inner": "a"}, {"inner": "b"}], "column 'text' holds .*; a text column"),
    ],
)
def test_a_column_of_another_type_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, feature: Any, values: list[Any], message: str
) -> None:
    give(monkeypatch, Dataset.from_dict({"text": values}, features=Features({"text": feature})))
    with pytest.raises(UsageError, match=f"^prompts: dataset 'owner/made': {message}"):
        rows()


def test_a_column_that_is_not_there_names_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, Dataset.from_dict({"body": ["a"], "sort": ["x"]}))
    with pytest.raises(UsageError, match="dataset 'owner/made' has no column 'text'; it has \\['body', 'sort'\\]"):
        rows()
    with pytest.raises(UsageError, match="has no column 'kind'"):
        rows("kind", column="body")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the library leaves one open
@pytest.mark.parametrize("streaming", [False, True])
def test_cells_of_a_csv_repository_are_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, streaming: bool) -> None:
    """A repository of the hub with a CSV file and no declared types is read by the same builder as this folder."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "train.csv").write_text("id,text\n" + "".join(f'0{i},"{cell}"\n' for i, cell in enumerate(CELLS)))
    original = documents.hub_table
    monkeypatch.setattr(documents, "hub_table", lambda spec: original(spec.model_copy(update={"dataset": str(folder)})))
    assert rows(streaming=streaming) == [(f"0{i}", "text", cell) for i, cell in enumerate(CELLS)]
    gc.collect()


def test_documents_count_different_texts(tmp_path: Path) -> None:
    lines = ["one", "two", "one", "", "one", "three", "two", "four", "five"]
    (tmp_path / "d.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "c.yaml").write_text("name: x\nexperiments: [{kind: equivalence}]\n")

    def read(most: int) -> tuple[list[str], dict[str, Any]]:
        loaded = load_config(tmp_path / "c.yaml")
        spec = Prose(dataset="d.txt", sample_by="line", documents=most)
        found = read_prose(loaded, spec, "experiments.x.prose")
        return [prompt.text for prompt in found], loaded.left_out

    assert read(3) == (["one", "two", "three"], {"duplicates": {"0": ["2", "4"]}, "empty": ["3"]})
    assert read(2) == (["one", "two"], {})
    assert read(5)[0] == ["one", "two", "three", "four", "five"]
    assert read(99)[0] == ["one", "two", "three", "four", "five"]


def test_inline_prompts_are_different_texts_with_ids_of_their_own() -> None:
    inline = [{"id": name, "kind": "k", "text": text} for name, text in zip("abcd", ("1", "2", "1", "3"), strict=True)]
    config: dict[str, Any] = {"name": "x", "models": ["m"], "experiments": [{"kind": "generation"}]}
    loaded = load_config({**config, "prompts": inline})
    assert sorted(prompt.id for prompt in load_prompts(loaded)) == ["a", "b", "d"]
    assert loaded.left_out == {"duplicates": {"a": ["c"]}}
    assert any("texts that occur again are left out: 1, with ids 'c' as 'a'" in note for note in loaded.notes)
    with pytest.raises(UsageError, match="id 'a' occurs twice, with different texts"):
        load_prompts(load_config({**config, "prompts": [*inline, {**inline[1], "id": "a"}]}))
