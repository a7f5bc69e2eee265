"""Every shipped config runs as it is, and the committed reference runs are those of the shipped configs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from float32 import kl_tolerance
from transformers import AutoConfig, AutoModelForCausalLM

import harness
from harness.config.load import load_config, shipped_configs
from harness.core import registry
from harness.core.errors import UsageError
from harness.data.prompts import load_prompts
from harness.experiments._shared.claims_words import verdict_table

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    path.relative_to(shipped_configs()).as_posix()
    for path in shipped_configs().rglob("*.yaml")
    if path.relative_to(shipped_configs()).parts[0] not in {"parts", "prompts"}
)


PAPER = sorted(path.stem for path in (shipped_configs() / "paper").glob("*.yaml") if path.stem != "all")


def test_there_are_configs() -> None:
    assert "quickstart.yaml" in CONFIGS


def test_all_of_the_paper_is_every_one_of_its_configs() -> None:
    """So running each of them has run it: it is left out of the walk."""
    parts = [name for name in CONFIGS if name.startswith("paper/") and name != "paper/all.yaml"]
    separate = [experiment for name in parts for experiment in load_config(name).config.experiments]
    together = load_config("paper/all.yaml").config.experiments
    assert sorted(map(repr, together)) == sorted(map(repr, separate))


def local_texts(name: str, folder: Path) -> list[str]:
    """Settings that put a small file in the place of the texts that a config fetches; none where it fetches none."""
    if not any(e.kind == "heads" and e.texts is not None for e in load_config(name).config.experiments):
        return []
    texts = [prompt.text for prompt in load_prompts(load_config("quickstart"))]
    lines = [json.dumps({"text": " ".join(texts[first : first + 24])}) for first in range(0, 72, 24)]
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    given = {"dataset": folder / "texts.jsonl", "subset": "null", "split": "train"}
    return [f"experiments.heads.texts.{key}={value}" for key, value in given.items()]


def test_prose_that_is_not_there_is_named(tmp_path: Path) -> None:
    loaded = load_config("heads/prose", overrides=[f"experiments.heads.texts.dataset={tmp_path / 'none.jsonl'}"])
    with pytest.raises(UsageError, match=r"experiments\.heads\.texts: .*none\.jsonl.*no such file"):
        registry.experiment("heads").documents(loaded.config.experiments[0], loaded)


@pytest.fixture(scope="module")
def thin(smollm2: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape and the tokenizer of SmolLM2, with heads of 4 dimensions and random weights: a walk takes seconds."""
    folder: Path = tmp_path_factory.mktemp("thin")
    for file in smollm2.path.iterdir():
        if file.suffix in {".json", ".jinja"} and file.name != "ccmc-source.json":
            shutil.copy(file, folder)
    shape = AutoConfig.from_pretrained(smollm2.path)
    shape.head_dim, shape.hidden_size, shape.intermediate_size = 4, 4 * shape.num_attention_heads, 48
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)  # heads that attend to something, and laws that are not flat
    model.save_pretrained(folder)
    return folder


WITH_WEIGHTS = ("quickstart.yaml", "smoke.yaml")
"""What walks through the weights themselves; their figures are compared elsewhere."""


@pytest.mark.weights
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "paper/all.yaml"])
def test_a_config_runs_with_a_limit(name: str, thin: Path, tmp_path: Path) -> None:
    changed = local_texts(name, tmp_path)
    if load_config(name).config.models == ("smollm2-135m",) and name not in WITH_WEIGHTS:
        changed.append(f"models=[{thin}]")
    run = harness.run(name, limit=1, out=tmp_path / "run", overrides=changed)
    assert run.state == "complete"
    kinds = {experiment.kind for experiment in load_config(name).config.experiments}
    assert kinds <= set(run.rows["experiment"])
    tables = run.tables()
    assert len(tables) >= len(kinds)
    assert all(table.rows for table in tables)
    if "heads" in kinds:
        rows = run.rows
        exact = rows[(rows["metric"] == "kl") & (rows["layer"] == 0) & (rows["surrogate"] == "pccmc-weights")]["value"]
        assert len(exact) > 0
        assert exact.max() <= kl_tolerance(512)


def test_the_reference_run_is_that_of_the_shipped_config() -> None:
    manifest = harness.load_run(ROOT / "results" / "reference" / "quickstart").manifest
    assert manifest["state"] == "complete"
    assert manifest["git"]["dirty"] is False
    assert manifest["config"] == load_config("quickstart").config.model_dump(mode="json")


def test_the_papers_reference_runs_have_verdicts() -> None:
    runs = sorted((ROOT / "results" / "reference" / "paper").iterdir())
    assert [run.name for run in runs] == PAPER
    table = verdict_table(pd.concat([harness.load_run(run).rows for run in runs], ignore_index=True))
    assert set(table.column("experiment")) == set(PAPER)
    counts = [cell for name in ("agree", "differ", "unjudged") for cell in table.column(name)]
    judged = sum(int(harness.load_run(run).rows["verdict"].notna().sum()) for run in runs)
    assert sum(cell for cell in counts if isinstance(cell, int)) == judged


@pytest.mark.parametrize("kind", PAPER)
def test_the_papers_reference_runs_are_those_of_the_shipped_configs(kind: str) -> None:
    run = harness.load_run(ROOT / "results" / "reference" / "paper" / kind)
    assert run.manifest["state"] == "complete"
    assert run.manifest["git"]["dirty"] is False
    config = load_config(f"paper/{kind}").config.model_dump(mode="json")
    assert run.manifest["config"] == config
    assert config["experiments"] == [
        e for e in load_config("paper/all").config.model_dump(mode="json")["experiments"] if e["kind"] == kind
    ]
    assert (run.path / "plots" / f"{kind}.svg").is_file()
    assert set(run.rows["verdict"].dropna()) <= {
        "agrees", "differs", "holds", "does not hold", "no interval", "no value",
    }  # fmt: skip


def test_ci_calls_the_test_command_of_the_readme() -> None:
    commands = re.findall(
        r"^pip install .*&& pytest.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_reference_run_of_heads_is_that_of_the_shipped_config() -> None:
    run = harness.load_run(ROOT / "results" / "reference" / "heads" / "smollm2")
    assert run.manifest["state"] == "complete"
    assert run.manifest["git"]["dirty"] is False
    assert run.manifest["config"] == load_config("heads/smollm2").config.model_dump(mode="json")
