"""Figures of generation and of the count ablation: what they show, and that they come out the same twice."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_rows import ABLATED, ablation_rows, generation_rows

from harness.core.records import Figure
from harness.core.style import context
from harness.experiments._shared.naming import labels
from harness.experiments.count_ablation import figures as ablation_figures
from harness.experiments.count_ablation.conditions import parts
from harness.experiments.generation.figures import dominance_curves, figures, temperature_of
from harness.measures.winners import dominance, winner_set


def trajectories() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for index in range(6):
        for source, seeds in (("model", 1), ("counts", 2)):
            for seed in range(seeds):
                rows.append(
                    {
                        "experiment": "continuations" if source == "model" else "generation",
                        "model": "m",
                        "strategy": "temperature=1",
                        "source": source,
                        "seed": seed,
                        "split": "held_out",
                        "prompt": f"p{index}",
                        "prompt_tokens": [1, 2, 3],
                        "continuation": rng.integers(0, 6, 30 + index).tolist(),
                    }
                )
    return pd.DataFrame(rows)


def test_dominance_is_averaged_over_seeds_and_then_over_prompts() -> None:
    part = trajectories()
    times, found = dominance_curves(part, "counts", times=5)
    assert times[0] == 1
    assert times[-1] == 35
    per_prompt = []
    for _, group in part[part["source"] == "counts"].groupby("prompt"):
        curves = [dominance(c, winner_set(c), [1, 2, 3]) for c in group["continuation"]]
        per_prompt.append(np.mean([c[times[2] - 1] for c in curves]))
    assert found[2].value == pytest.approx(np.mean(per_prompt))
    assert found[-1].n == 1  # only one prompt's continuation is so long


def test_temperatures_of_strategies() -> None:
    names = ("greedy", "temperature=0.7", "temperature=1,top_p=0.9", "beams=4")
    assert [temperature_of(name) for name in names] == [0.0, 0.7, None, None]


def svg(figure: Figure) -> str:
    out = io.StringIO()
    with context(figure.name):
        figure.draw().savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def test_every_figure_can_be_drawn_and_the_same_rows_give_the_same_bytes() -> None:
    rows = generation_rows(("m", "owner/n"), ("temperature=1",))
    found = figures(rows, trajectories())
    assert [figure.name for figure in found] == [
        "dominance-m", "strip-m", "temperature-m", "recovered-m", "winners-m-temperature=1",
        "repetition-m-temperature=1",
        "temperature-n", "recovered-n", "winners-n-temperature=1", "repetition-n-temperature=1",
    ]  # fmt: skip
    for figure, again in zip(found, figures(rows, trajectories()), strict=True):
        assert svg(figure) == svg(again)


def test_what_the_figures_show() -> None:
    found = {figure.name: svg(figure) for figure in figures(generation_rows(), trajectories())}
    assert "recovered share: 0 is another prompt, 1 the model itself" in found["recovered-m"]
    assert ">counts<" in found["recovered-m"]
    assert "other prompt (floor)" in found["winners-m-temperature=1"]
    assert "surrogate - model" in found["repetition-m-temperature=1"]
    assert all(label in found["temperature-m"] for label in (">model<", ">near<", "temperature (0: greedy)"))
    without = {figure.name: svg(figure) for figure in figures(generation_rows(ceiling=1.0), trajectories())}
    assert "agrees with" in without["recovered-m"]  # the reason is shown where no share can be given


def test_nothing_is_drawn_before_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.figure.Figure.__init__", None)
    assert len(figures(generation_rows(), trajectories())) == 6
    assert len(ablation_figures.figures(ablation_rows(), trajectories())) == 1


def test_without_rows_or_continuations() -> None:
    empty = trajectories().iloc[:0]
    assert figures(generation_rows().iloc[:0], empty) == []
    names = {figure.name for figure in figures(generation_rows(strategies=("beams=4",)), empty)}
    assert names == {"recovered-m", "winners-m-beams=4", "repetition-m-beams=4"}


def test_models_that_end_alike_have_files_of_their_own() -> None:
    assert labels(["a/same", "b/same", "../other"]) == {
        "a/same": "a-same", "b/same": "b-same", "../other": "other",
    }  # fmt: skip


def test_the_ablation_is_drawn_against_its_strength_and_its_cost() -> None:
    (part,) = parts(ablation_rows())
    curves = ablation_figures.by_strength(part)
    assert {place: [strength for strength, _ in curve] for place, curve in curves.items()} == {
        "all": [0.0, 0.5, 1.0], "first-half": [0.0, 1.0], "second-half": [0.0, 1.0],
    }  # fmt: skip
    assert [found.value for _, found in curves["all"]] == pytest.approx([0.5, 0.45, 0.4])
    drawn = ablation_figures.by_loss(part)
    assert [condition for condition, _, _ in drawn] == list(ABLATED)
    assert [(loss, repeats) for _, loss, repeats in drawn] == [
        (pytest.approx(loss), pytest.approx(repeats)) for repeats, loss in ABLATED.values()
    ]
    (figure,) = ablation_figures.figures(ablation_rows(), trajectories())
    assert figure.name == "count-ablation-m"
    assert "loss on prose (nats per token)" in svg(figure)
    rows = ablation_rows()
    gone = rows.index[(rows["metric"] == "loss_prose") & rows["condition"].str.contains("1.2")][0]
    rows.loc[gone, "value"] = None
    (part,) = parts(rows)
    assert len(ablation_figures.by_loss(part)) == len(ABLATED) - 1  # infinite on one text: it has no place
