"""The experiment of the count ablation: its conditions, its losses, and a whole run of a small model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import torch
import yaml
from float32 import FLOAT64, in_float64

import harness
from harness.core.records import Interval
from harness.core.rows import Rows
from harness.experiments.count_ablation.conditions import NONE, change, contrast, less_penalty, name, parts
from harness.experiments.count_ablation.plan import conditions
from harness.experiments.count_ablation.settings import CountAblation
from harness.experiments.count_ablation.tables import cost, tables
from harness.experiments.count_ablation.units import chosen_heads, text_loss
from harness.runs.verify import verify
from harness.stats.power import smallest_difference

RANKED = [[layer, head] for layer in (2, 0, 3, 1) for head in range(4)]


def test_conditions_and_their_heads() -> None:
    settings = CountAblation(kind="count-ablation", prose="p.yaml", strengths=(1.0, 0.5), random_draws=2)
    made = conditions(settings, None)
    assert made[0] == {"ablation": "none"}
    assert made[1:3] == [{"ablation": "all", "strength": 0.5}, {"ablation": "all", "strength": 1.0}]
    assert sum(c.get("ablation") == "random-heads" for c in made) == 2
    few = conditions(settings, 1)
    assert sum(c.get("ablation") == "random-heads" for c in few) == 1
    assert [c["strength"] for c in few if c.get("ablation") == "all"] == [1.0]
    assert [c for c in few if "repetition_penalty" in c] == [{"repetition_penalty": 1.2}]

    def heads(part: str, **more: Any) -> Any:
        return chosen_heads({"ablation": part, **more}, RANKED, 5, 0)

    assert heads("all") == {0: None, 1: None, 2: None, 3: None}
    assert heads("first-half") == {0: None, 1: None}
    assert heads("second-half") == {2: None, 3: None}
    assert heads("best-heads") == {2: [0, 1, 2, 3], 0: [0]}
    first, second = heads("random-heads", draw=0), heads("random-heads", draw=1)
    assert sum(map(len, first.values())) == sum(map(len, second.values())) == 5
    assert first != second
    assert first == heads("random-heads", draw=0)


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.3}, {"no_repeat_ngram": 3}])
@in_float64()
def test_the_loss_of_a_text(options: dict[str, Any]) -> None:
    model = small_models.llama(2, scale=0.4).double()
    ids = np.random.default_rng(3).integers(2, 40, 14).tolist()
    total = 0.0
    for t in range(4, 14):
        with torch.inference_mode():
            logits = model(torch.tensor([ids[:t]])).logits[0, -1].double().numpy()
        for token in set(ids[:t]):
            if "repetition_penalty" in options:
                logits[token] = logits[token] / 1.3 if logits[token] > 0 else logits[token] * 1.3
        if "no_repeat_ngram" in options:
            for s in range(t - 2):
                if ids[s : s + 2] == ids[t - 2 : t]:
                    logits[ids[s + 2]] = -np.inf
        total -= logits[ids[t]] - np.log(np.exp(logits).sum())
    assert text_loss(model, ids, 4, options) == pytest.approx(total / 10, abs=FLOAT64)
    assert np.isinf(text_loss(model, [5, 6, 7, 5, 6, 7], 1, {"no_repeat_ngram": 3}))


def test_penalties_at_the_same_loss_are_interpolated() -> None:
    rows = Rows(experiment="count-ablation", model="m", split="held_out")
    figures = {
        NONE: (0.5, 3.0), '{"repetition_penalty": 1.1}': (0.3, 3.1), '{"repetition_penalty": 1.2}': (0.1, 3.4),
        '{"ablation": "all", "strength": 1.0}': (0.4, 3.2), '{"ablation": "all", "strength": 2.0}': (0.2, 9.0),
    }  # fmt: skip
    for condition, (repetition, loss) in figures.items():
        for index in range(6):
            rows.add("seq_rep_4", repetition + 0.01 * index, prompt=f"p{index}", condition=json.loads(condition))
            rows.add("loss_prose", loss + 0.1 * index, prompt=f"t{index}", condition=json.loads(condition))
    (part,) = parts(rows.frame())
    one, two = list(figures)[3:]
    assert change(part, one, "seq_rep_4").interval.value == pytest.approx(-0.1)

    def less(condition: str) -> Any:
        own = part.sample(condition, "seq_rep_4")
        return less_penalty(part, own, cost(part, condition, "loss_prose").value).interval

    # a third of the distance from 1.1 (.1 nats, .325) to 1.2 (.4 nats, .125); the ablation has .425
    assert less(one).value == pytest.approx(0.425 - (0.325 - 0.2 / 3))
    assert less(two).value is None
    assert less(two).missing == "no penalty that was measured costs as much"
    rows.add("loss_prose", None, missing="infinite", prompt="t9", condition=json.loads(two))
    (part,) = parts(rows.frame())
    assert cost(part, two, "loss_prose").missing == "infinite in 1 texts"
    assert cost(part, one, "loss_prose").value == pytest.approx(0.2)
    found = {table.name: table for table in tables(rows.frame())}
    strengths = found["count-ablation.strengths"]
    assert strengths.column("taken away")[3:] == ["count x 1, all heads", "count x 2, all heads"]
    assert found["count-ablation.losses"].column("prose, infinite") == [0, 0, 0, 0, 1]
    least = strengths.column("findable")
    assert least[0] is None  # nothing was done
    for found_change, smallest in list(zip(strengths.column("change"), least, strict=True))[1:]:
        assert isinstance(found_change, Interval)
        assert smallest == smallest_difference(found_change)
    assert "findable: the smallest true difference" in strengths.caption


def test_parts_of_the_model_are_compared_on_the_same_prompts() -> None:
    rows = Rows(experiment="count-ablation", model="m", split="held_out")
    for index in range(6):
        best = {"ablation": "best-heads", "strength": 1.0}
        rows.add("seq_rep_4", 0.5 + 0.05 * index, prompt=f"p{index}", condition=best)
        for draw, away in enumerate((0.1, 0.3)):
            drawn = {"ablation": "random-heads", "strength": 1.0, "draw": draw}
            rows.add("seq_rep_4", 0.5 + 0.04 * index - away, prompt=f"p{index}", condition=drawn)
    rows.add("seq_rep_4", 9.0, prompt="alone", condition={"ablation": "best-heads", "strength": 1.0})
    (part,) = parts(rows.frame())
    found = contrast(part, "best-heads", "random-heads", "seq_rep_4").interval
    assert found.n == 6
    assert found.value == pytest.approx(0.225)
    assert found.low is not None
    assert 0.2 <= found.low < 0.225
    assert contrast(part, "first-half", "second-half", "seq_rep_4").interval.value is None
    assert name('{"ablation": "random-heads", "draw": 1, "strength": 1.0}') == "count x 1, random heads, draw 2"


def test_a_whole_run(tmp_path: Path, small_model: Path) -> None:
    texts = small_models.random_texts(10, 9)
    prompts = [{"id": f"p{i:02}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    prose = [{"id": f"t{i}", "kind": "t", "text": t} for i, t in enumerate(small_models.random_texts(4, 30, 5))]
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    (tmp_path / "prose.yaml").write_text(yaml.safe_dump(prose))
    experiment = {
        "kind": "count-ablation", "strengths": [1.0], "heads": 3, "random_draws": 1, "repetition_penalties": [1.2],
        "prose": "prose.yaml", "max_length": 24,
    }  # fmt: skip
    config = {
        "name": "ablation", "models": [str(small_model)], "prompts": "prompts.yaml", "held_out": 0.4,
        "generation": {"max_new_tokens": 20, "strategies": ["greedy"], "ignore_eos": True}, "experiments": [experiment],
    }  # fmt: skip
    (tmp_path / "ablation.yaml").write_text(yaml.safe_dump(config))
    run = harness.run(tmp_path / "ablation.yaml", out=tmp_path / "run")
    rows = run.rows[(run.rows["experiment"] == "count-ablation") & (run.rows["split"] == "held_out")]
    by = rows[rows["metric"] == "seq_rep_1"].groupby("condition")["prompt"].nunique()
    assert set(by) == {4}
    assert len(by) == 8
    assert rows[rows["metric"] == "loss_prose"].groupby("condition")["prompt"].nunique().eq(4).all()
    ranking = run.rows[run.rows["metric"] == "cross_entropy"]
    assert len(ranking) == 18
    assert set(ranking["split"]) == {"train"}
    losses = rows[(rows["metric"] == "loss_prose") & rows["value"].notna()].groupby("condition")["value"].mean()
    assert losses.nunique() >= 6  # every condition changes the model, each in its own way
    forbidden = rows[rows["condition"].str.contains("no_repeat_ngram") & rows["value"].isna()]
    assert set(forbidden["missing"]) <= {"infinite: the penalty forbids a token that was written", "no loop",
                                         "dominance ends below 0.9", "no winner occurs twice"}  # fmt: skip
    made = tables(run.rows[run.rows["experiment"] == "count-ablation"])
    assert [t.name for t in made] == [f"count-ablation.{n}" for n in ("places", "strengths", "losses", "contrasts")]
    assert len(made[1].rows) == 8
    assert run.state == "complete"
    stored = run.trajectories[run.trajectories["source"] == "text"]
    read = small_models.read(small_models.tokenizer(), prose[1]["text"])[:24]
    assert {row["prompt"]: list(row["prompt_tokens"]) for row in stored.to_dict("records")}["t1"] == read
    assert len(stored) == 4 and verify(tmp_path / "run").problems == ()
