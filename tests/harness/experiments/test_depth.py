"""The family of models of different depth: its data, its best predictor, its rounded copies, and what is said of it."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

import harness
from harness.core.rows import Rows
from harness.experiments._shared.claims import Claims, mean
from harness.experiments.depth import data as depth_data
from harness.experiments.depth import units as depth
from harness.experiments.depth.answers import answers
from harness.experiments.depth.figures import figures
from harness.experiments.depth.settings import Depth
from harness.experiments.depth.tables import tables

SMALL = {
    "kind": "depth",
    "layers": [1, 2],
    "positions": ["rotary"],
    "vocab_size": 4,
    "dimension": 8,
    "prompt_length": 6,
    "steps": 16,
    "training_steps": 6,
    "batch_size": 4,
    "surrogate_sequences": 8,
    "held_out_sequences": 4,
    "surrogates": ["counts", "in-context-bigram", "ccmc-fit"],
    "repetitions": 2,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = {"name": "depth", "seed": 3, "experiments": [SMALL]}
    return harness.run(config, out=tmp_path_factory.mktemp("depth") / "run")


def settings(**changes: Any) -> dict[str, Any]:
    return Depth(**{**SMALL, **changes}).model_dump() | {"seed": 0}


def test_every_sequence_has_a_chain_of_its_own_near_the_mean_chain() -> None:
    rng = np.random.default_rng(0)
    P0 = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])
    for concentration, spread in ((4.0, 0.19), (1e5, 0.0)):
        tokens = depth_data.draw(P0, concentration, 3000, 120, rng)
        counts = np.zeros((3000, 3, 3))
        np.add.at(counts, (np.repeat(np.arange(3000), 119), tokens[:, :-1].ravel(), tokens[:, 1:].ravel()), 1.0)
        often = counts[:, 1].sum(1) >= 20
        shares = counts[often, 1] / counts[often, 1].sum(1, keepdims=True)
        np.testing.assert_allclose(shares.mean(0), P0[1], atol=0.02)
        # Dirichlet with concentration c: variance p (1 - p) / (c + 1), and what 20 to 60 draws add
        n = counts[often, 1].sum(1)
        expected = (
            P0[1, 2] * (1 - P0[1, 2]) * (1 / (concentration + 1) + np.mean(1 / n) * concentration / (concentration + 1))
        )
        assert shares[:, 2].var() == pytest.approx(expected, rel=0.15)
        assert math.sqrt(P0[1, 2] * (1 - P0[1, 2]) / (concentration + 1)) == pytest.approx(spread, abs=0.02)


def test_the_best_predictor_is_its_definition_and_beats_every_other() -> None:
    rng = np.random.default_rng(1)
    P0 = rng.dirichlet(np.ones(4), 4)
    tokens = depth_data.draw(P0, 3.0, 400, 40, rng)
    by_hand = []
    for text in tokens[:20].tolist():
        met = np.zeros((4, 4))
        for place, (last, now) in enumerate(pairwise(text), 1):
            if place >= 6:
                by_hand.append(-math.log((3.0 * P0[last, now] + met[last, now]) / (3.0 + met[last].sum())))
            met[last, now] += 1
    assert depth_data.best_loss(tokens[:20], P0, 3.0, 6) == pytest.approx(np.mean(by_hand), rel=1e-12)
    best = depth_data.best_loss(tokens, P0, 3.0, 6)
    for other in (0.3, 30.0, 1e9):
        assert depth_data.best_loss(tokens, P0, other, 6) > best


def test_training_sees_every_sequence_once_and_nothing_that_is_judged() -> None:
    s = settings(training_steps=5, batch_size=7)
    data = depth_data.sequences(s, seed=0)
    assert data.train.shape == (35, 22)
    assert data.held_out.shape == (4, 22)
    every = [text.tobytes() for part in (data.train, data.stopping, data.held_out) for text in part]
    assert len(set(every)) == len(every)
    again = depth_data.sequences({**s, "training_steps": 9}, seed=0)
    np.testing.assert_array_equal(again.held_out, data.held_out)
    assert not np.array_equal(depth_data.sequences(s, seed=1).held_out, data.held_out)


def test_rounded_copies_have_few_numbers_a_block_and_are_near() -> None:
    model = depth.untrained(settings(dimension=16, layers=[2]) | {"layers": 2, "positions": "rotary"}, 0)
    made = depth.rounded(model, 4)
    for name, values in model.named_parameters():
        found = dict(made.named_parameters())[name]
        if values.ndim < 2:
            torch.testing.assert_close(found, values, rtol=0, atol=0)
            continue
        flat, near = values.detach().reshape(-1), found.detach().reshape(-1)
        for start in range(0, len(flat), 32):
            block, of = flat[start : start + 32], near[start : start + 32]
            assert len(of.unique()) <= 16
            step = float(block.max() - block.min()) / 15
            assert float((block - of).abs().max()) <= 0.5001 * step + 1e-7
    eight = depth.rounded(model, 8)
    weights = [one.E.detach() for one in (model, made, eight)]
    assert (weights[2] - weights[0]).abs().max() < 0.1 * (weights[1] - weights[0]).abs().max()


def test_a_run_measures_every_model_and_its_copy(run: Any) -> None:
    rows = run.rows
    single = rows[rows["split"] == "held_out"]
    assert set(single["condition"]) == {
        f'{{"layers":{n},"positions":"rotary","weights":"{w}"}}'.replace(":", ": ").replace(",", ", ")
        for n in (1, 2)
        for w in ("float32", "4 bits")
    }
    tokens = single.loc[single["metric"] == "training_tokens", "value"]
    assert set(tokens) == {6.0 * 4 * 16}
    for name in ("kl", "explained"):
        of = single[(single["metric"] == name) & (single["surrogate"] == "ccmc-fit")]
        assert len(of) == 8
        assert of["value"].notna().all()
    best = single[single["metric"] == "held_out_loss"].merge(
        single[single["metric"] == "loss_above_best"], on=["condition", "seed"]
    )
    gap = (best["value_x"] - best["value_y"]).groupby(best["seed"])
    assert (gap.max() - gap.min() < 1e-9).all()  # one family, one best predictor
    pooled = rows[rows["split"] == "pooled"]
    assert {"depth_change", "rounded_change"} <= set(pooled["metric"])
    assert figures(rows, run.trajectories)[0].name == "depth"
    figures(rows, run.trajectories)[0].draw()
    names = [table.name for table in tables(rows)]
    assert names == ["depth.models", "depth.rounding", "depth.claims"]
    assert not any(one.answered for one in answers(rows) if "ccmc-fit explains" in one.text)  # two repetitions


def made_rows(by_depth: dict[int, float], noise: float, repetitions: int = 8) -> pd.DataFrame:
    """Rows of a family with positions whose explained shares are known, and a copy that moves them by .01."""
    rng = np.random.default_rng(0)
    single = Rows(experiment="depth", model="one-layer", split="held_out")
    shares: dict[tuple[int, str], list[float]] = {}
    for layers, share in by_depth.items():
        for repetition in range(repetitions):
            value = share + noise * rng.normal()
            for weights, moved in (("float32", 0.0), ("4 bits", 0.01)):
                where = {"layers": layers, "positions": "rotary", "weights": weights}
                shares.setdefault((layers, weights), []).append(value + moved)
                single.add("explained", value + moved, surrogate="ccmc-fit", seed=repetition, condition=where)
    claims = Claims("depth")
    first = np.array(shares[min(by_depth), "float32"])
    for (layers, weights), values in shares.items():
        place = {"layers": layers, "positions": "rotary", "weights": weights}
        claims.compare("explained", "share", mean(np.array(values)), None, "ccmc-fit", **place)
        for metric, value in (
            ("loss_above_best", 0.1),
            ("loss_off_training", 0.0),
            ("training_tokens", 5e5),
            ("stopped_early", 0.0),
        ):
            claims.compare(metric, metric, mean(np.full(repetitions, value)), None, "model", **place)
        if weights == "float32" and layers > min(by_depth):
            claims.compare("depth_change", "c", mean(np.array(values) - first), None, "ccmc-fit", **place)
        if weights != "float32":
            gap = np.array(values) - np.array(shares[layers, "float32"])
            claims.compare("rounded_change", "c", mean(gap), None, "ccmc-fit", **place)
    return pd.concat([single.frame(), claims.frame()], ignore_index=True)


def test_a_fall_with_depth_is_said_and_none_is_said_where_there_is_none() -> None:
    falls = answers(made_rows({1: 0.9, 2: 0.5, 4: 0.3}, 0.02))[0]
    assert falls.answered
    assert "With rotary positions, ccmc-fit explains by layers: 0.9" in falls.text
    assert "It explains less, from 1 to 4 layers -0.6" in falls.text
    rises = answers(made_rows({1: 0.3, 2: 0.6}, 0.02))[0]
    assert "It explains more, from 1 to 2 layers +0.2" in rises.text
    flat = answers(made_rows({1: 0.5, 2: 0.5, 4: 0.5}, 0.1))[0]
    assert "No change was found from 1 to 4 layers" in flat.text


def test_the_change_by_rounding_is_counted() -> None:
    said = answers(made_rows({1: 0.9, 2: 0.5}, 0.02))[-1]
    assert "the largest change of the share that ccmc-fit explains is +0.010 " in said.text
    assert "2 of 2 models change beyond chance" in said.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": [2, 2]}, "layers are different numbers from 1 to 32"),
        ({"layers": [0]}, "layers are different numbers from 1 to 32"),
        ({"positions": ["none", "none"]}, "one is listed twice"),
        ({"dimension": 10, "heads": 4}, "must be a multiple of 8"),
        ({"surrogates": ["counts"]}, "'ccmc-fit' must be among the surrogates"),
        ({"surrogates": ["counts", "ccmc-fit", "ccmc-head"]}, "unknown surrogate 'ccmc-head'"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Depth(**{**SMALL, **changes})
    assert words in str(refused.value)


def test_no_copy_is_made_where_none_is_wanted(tmp_path: Path) -> None:
    config = {"name": "depth", "experiments": [{**SMALL, "bits": None, "layers": [1], "repetitions": 1}]}
    made = harness.run(config, out=tmp_path / "run")
    assert not made.rows["condition"].str.contains("bits").any()
    assert "depth.rounding" not in [table.name for table in tables(made.rows)]
