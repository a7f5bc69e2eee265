"""Single heads of a run: ranked, named, drawn, looked at on a text, read in words, and exported as chains."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense_heads import score_scale
from float32 import assert_within, in_float64, row_operations, tolerance

from ccmc import CCMC, AttentionCCMC
from harness.attention import capture
from harness.attention.eager import eager_rows
from harness.cli.app import invoke
from harness.core.errors import UsageError
from harness.core.format import number
from harness.core.records import Interval
from harness.experiments.heads import export as head_export
from harness.experiments.heads.answers import MOST, answers
from harness.experiments.heads.figures import figures
from harness.experiments.heads.refit import refit
from harness.experiments.heads.tables import tables
from harness.measures.head_kinds import KINDS, PATTERNS
from harness.models import loading
from harness.report.attention_page import page_data, samples
from harness.runs.reading import write_figures
from harness.runs.run import Run, load_run

WIDTH = 8  # channels of a head of the small model
HOSTILE = "<script>window.hacked=1</script>\"><img src=x onerror='window.hacked=2'>"


@pytest.fixture(scope="module")
def run(finished: Any) -> Run:
    """The small run: layers 0 and 2 of 6 heads each, every surrogate."""
    found: Run = finished[0]
    return found


def mass_of(row: Any) -> np.ndarray[Any, Any]:
    """[n, U] of a row of kept attention."""
    types = len(np.unique(row["tokens"][1:]))
    return np.frombuffer(row["mass"], dtype=np.uint8).reshape(-1, types) / 255


def test_every_head_has_its_scores(run: Run) -> None:
    rows = run.rows[run.rows["experiment"] == "heads"]
    held_out = rows[rows["prompt"].notna()]["prompt"].nunique()
    for name in PATTERNS:
        of_heads = rows[(rows["metric"] == name) & (rows["surrogate"] == "model") & rows["head"].notna()]
        assert of_heads.groupby(["layer", "head", "strategy"]).size().eq(held_out).all()
        assert of_heads["value"].between(0, 1).all()
        assert len(of_heads[["layer", "head"]].drop_duplicates()) == 12
    even = rows[(rows["metric"] == "previous_token_score") & (rows["surrogate"] == "counts")]
    assert even["value"].between(0.01, 0.5).all()
    content = rows[rows["metric"] == "content_score"]
    assert len(content) == 12 * 2
    assert content["value"].between(0, 1).all()


def test_tables_rank_heads_and_count_kinds(run: Run) -> None:
    rows = run.rows[run.rows["experiment"] == "heads"]
    found = {table.name: table for table in tables(rows)}
    assert found["heads.summary"].headline
    ranked = [row for row in found["heads.ranking"].rows if row[0] == "greedy"]
    assert {row[0] for row in found["heads.ranking"].rows} == {"greedy", "temperature=1"}
    most = [row[5] for row in ranked]
    assert all(isinstance(cell, Interval) for cell in most)
    values = [cell.value for cell in most if isinstance(cell, Interval) and cell.value is not None]
    assert values == sorted(values, reverse=True)
    assert [row[1] for row in ranked] == list(range(1, 13))
    assert ranked[0][4] == "pccmc-weights"  # exact in the first layer
    kinds = [row for row in found["heads.by-kind"].rows if row[0] == "greedy"]
    assert {row[1] for row in kinds} <= set(KINDS)
    sizes = {row[1]: row[2] for row in kinds}
    assert sum(size for size in sizes.values() if isinstance(size, int)) == 12
    for kind, size in sizes.items():
        assert sum(row[5] for row in kinds if row[1] == kind and isinstance(row[5], int)) == size


def test_answers_are_given_for_every_strategy(run: Run) -> None:
    rows = run.rows[run.rows["experiment"] == "heads"]
    found, name = answers(rows), rows["model"].iloc[0]
    assert {answer.text.split(":")[0] for answer in found} >= {f"{name}, greedy", f"{name}, temperature=1"}
    assert any(answer.question == MOST for answer in found)


def test_what_is_kept_of_a_text_is_its_attention(run: Run, small_model: Path) -> None:
    table = samples(run)
    model, scale = loading.load_model(small_model, "cpu").double(), dict[int, float]()
    own = table[(table["source"] == "model") & (table["strategy"] == "greedy")]
    assert len(own) == 12
    tokens = own["tokens"].iloc[0].copy()
    with in_float64():
        truth = eager_rows(model, tokens)
        capture.listen(model, tokens, [0, 2], lambda call: scale.update({call.layer: score_scale(call)}))
    types, column = np.unique(tokens[1:], return_inverse=True)
    for _, row in own.iterrows():
        rows = truth[row["layer"]][row["head"], 1:, 1:].double().numpy()
        expected = (rows / rows.sum(-1, keepdims=True)) @ np.eye(len(types))[column]
        # the run went through the layers in float32; a weight moves by at most half of what scores are off
        off = tolerance(scale[row["layer"]], row_operations(model.config, len(tokens), row["layer"]))
        assert off < 0.5 / 255
        assert_within(mass_of(row), expected, 0.5 / 255 + off / 2)
    exact = table[(table["source"] == "pccmc-weights") & (table["layer"] == 0)]
    for _, row in exact.iterrows():
        same = own if row["strategy"] == "greedy" else table[table["source"] == "model"]
        same = same[(same["layer"] == 0) & (same["head"] == row["head"]) & (same["strategy"] == row["strategy"])]
        np.testing.assert_allclose(mass_of(row), mass_of(same.iloc[0]), atol=1.01 / 255)


@pytest.mark.parametrize("surrogate", ["ccmc-fit", "ccmc-weights"])
def test_an_exported_chain_predicts_as_the_surrogate_of_the_run(
    run: Run, surrogate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "new" / "chain.safetensors"
    command = ["export", str(run.path), "--head", "2.3", "--surrogate", surrogate, "-o", str(target)]
    assert invoke(command) == 0
    assert "ccmc.CCMC.load" in capsys.readouterr().out
    chain = CCMC.load(target)
    about = json.loads((tmp_path / "new" / "chain.tokens.json").read_text(encoding="utf-8"))
    ids = [token["id"] for token in about["tokens"]]
    assert (about["layer"], about["head"], about["surrogate"]) == (2, 3, surrogate)
    assert ids == sorted(ids)
    assert len(ids) == chain.vocab_size
    assert all(token["text"].strip() for token in about["tokens"])
    table = samples(run)
    table = table[(table["source"] == surrogate) & (table["layer"] == 2) & (table["head"] == 3)]
    for _, row in table.iterrows():
        tokens = np.searchsorted(ids, row["tokens"])
        kept, types = mass_of(row), np.unique(tokens[1:])
        for query in range(1, len(tokens)):
            counts = np.bincount(tokens[1 : query + 1], minlength=len(ids)).astype(float)
            predicted = np.asarray(chain.next_token(counts[None], tokens[query : query + 1]))[0]
            off = tolerance(np.abs(chain.logits).max() + np.log(len(tokens)), WIDTH + 3)  # and the logarithms of counts
            assert_within(predicted[types], kept[query - 1], 0.5 / 255 + off / 2)


def test_a_large_vocabulary_is_exported_as_keys_and_queries(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dense, small, few = (tmp_path / f"{name}.safetensors" for name in ("dense", "small", "few"))
    command = ["export", str(run.path), "--head", "0.4", "-o"]
    assert invoke([*command, str(dense), "--surrogate", "ccmc-weights"]) == 0
    monkeypatch.setattr(head_export, "LARGEST", 5)
    assert invoke([*command, str(small), "--surrogate", "ccmc-weights"]) == 0
    assert "ccmc.AttentionCCMC.load" in capsys.readouterr().out
    products = AttentionCCMC.load(small)
    scale = float((np.abs(products.queries) @ np.abs(products.keys).T).max())
    # products in float32 here, in float64 there; rows are normalised, which doubles an error
    assert_within(products.to_ccmc().logits, CCMC.load(dense).logits, 2 * tolerance(scale, WIDTH + 3))
    assert invoke([*command, str(few)]) == 2
    assert "--tokens 5" in capsys.readouterr().err
    assert not few.exists()
    assert invoke([*command, str(few), "--tokens", "5"]) == 0
    whole = refit(run, "0.4")
    kept = json.loads((tmp_path / "few.tokens.json").read_text(encoding="utf-8"))["tokens"]
    assert sorted(t["count"] for t in kept) == sorted(whole.counts)[-5:]
    places = np.searchsorted(whole.ids, [t["id"] for t in kept])
    part = CCMC(whole.all_logits(np.arange(len(whole.ids)))).logits[np.ix_(places, places)]
    part -= np.log(np.exp(part).sum(axis=1, keepdims=True))
    # the same products in float32, of other shapes; and normalised again
    assert_within(CCMC.load(few).logits, part, 2 * tolerance(scale, WIDTH + 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--head", "x"], "write it as layer.head"),
        (["--head", "1.0"], "the run has layers 0, 2, not 1"),
        (["--head", "2.6"], "layer 2 has heads 0 to 5"),
        (["--head", "2.0", "--surrogate", "ccmc-weigth"], "did you mean 'ccmc-weights'"),
        (["--head", "2.0", "--surrogate", "pccmc-fit"], "has positions"),
        (["--head", "2.0", "--model", "none"], "--model 'none'"),
        (["--head", "2.0", "--query", "nothing"], "not a token of the run's texts"),
        (["--query", "w1"], "go with --head"),
        (["--format", "html"], "--format 'html'"),
    ],
)
def test_wrong_use_is_one_line(
    run: Run, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["heads", str(run.path), *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_other_mistakes_are_one_line(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["export", str(run.path), "--head", "2.0", "-o"]
    assert invoke([*place, str(tmp_path / "chain.txt")]) == 2
    assert "ends in .safetensors" in capsys.readouterr().err
    assert invoke(["attention", str(run.path), "--head", "2.9"]) == 2
    assert "--head '2.9': the run has no such head" in capsys.readouterr().err
    bare = tmp_path / "bare"
    shutil.copytree(run.path, bare, ignore=shutil.ignore_patterns("units"))
    assert page_data(load_run(bare)) is None
    for verb in (["attention"], ["export", "--head", "2.0"]):
        assert invoke([verb[0], str(bare), *verb[1:]]) == 2
        assert "units" in capsys.readouterr().err


def test_a_run_that_is_not_done_says_so(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = tmp_path / "part"
    shutil.copytree(run.path, part)
    manifest = json.loads((part / "manifest.json").read_text())
    (part / "manifest.json").write_text(json.dumps({**manifest, "state": "partial"}))
    units = [part / "units" / unit["key"] for unit in manifest["units"] if "heads of layers" in unit["label"]]
    for folder in units:
        shutil.rmtree(folder)
    for name in ("rows", "trajectories"):
        (part / f"{name}.parquet").unlink()
    told = f"{len(units)} of {len(manifest['units'])} units are not done, go on with: ccmc run"
    for verb in (["heads"], ["heads", "--head", "2.0"], ["attention"], ["export", "--head", "2.0"]):
        capsys.readouterr()
        assert invoke([verb[0], str(part), *verb[1:]]) == 2
        errors = capsys.readouterr().err
        assert told in errors
        assert errors.count("\n") == 1


def test_tokens_that_are_suggested_are_shown_escaped(run: Run) -> None:
    fit = refit(run, "2.0", "ccmc-weights")
    few = dataclasses.replace(fit, pieces=["\x1b[31mred", "\u202ereversed", "plain"])
    for text in ("zzz", "red", "\x1b[31mre"):
        with pytest.raises(UsageError) as caught:
            head_export.find_query(few, text)
        assert str(caught.value).isprintable()


def test_a_fit_of_other_code_is_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(run.path, changed)
    rows = pd.read_parquet(changed / "rows.parquet")
    of_ridge = (rows["metric"] == "ridge") & (rows["surrogate"] == "ccmc-fit")
    rows.loc[of_ridge, "value"] = 12345.0
    rows.to_parquet(changed / "rows.parquet", index=False)
    assert invoke(["heads", str(changed), "--head", "2.0"]) == 2
    assert "made by other source code" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [40, -1, 10**6])
def test_stored_ids_that_the_model_has_not_are_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: int
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(run.path, changed)
    for name, column in (("trajectories", "prompt_tokens"), ("attention", "tokens")):
        for file in changed.glob(f"units/*/{name}.parquet"):
            table = pd.read_parquet(file)
            table[column] = [[*ids[:3], wrong, *ids[4:]] for ids in table[column]]
            table.to_parquet(file)
    for command in (["heads", "--head", "0.0"], ["attention"], ["export", "--head", "0.0"]):
        target = ["-o", str(tmp_path / "written.safetensors")] if command[0] != "heads" else []
        assert invoke([command[0], str(changed), *command[1:], *target]) == 2
        said = capsys.readouterr()
        (line,) = said.err.strip().splitlines()
        assert re.search(rf"text 'p\d\d': position 3 has token {wrong}, the model '.*' has only 40 tokens$", line)
    assert not list(tmp_path.glob("written*"))


def test_rows_in_words(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fit = refit(run, "2.1")
    query = int(np.argmax(fit.counts))
    command = ["heads", str(run.path), "--head", "2.1", "--query", fit.pieces[query], "--top", "4"]
    assert invoke([*command, "--format", "markdown"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    weight = np.exp(fit.logits(np.array([query]), np.arange(len(fit.ids)))[0])
    row = weight / weight.sum()
    order = np.argsort(-row)[:4]
    assert [line.split("|")[1].strip() for line in lines] == [json.dumps(fit.pieces[key]) for key in order]
    assert [line.split("|")[2].strip() for line in lines] == [number(row[key]) for key in order]
    assert invoke(["heads", str(run.path), "--head", "2.1"]) == 0
    assert "Top keys of the most frequent queries" in capsys.readouterr().out
    assert invoke(["heads", str(run.path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "by what their best surrogate explains" in printed
    assert "What surrogates explain of each kind of heads" in printed


def test_tokens_are_shown_escaped() -> None:
    assert head_export.escaped(" the") == '" the"'
    assert head_export.escaped("\x1b[31m\n") == "'\\x1b[31m\\n'"
    assert head_export.escaped("\u202e") == "'\\u202e'"


def test_the_page_holds_data_and_nothing_that_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.models import pieces

    monkeypatch.setattr(pieces, "piece_maker", lambda *_: lambda token: HOSTILE)
    target = tmp_path / "page.html"
    assert invoke(["attention", str(run.path), "--head", "0.1,2.3", "-o", str(target)]) == 0
    page = target.read_text(encoding="utf-8")
    assert page.count("<script") == 2
    assert "<img" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    found = re.search(r'<script type="application/json" id="attention">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    assert {head["name"] for head in data["heads"]} == {"0.1", "2.3"}
    assert data["texts"][0]["pieces"][0] == HOSTILE
    first = data["heads"][0]
    size = (len(data["texts"][0]["pieces"]) - 1) * (max(data["texts"][0]["columns"]) + 1)
    assert {"model", "ccmc-fit", "pccmc-weights"} <= set(first["sources"])
    assert all(len(base64.b64decode(mass)) == size for mass in first["sources"].values())


def test_pictures_come_out_the_same_twice(run: Run, tmp_path: Path) -> None:
    names = {path.name for path in (run.path / "plots").glob("heads-*.svg")}
    assert len(names) == 5  # drawn after the run: explained and kinds of two strategies, and all heads together
    rows = run.rows[run.rows["experiment"] == "heads"]
    written = write_figures(tmp_path, figures(rows, run.trajectories))
    assert {path.name for path in written} == names
    for path in written:
        assert path.read_bytes() == (run.path / "plots" / path.name).read_bytes()
    kinds = next(path for path in written if "kinds" in path.name).read_text(encoding="utf-8")
    assert "what each head attends to" in kinds
