"""Heads on texts that people wrote: read from datasets, cut to the window, never over the end of a document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_models
from float32 import FUNCTION, assert_close32, kl_tolerance

import harness
from harness.config.load import load_config
from harness.config.texts import GivenTexts
from harness.core import registry
from harness.core.errors import UsageError
from harness.data.documents import read_documents
from harness.data.tokenisation import Encoded
from harness.experiments._shared.continuations import read_continuations
from harness.experiments._shared.given_texts import cut
from harness.models import tokenizers

TEXTS = small_models.random_texts(14, 40)


def spec(**changes: Any) -> GivenTexts:
    return GivenTexts.model_validate({"dataset": "d.jsonl", **changes})


def write(folder: Path, rows: list[dict[str, Any]], name: str = "d.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.parquet", "d.csv", "d.txt"])
@pytest.mark.parametrize("streaming", [True, False])
def test_every_local_format_gives_the_same_documents(name: str, streaming: bool, tmp_path: Path) -> None:
    rows = [{"text": text} for text in TEXTS[:3]]
    if name == "d.parquet":
        pd.DataFrame(rows).to_parquet(tmp_path / name)
    elif name == "d.csv":
        pd.DataFrame(rows).to_csv(tmp_path / name, index=False)
    elif name == "d.txt":
        (tmp_path / name).write_text("\n\n".join(TEXTS[:3]) + "\n")
    else:
        write(tmp_path, rows, name)
    found = read_documents(spec(dataset=name, streaming=streaming), tmp_path, "texts", 10, "paragraph")
    assert [text.strip() for _, text in found] == TEXTS[:3]
    assert read_documents(spec(dataset=name), tmp_path, "texts", 2, "paragraph") == found[:2]


def test_empty_rows_are_passed_over_and_ids_kept(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "text": "w1 w2"},
        {"id": "b", "text": " \n"},
        {"id": "c", "text": None},
        {"id": "d", "text": "w3"},
    ]
    write(tmp_path, rows)
    assert read_documents(spec(), tmp_path, "texts", 10, "line") == [("a", "w1 w2"), ("d", "w3")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "none.jsonl"}, "'none.jsonl': no such file"),
        ({"dataset": "some/deep/place.parquet"}, "no such file"),
        ({"dataset": "d.yaml"}, "unknown ending '.yaml'"),
        ({"column": "body"}, r"has no column 'body'; it has \['text'\]"),
        ({"dataset": "empty.jsonl"}, "every 'text' is empty"),
        ({"dataset": "numbers.jsonl"}, "line 1: 'text' holds a number, no text"),
        ({"dataset": "broken.parquet"}, "cannot be loaded"),
        ({"dataset": "nothing.jsonl"}, "dataset 'nothing.jsonl' is empty"),
        ({"dataset": "nothing.csv", "streaming": False}, "dataset 'nothing.csv' is empty"),
        ({"dataset": "header.csv"}, "split 'train', is empty"),
        ({"dataset": "header.csv", "streaming": False}, "split 'train', is empty"),
        ({"dataset": "header.parquet"}, "split 'train', is empty"),
        ({"dataset": "header.parquet", "streaming": False}, "split 'train', is empty"),
        ({"dataset": "late.jsonl"}, "line 4 is not valid JSON"),
        ({"dataset": "late.jsonl", "streaming": False}, "line 4 is not valid JSON"),
        ({"split": "train[:1]"}, r"split 'train\[:1\]': a part of a split cannot be streamed; add streaming: false"),
        ({"dataset": "nobody/nothing"}, "cannot be loaded"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, [{"text": "w1"}])
    write(tmp_path, [{"text": "w1"}], "d.yaml")
    write(tmp_path, [{"text": " "}, {"text": ""}], "empty.jsonl")
    write(tmp_path, [{"text": 3}], "numbers.jsonl")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    for name in ("nothing.jsonl", "nothing.csv"):
        (tmp_path / name).write_text("\n")
    (tmp_path / "header.csv").write_text("text\n")
    pd.DataFrame({"text": []}).to_parquet(tmp_path / "header.parquet")
    (tmp_path / "late.jsonl").write_text('{"text": "w1"}\n' * 3 + "{broken\n")
    with pytest.raises(UsageError, match=message) as caught:
        read_documents(spec(**changes), tmp_path, "experiments.heads.texts", 5, "line")
    assert str(caught.value).startswith("experiments.heads.texts: ")
    assert "\n" not in str(caught.value)


def test_what_is_broken_far_down_is_told(tmp_path: Path) -> None:
    """Streams are read in pieces of ten megabytes: the first is whole."""
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": "w1 " * 100_000}) + "\n")
    with (tmp_path / "d.jsonl").open("a") as file:
        file.writelines(json.dumps({"text": "w1 " * 100_000 + str(index)}) + "\n" for index in range(45))
        file.write("{broken\n")
    with pytest.raises(UsageError, match=r"dataset 'd\.jsonl': line 47 is not valid JSON"):
        read_documents(spec(), tmp_path, "texts", 100, "line")
    assert len(read_documents(spec(), tmp_path, "texts", 5, "line")) == 5


def test_a_part_of_a_split_and_endings_in_capitals(tmp_path: Path) -> None:
    write(tmp_path, [{"id": None, "text": text} for text in TEXTS], "D.JSONL")
    given = spec(dataset="D.JSONL", split="train[:3]", streaming=False)
    assert read_documents(given, tmp_path, "texts", 99, "line") == [(str(k), TEXTS[k]) for k in range(3)]
    with pytest.raises(UsageError, match=r"'NONE\.TXT': no such file"):
        read_documents(spec(dataset="NONE.TXT"), tmp_path, "texts", 99, "line")


def test_a_wrong_key_names_the_right_one(tmp_path: Path) -> None:
    for texts, message in (({"dataset": "d", "colum": "x"}, "did you mean 'column'"), ({"dataset": ""}, "at least 1")):
        given = {"name": "x", "models": ["m"], "experiments": [{"kind": "heads", "texts": texts}]}
        with pytest.raises(UsageError, match=message):
            load_config(given)
    with pytest.raises(UsageError, match=r"needs `prompts`.*or `texts` of its own"):
        load_config({"name": "x", "models": ["m"], "experiments": [{"kind": "heads"}]})


def test_pieces_never_hold_two_documents() -> None:
    tokens = list(range(25))
    every = GivenTexts(dataset="d", windows=None, min_tokens=3)
    assert cut(Encoded((), tokens), 10, every) == [tokens[:10], tokens[10:20], tokens[20:]]
    two = GivenTexts(dataset="d", windows=2, min_tokens=3)
    assert cut(Encoded((), tokens), 10, two) == [
        tokens[:10],
        tokens[10:20],
    ]
    assert cut(Encoded((), tokens[:22]), 10, every) == [tokens[:10], tokens[10:20]]
    assert cut(Encoded((), tokens[:2]), 10, every) == []


def test_documents_are_split_whole_and_limited(tmp_path: Path) -> None:
    write(tmp_path, [{"text": text} for text in TEXTS])
    given = {
        "name": "x",
        "models": ["m"],
        "held_out": 0.25,
        "experiments": [{"kind": "heads", "texts": {"dataset": str(tmp_path / "d.jsonl"), "documents": 8}}],
    }

    def read(limit: int | None = None) -> Any:
        loaded = load_config(given, limit=limit)
        return registry.experiment("heads").documents(loaded.config.experiments[0], loaded)

    documents = read()
    assert [d.split for d in documents].count("held_out") == 2
    assert [d.text for d in documents] == TEXTS[:8]
    assert len(read(limit=1)) == 2
    given["experiments"][0]["texts"]["documents"] = 2  # type: ignore[index]
    assert {d.split for d in read()} == {"train", "held_out"}


@pytest.fixture(scope="module")
def read_run(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Any:
    """Heads of the small model on 14 documents of 40 tokens, cut into windows of 16."""
    folder = tmp_path_factory.mktemp("texts")
    write(folder, [{"text": text} for text in TEXTS])
    config = {
        "name": "read",
        "models": [str(small_model)],
        "experiments": [
            {
                "kind": "heads",
                "layers": [0, 1],
                "surrogates": ["counts", "pccmc-weights", "ccmc-fit"],
                "max_length": 16,
                "texts": {"dataset": str(folder / "d.jsonl"), "windows": None, "min_tokens": 8},
            }
        ],
    }
    return harness.run(config, out=folder / "run"), config


def test_heads_are_read_on_the_documents(read_run: Any, small_model: Path) -> None:
    run = read_run[0]
    assert len(run.manifest["units"]) == 2  # the texts, and the heads: nothing was generated
    assert run.manifest["prompts"]["train"] + run.manifest["prompts"]["held_out"] == 14
    found = read_continuations(run.path / "units" / run.manifest["units"][0]["key"])
    tokenizer = tokenizers.load_tokenizer(small_model)
    by_document: dict[str, list[int]] = {}
    for piece in found:
        assert len(piece.continuation) == 0
        assert 8 <= len(piece.tokens) <= 16
        by_document.setdefault(piece.prompt, []).extend(piece.tokens.tolist())
    assert [by_document[str(i)] for i in range(14)] == [small_models.read(tokenizer, text) for text in TEXTS]
    rows = run.rows
    kl = rows[(rows["metric"] == "kl") & (rows["surrogate"] == "pccmc-weights") & (rows["layer"] == 0)]["value"]
    assert kl.max() <= kl_tolerance(16)  # positions restart with every piece, or the first layer would not be exact
    heads = rows[rows["experiment"] == "heads"]
    assert set(heads["strategy"].dropna()) == {"text"}
    headline = next(table for table in run.tables() if table.headline)
    assert headline.name.startswith("heads.")
    assert "text" in f"{headline.title} {headline.caption} {headline.rows}"


def test_intervals_are_over_documents_not_over_pieces(read_run: Any) -> None:
    rows = read_run[0].rows
    own = rows[(rows["layer"] == 1) & (rows["head"] == 2) & (rows["split"] == "held_out")]
    explained = own[(own["metric"] == "explained") & (own["surrogate"] == "ccmc-fit")].iloc[0]
    from harness.experiments.heads.units import derive_seed
    from harness.stats.explained import explained_interval

    def totals(name: str) -> Any:
        part = own[(own["metric"] == "kl") & (own["surrogate"] == name)]
        return (part["value"].astype(float) * part["n"].astype(float)).groupby(part["prompt"]).sum().to_numpy()

    found = explained_interval(totals("ccmc-fit"), totals("counts"), derive_seed(0, "explained"))
    assert found.n == 4  # documents; three pieces each
    assert explained["value"] == pytest.approx(found.value)
    assert (pd.isna(explained["low"]), pd.isna(explained["high"])) == (found.low is None, found.high is None)


def test_the_same_documents_give_the_same_run_and_others_another(read_run: Any, tmp_path: Path) -> None:
    run, config = read_run
    again = harness.run(config, out=tmp_path / "again")
    assert again.manifest["units"] == run.manifest["units"] or [u["key"] for u in again.manifest["units"]] == [
        u["key"] for u in run.manifest["units"]
    ]
    assert again.rows.equals(run.rows)
    write(tmp_path, [{"text": text} for text in TEXTS[::-1]])
    config["experiments"][0]["texts"]["dataset"] = str(tmp_path / "d.jsonl")
    other = harness.run(config, out=tmp_path / "other")
    assert not np.array_equal(other.rows["value"], run.rows["value"])


def test_texts_of_a_single_token_are_read(small_model: Path, tmp_path: Path) -> None:
    """Every head attends in proportion to counts there: nothing is left to explain, and nothing breaks."""
    write(tmp_path, [{"text": "w1 " * (13 + i)} for i in range(8)])
    heads = {"kind": "heads", "surrogates": ["counts", "ccmc-weights"], "texts": {"dataset": str(tmp_path / "d.jsonl")}}
    done = harness.run({"name": "one", "models": [str(small_model)], "experiments": [heads]}, out=tmp_path / "run")
    rows = done.rows
    found = rows[(rows["metric"] == "kl") & rows["head"].notna()]
    assert set(found["surrogate"]) == {"counts", "ccmc-weights"}
    # a row of one type holds one sum of at most twenty weights, and its logarithm
    assert_close32(found["value"].astype(float), 0.0, operations=20 + 2 * FUNCTION)


def test_too_few_tokens_are_told(small_model: Path, tmp_path: Path) -> None:
    write(tmp_path, [{"text": text} for text in TEXTS])
    texts = {"dataset": str(tmp_path / "d.jsonl"), "min_tokens": 100}
    config = {"name": "x", "models": [str(small_model)], "experiments": [{"kind": "heads", "texts": texts}]}
    with pytest.raises(UsageError, match="none of 14 documents leaves a train text of 100 tokens"):
        harness.run(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
