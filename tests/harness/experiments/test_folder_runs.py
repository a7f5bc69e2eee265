"""Whole runs on what a tiny model's folder brings along: how texts begin, special strings, ids, its attention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_models
from tokenizers import processors

import harness
from harness.cli.app import invoke
from harness.config.load import load_config
from harness.core.hashing import canonical_hash
from harness.data.prompts import load_prompts
from harness.models.tokenizers import make_reader, read_prompts

HEADS = {"kind": "heads", "layers": [0], "surrogates": ["counts"]}
GIVEN = {"dataset": "texts.json", "windows": None, "min_tokens": 3}
QUICKSTART = "0262e5c3bc22c020ba6766a1856ebc2c5817758c111f2bf7897297f334204e2f"


def saved(folder: Path, bos: bool = False) -> Path:
    """A model of 40 tokens with a tokenizer of 41; with `bos`, texts begin with w0 and end with <eos>."""
    small_models.llama(1, scale=0.4).save_pretrained(folder)
    tokenizer = small_models.tokenizer()
    tokenizer.add_tokens(["beyond"])
    tokenizer.bos_token = "w0"
    if bos:
        ids = [("w0", 2), ("<eos>", 1)]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="w0 $A <eos>", special_tokens=ids
        )
    tokenizer.save_pretrained(folder)
    return folder


def write(folder: Path, model: Path, experiments: list[Any], texts: list[str], **generation: Any) -> Path:
    for name, each in (("prompts", small_models.random_texts(4, 8, seed=1)), ("texts", texts)):
        items = [{"id": f"{name[0]}{i}", "kind": "a", "text": text.replace("w0", "w1")} for i, text in enumerate(each)]
        (folder / f"{name}.json").write_text(json.dumps(items))
    config = {
        "name": "texts",
        "models": [str(model)],
        "prompts": "prompts.json",
        "held_out": 0.5,
        "generation": {"max_new_tokens": 4, "strategies": ["greedy"], **generation},
        "experiments": experiments,
    }
    (folder / "c.yaml").write_text(json.dumps(config))
    return folder / "c.yaml"


@pytest.mark.parametrize(("adds", "bos", "begins"), [(False, "always", True), (True, "never", False)])
def test_bos_begins_every_text_of_a_run_or_none(tmp_path: Path, adds: bool, bos: str, begins: bool) -> None:
    model = saved(tmp_path / "model", adds)
    experiments = [{"kind": "generation", "rollout_seeds": 1, "surrogates": ["counts"], "mean_field": False}]
    experiments.append({**HEADS, "texts": GIVEN, "max_length": 8})
    config = write(tmp_path, model, experiments, small_models.random_texts(4, 20), bos=bos)
    run = harness.run(config, out=tmp_path / "run")
    texts = run.trajectories[run.trajectories["source"].isin(["model", "text"])]
    assert set(texts["source"]) == {"model", "text"}
    assert len(texts[texts["source"] == "text"]) > 8  # later windows too
    for ids in texts["prompt_tokens"]:
        assert (ids[0] == 2) == begins
        assert list(ids).count(2) == int(begins)
        assert 1 not in ids
    said = [note for note in run.manifest.get("notes", []) if "'<eos>' after a text: left out" in note]
    assert bool(said) == adds


@pytest.mark.parametrize(
    ("experiment", "what"),
    [
        ({**HEADS, "texts": GIVEN}, "experiments.heads.texts: document 't3'"),
        ({"kind": "count-ablation", "prose": "texts.json"}, "experiments.count-ablation.prose: text 't3'"),
    ],
    ids=["texts of heads", "prose"],
)
def test_texts_that_the_model_cannot_take_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], experiment: Any, what: str
) -> None:
    model = saved(tmp_path / "model")
    for word, problem in (
        ("beyond", "position 2 has token 40, 'beyond', the model"),
        ("<eos>", "holds '<eos>', a special string that the tokenizer of"),
    ):
        texts = [*small_models.random_texts(3, 12), f"w1 w2 {word} w3 w4"]
        config = write(tmp_path, model, [experiment], texts)
        assert invoke(["run", str(config), "--out", str(tmp_path / "run")]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert what in line
        assert problem in line
    assert not (tmp_path / "run").exists()


def test_special_strings_of_given_texts_are_tokens_on_request(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    texts = [f"{text} <eos> w3 w4" for text in small_models.random_texts(4, 12)]
    config = write(tmp_path, model, [{**HEADS, "texts": GIVEN}], texts, special_strings="parse")
    run = harness.run(config, out=tmp_path / "run")
    stored = run.trajectories[run.trajectories["source"] == "text"]
    assert [list(ids).count(1) for ids in stored["prompt_tokens"]] == [1] * 4
    assert any("4 documents hold 4 special strings ('<eos>'), read as tokens" in note for note in run.manifest["notes"])


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_run_sets_the_attention_of_a_config_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    models = saved(tmp_path / "plain"), saved(tmp_path / "flash")
    about = json.loads((models[1] / "config.json").read_text())
    (models[1] / "config.json").write_text(json.dumps({**about, key: "flash_attention_2"}))
    plain, run = (
        harness.run(
            write(tmp_path, model, [{**HEADS, "texts": GIVEN}], small_models.random_texts(4, 12)),
            out=tmp_path / f"run-{model.name}",
        )
        for model in models
    )
    note = f'set aside: {key} "flash_attention_2"'
    assert any(note in said for said in run.manifest["notes"])
    assert run.rows["value"].tolist() == plain.rows["value"].tolist()
    assert invoke(["show", str(run.path)]) == 0
    assert note in " ".join(capsys.readouterr().out.split())


@pytest.mark.weights
def test_the_ids_of_the_quickstart_prompts_never_change(smollm2: Any) -> None:
    """They are those of the reference run, which compares and gates rest on."""
    loaded = load_config("quickstart")
    prompts = load_prompts(loaded)
    reader = make_reader(smollm2.path, "smollm2-135m", loaded.config.generation)
    found = read_prompts(reader, smollm2.path, [(p.id, p.text, p.chat) for p in prompts], 128)
    assert len(found) == 50
    assert canonical_hash({name: canonical_hash(ids) for name, ids in found.items()}) == QUICKSTART
