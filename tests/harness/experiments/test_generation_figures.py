"""Pictures of generation: what they show, worked out by hand, and that they come out the same twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.core.rows import Rows
from harness.experiments.generation.figures import dominance_curves, temperature_of, write_generation_plots
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


def generation_rows() -> pd.DataFrame:
    rows = Rows(experiment="generation", model="m", strategy="temperature=1", split="held_out")
    rng = np.random.default_rng(1)
    for index in range(6):
        prompt = f"p{index}"
        rows.add("seq_rep_4", 0.2, surrogate="model", prompt=prompt, seed=0)
        rows.add("loop_share", 0.0, surrogate="model", prompt=prompt, seed=0)
        for name, level in (("model-shuffled", 0.1), ("counts", 0.3), ("model-reseeded", 0.6)):
            pair: dict[str, Any] = {"surrogate": name, "prompt": prompt, "condition": {"real_seed": 0}, "seed": 1}
            rows.add("winner_jaccard", level + 0.05 * rng.random(), **pair)
            rows.add("dominance_area", 0.5 - level / 2 + 0.05 * rng.random(), **pair)
            rows.add("seq_rep_4", 0.9 - level, **pair)
    ablation: dict[str, Any] = {"experiment": "count-ablation", "surrogate": "model"}
    for condition in ({"ablation": "none"}, {"ablation": "all", "strength": 1.0}, {"repetition_penalty": 1.1}):
        for index in range(6):
            rows.add("seq_rep_4", rng.random(), prompt=f"p{index}", condition=condition, **ablation)
            rows.add("loss_prose", 3 + rng.random(), prompt=f"t{index}", condition=condition, **ablation)
    return rows.frame()


def test_dominance_is_averaged_over_seeds_and_then_over_prompts() -> None:
    part = trajectories()
    times, found = dominance_curves(part, "counts", points=5)
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


def test_the_same_rows_give_the_same_pictures(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    written = write_generation_plots(tmp_path / "a", generation_rows(), trajectories())
    names = {path.stem for path in written}
    assert names == {"dominance-m", "strip-m", "temperature-m", "agreement-m", "count-ablation-m"}
    for path in write_generation_plots(tmp_path / "b", generation_rows(), trajectories()):
        assert path.read_bytes() == (tmp_path / "a" / "plots" / path.name).read_bytes()
    shown = (tmp_path / "a" / "plots" / "agreement-m.svg").read_text()
    assert "way from floor (0) to ceiling (1)" in shown
    assert ">counts<" in shown
    assert write_generation_plots(tmp_path, generation_rows().iloc[:0], trajectories().iloc[:0]) == []
