"""Surrogates of a finished run as models of transformers: what they give is what the run measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_repetition_run import write_config
from transformers import AutoModelForCausalLM, AutoTokenizer

import harness
import harness.hf
from harness.cli.app import invoke
from harness.experiments._shared.continuations import read_continuations

CHANGES = {
    "surrogates": ["unigram", "bigram", "suffix", "context-logit", "context-logit-closed"], "removed": False,
    "on_policy": 0, "regimes": "none", "alternatives": {}, "warm_starts": [0], "hazard_rollouts": 0,
    "laws": ["decoded", "raw"], "choice_prompts": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Any:
    folder = tmp_path_factory.mktemp("exported")
    return harness.run(write_config(folder, small_model, **CHANGES), out=folder / "run", executor="serial")


def texts(run: Any, fold: int) -> list[Any]:
    """The model's greedy texts of the prompts of a fold."""
    units = [json.loads(path.read_text(encoding="utf-8")) for path in run.path.glob("units/*/unit.json")]
    unit = next(one for one in units if one["task"].endswith("units:fold") and one["settings"]["judged"] == fold
                and one["settings"]["strategy"] == "greedy")  # fmt: skip
    folder = run.path / "units" / unit["needs"][0]
    return [c for c in read_continuations(folder) if unit["settings"]["folds"][c.prompt] == fold]


@pytest.mark.parametrize(
    ("name", "options"),
    [("context-logit", ["--law", "raw"]), ("context-logit", ["--rung", "counts"]), ("bigram", []), ("suffix", []),
     ("unigram", []), ("context-logit-closed", ["--law", "raw"])],
)  # fmt: skip
def test_an_exported_model_has_the_loss_of_the_rows(
    run: Any, name: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    assert invoke(["export", str(run.path), str(folder), "--surrogate", name, "--fold", "1", *options]) == 0
    assert ("closed: tokens outside" in capsys.readouterr().out) == name.endswith("closed")
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    law, rung = ("raw" if "raw" in options else "decoded"), ("counts" if "counts" in options else None)
    rows = run.rows[(run.rows["metric"] == "log_loss") & (run.rows["surrogate"] == name) & (run.rows["fold"] == 1)]
    rows = rows[rows["strategy"] == "greedy"]
    judged = 0
    for c in texts(run, 1):
        for row in rows[rows["prompt"] == c.prompt].to_dict("records"):
            at = json.loads(row["condition"])
            wanted = rung or ("recency + followed-by-1" if "logit" in name else None)
            if at["law"] != law or at.get("rung") != wanted:
                continue
            with torch.inference_mode():
                log = model(torch.from_numpy(c.tokens)[None]).logits[0, :-1].double()
            start = len(c.prompt_tokens)
            came = log.gather(-1, torch.from_numpy(c.tokens[1:])[:, None])[start - 1 :, 0]
            if row["value"] is None or np.isnan(row["value"]):
                assert torch.isinf(came).any()
            else:
                assert -float(came.mean()) == pytest.approx(row["value"], rel=1e-4)
            judged += 1
    assert judged >= 3
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"fitted to the {law} law" in card
    assert AutoTokenizer.from_pretrained(folder).vocab_size > 0


def test_a_compact_model_keeps_the_likeliest_tokens(run: Any, tmp_path: Path) -> None:
    sizes = {}
    for name, more in (("whole", []), ("compact", ["--compact"])):
        assert invoke(["export", str(run.path), str(tmp_path / name), "--surrogate", "bigram", *more]) == 0
        model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        p = model(torch.tensor([[3, 4, 5]])).logits[0].double().exp()
        assert float((p.sum(-1) - 1).abs().max()) < 1e-3
        sizes[name] = model.config.tables["width"]
    assert sizes["compact"] == 0 < sizes["whole"]
    assert "likeliest tokens and a tail" in (tmp_path / "compact" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--surrogate", "context-logits"], "did you mean 'context-logit'"),
        (["--surrogate", "unigram-cache"], "can be exported"),
        (["--surrogate", "bigram", "--fold", "7"], "--fold 7: the run has 0, 1"),
        (["--surrogate", "bigram", "--strategy", "gredy"], "did you mean 'greedy'"),
        (["--surrogate", "bigram", "--rung", "counts"], "--rung goes with context-logit"),
        (["--surrogate", "context-logit", "--rung", "count"], "did you mean 'counts'"),
        (["--surrogate", "bigram", "--law", "row"], "decoded or raw"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    run: Any, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["export", str(run.path), str(tmp_path / "m"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "m").exists()


def test_a_head_or_a_surrogate_is_needed(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["export", str(run.path)]) == 2
    assert "name a head" in capsys.readouterr().err
