"""What causes repetition, with a small model through the command: run, show, table, resume; and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import families
import numpy as np
import pandas as pd
import pytest
import small_models
import torch
import yaml

import harness
from harness.attention.interventions import intervene
from harness.experiments._shared.continuations import read_continuations
from harness.experiments.causes.calibrating import CLOSE
from harness.experiments.causes.learning import read_change
from harness.models import loading
from harness.runs.verify import verify

COMMAND = [sys.executable, "-m", "harness.cli"]


def ccmc(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, check=False, timeout=400)


def with_sinks() -> Any:
    """A GPT-2 of three layers, two heads in each of the first two of which attend to the first position."""
    model = families.build(families.FAMILIES["gpt2"])
    with torch.no_grad():
        direction = torch.zeros(48)
        direction[:2] = torch.tensor([1.0, -1.0])
        model.transformer.wpe.weight[0] = 30 * direction
        for block in model.transformer.h[:2]:
            for head in (0, 3):
                block.attn.c_attn.bias[8 * head] = 4.0
                block.attn.c_attn.weight[:, 48 + 8 * head] = 4 * direction
    return model


@pytest.fixture(scope="module")
def causes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a finished run, and of its model."""
    folder = tmp_path_factory.mktemp("causes")
    model = small_models.save(with_sinks(), folder / "model")
    texts = small_models.random_texts(18, 9)
    prompts = [
        {"id": f"p{i:02}", "kind": "ab"[i % 2], "group": f"g{i // 2}", "text": text} for i, text in enumerate(texts)
    ]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    human = [{"id": f"h{i}", "kind": "h", "text": text} for i, text in enumerate(small_models.random_texts(8, 15, 5))]
    (folder / "human.yaml").write_text(yaml.safe_dump(human))
    experiment = {
        "kind": "causes", "interventions": ["sink", "mlp-noise", "frequency-penalty"],
        "random_like": ["sink"], "levels": [0.01, 0.05, 4.0], "generate": [0.05, 4.0], "texts": "human.yaml",
        "max_length": 24, "repeats": 3,
    }  # fmt: skip
    config = {
        "name": "causes", "models": [str(model)], "prompts": "prompts.yaml", "held_out": 0.5,
        "generation": {
            "max_new_tokens": 12, "strategies": ["greedy", {"temperature": 1.0}], "seeds": 2, "ignore_eos": True,
        },
        "experiments": [experiment],
    }  # fmt: skip
    (folder / "causes.yaml").write_text(yaml.safe_dump(config))
    done = ccmc("run", "causes.yaml", "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run", model


def rows_of(run: Path, metric: str) -> pd.DataFrame:
    rows = harness.load_run(run).rows
    rows = rows[(rows["metric"] == metric) & (rows["experiment"] == "causes")].reset_index(drop=True)
    factors = pd.DataFrame([json.loads(text) for text in rows["condition"]])
    return rows.drop(columns="condition").join(factors.drop(columns="n", errors="ignore"))


def test_strengths_are_set_on_one_half_and_reported_on_the_other(causes: tuple[Path, Path]) -> None:
    """One loss again, from logits of the model inside and outside of a block."""
    run, path = causes
    strengths = rows_of(run, "strength").set_index(["intervention", "text", "level"])
    reached = strengths[strengths["value"].notna()]
    assert {name for name, _, _ in reached.index} >= {"sink", "mlp-noise", "frequency-penalty"}
    rises = rows_of(run, "loss_rise")
    for (name, text, level), own in rises[rises["split"] == "train"].groupby(["intervention", "text", "level"]):
        assert abs(float(own["value"].iloc[0]) - level) <= CLOSE * level, (name, text)
    held_out = rises[rises["split"] == "held_out"]
    folders = [folder for folder in sorted((run / "units").iterdir()) if folder.is_dir()]
    model = loading.load_model(path, "cpu")
    pieces = {c.prompt: c.tokens for f in folders for c in _texts(f) if c.prompt.startswith("h")}
    for name in ("sink", "mlp-noise"):
        one = held_out[(held_out["intervention"] == name) & (held_out["text"] == "human")].iloc[0]
        ids = torch.as_tensor(pieces[one["prompt"]])
        change = read_change(model, folders, name, "all", 0)
        assert change is not None
        value = [_loss(model, ids)]
        with intervene(model, change, float(strengths.loc[(name, "human", one["level"]), "value"])):
            value.append(_loss(model, ids))
        assert one["value"] == pytest.approx(value[1] - value[0], abs=1e-5)
        assert abs(value[1] - value[0]) > 1e-4


def _loss(model: Any, ids: torch.Tensor) -> float:
    with torch.inference_mode():
        return float(torch.nn.functional.cross_entropy(model(ids[None]).logits[0, :-1], ids[1:]))


def _texts(folder: Path) -> Any:
    return read_continuations(folder) if (folder / "trajectories.parquet").exists() else []


def test_texts_of_learning_matching_and_reporting_do_not_mix(causes: tuple[Path, Path]) -> None:
    run, _ = causes
    records = [json.loads(file.read_text()) for file in (run / "units").glob("*/unit.json")]
    by_task: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_task.setdefault(record["task"].rpartition(":")[2], []).append(record["settings"])
    (learned,) = by_task["learn"]
    parts = learned["parts"]
    groups = {name: f"g{int(name[1:]) // 2}" for name in parts}
    by_part = {part: {groups[n] for n, own in parts.items() if own == [part]} for part in ("learn", "match", "report")}
    assert all(by_part.values())
    assert sum(map(len, by_part.values())) == len(set().union(*by_part.values()))
    written = {prompt["id"] for settings in by_task["write"] for prompt in settings["prompts"]}
    assert not written & set(parts)
    assert not {f"g{int(name[1:]) // 2}" for name in written} & set(groups.values())
    for settings in by_task["calibrate"]:
        of_text = settings["parts"]
        assert {part for own in of_text.values() for part in own} == {"match", "report"}
        assert all(name.startswith("h" if settings["text"] == "human" else "p") for name in of_text)
        assert all(len(own) == 1 for own in of_text.values())


def test_levels_out_of_reach_are_missing_with_the_largest_loss(causes: tuple[Path, Path]) -> None:
    run, _ = causes
    strengths, largest = rows_of(run, "strength"), rows_of(run, "largest_rise")
    out = strengths[strengths["level"] == 4.0]
    unreached = out[out["value"].isna()]
    assert {"sink", "random like sink"} <= set(unreached["intervention"])
    assert unreached["missing"].str.contains("full strength").all()
    most = largest.set_index(["intervention", "text"])["value"]
    assert (most[[tuple(x) for x in unreached[["intervention", "text"]].to_numpy()]] < 4).all()
    written = rows_of(run, "seq_rep_4")
    none = written[(written["level"] == 4.0) & (written["intervention"] == "sink")]
    assert none["value"].isna().all()
    assert len(none) == 2 * 2 * 2  # a row for each strategy, context and sort of text


def test_contexts_are_prompts_and_repeated_sentences(causes: tuple[Path, Path]) -> None:
    run, _ = causes
    own = pd.read_parquet(run / "trajectories.parquet")
    own = own[own["experiment"] == "causes"]
    context = own["source"].map(lambda text: json.loads(text)["context"])
    for prompt, of_prompt in own.groupby("prompt"):
        (natural,) = {tuple(ids) for ids in of_prompt[context[of_prompt.index] == "natural"]["prompt_tokens"]}
        (repeated,) = {tuple(ids) for ids in of_prompt[context[of_prompt.index] == "set-up"]["prompt_tokens"]}
        assert repeated == natural * 3, prompt
    sampled = own[own["strategy"] == "temperature=1"]
    assert set(sampled["seed"]) == {0, 1}
    assert set(own[own["strategy"] == "greedy"]["seed"]) == {0}


def test_shown_and_tabled(causes: tuple[Path, Path]) -> None:
    run, _ = causes
    shown = ccmc("show", str(run), "--all", "--format", "markdown", cwd=run)
    assert shown.returncode == 0, shown.stderr
    for text in ("at matched loss", "Everything that was done", "How strong", "Which heads", "no-repeat-ngram"):
        assert text in shown.stdout
    table = ccmc("table", str(run), "--rows", "surrogate", "--columns", "strategy", "--metric", "seq_rep_4", cwd=run)
    assert table.returncode == 0, table.stderr
    assert "frequency-penalty" in table.stdout
    assert list(verify(run).problems) == []
    assert list((run / "plots").glob("causes-*.svg"))


def test_a_run_goes_on_where_it_stopped(causes: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = causes
    again = tmp_path / "again"
    shutil.copytree(run, again)
    before = pd.read_parquet(again / "rows.parquet")
    lost = [f.parent for f in (again / "units").glob("*/strengths.json")][:1]
    lost += [f for f in (again / "units").iterdir() if f.is_dir() and "context_rep_4" in _metrics(f)][:2]
    for folder in lost:
        shutil.rmtree(folder)
    kept = {f.name: (f / "rows.parquet").stat().st_mtime_ns for f in (again / "units").iterdir() if f.is_dir()}
    done = ccmc("run", "causes.yaml", "--out", str(again), cwd=run.parent)
    assert done.returncode == 0, done.stderr
    after = {f.name: (f / "rows.parquet").stat().st_mtime_ns for f in (again / "units").iterdir() if f.is_dir()}
    assert set(after) - set(kept) == {folder.name for folder in lost}
    assert all(after[name] == time for name, time in kept.items())
    pd.testing.assert_frame_equal(pd.read_parquet(again / "rows.parquet"), before)


def _metrics(folder: Path) -> set[str]:
    return set(pd.read_parquet(folder / "rows.parquet")["metric"])


def test_a_smoke_run(causes: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = causes
    done = ccmc("run", "causes.yaml", "--limit", "1", "--out", str(tmp_path / "smoke"), cwd=run.parent)
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "smoke", "strength")
    assert len(rows) == 3  # of four interventions, at one level, on one sort of texts
    assert np.isfinite(rows["value"].dropna()).all()
    assert all(table.rows for table in harness.load_run(tmp_path / "smoke").tables())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("experiments.causes.layers=[7]", "layers 0 to 2, not 7"),
        ("experiments.causes.interventions=[induktion]", "induction"),
        ("generation.strategies=[{beams: 2}]", "beam"),
        ("experiments.causes.texts=none.yaml", "no such file"),
        ("held_out=0.8", "cannot be split"),
        ("experiments.causes.repeats=13", "are 129 tokens"),
    ],
)
def test_wrong_input_is_one_line(causes: tuple[Path, Path], change: str, message: str, tmp_path: Path) -> None:
    done = ccmc("run", "causes.yaml", "--set", change, "--out", str(tmp_path / "no"), cwd=causes[0].parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
