"""Experiments on a model whose layers are on two devices: none mixes tensors of both, and rows are those of one.

The devices are pretended, on the CPU (`two_devices`); runs on several GPUs are untested.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import families
import pandas as pd
import pytest
import small_models
import yaml
from test_sixteen_bits import EXPERIMENTS

import harness

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed: pip install accelerate"),
]
INSIDE = [
    {
        "kind": "causes", "interventions": ["counts", "recency", "sink", "mlp-noise", "frequency-penalty"],
        "random_like": [], "top_heads": 2, "levels": [0.05], "texts": "prose.yaml", "max_length": 24, "repeats": 3,
    },
    {
        "kind": "count-ablation", "strengths": [1.0], "heads": 3, "random_draws": 1, "repetition_penalties": [1.2],
        "prose": "prose.yaml", "max_length": 24,
    },
]  # fmt: skip
SETS = {one["kind"]: [one] for one in (*EXPERIMENTS, *INSIDE) if one["kind"] != "repetition"}  # reads logits alone
BY = ["experiment", "strategy", "layer", "head", "surrogate", "condition", "split", "fold", "prompt", "metric", "seed"]


def write_config(folder: Path, model: Any, experiments: list[dict[str, Any]]) -> Path:
    small_models.save(model, folder / "model")
    texts = small_models.random_texts(12, 12)
    prompts = [{"id": f"p{i:02}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts), encoding="utf-8")
    prose = [{"id": f"h{i}", "kind": "h", "text": text} for i, text in enumerate(small_models.random_texts(8, 15, 5))]
    (folder / "prose.yaml").write_text(yaml.safe_dump(prose), encoding="utf-8")
    config = {
        "name": "two", "models": [str(folder / "model")], "prompts": "prompts.yaml", "held_out": 0.34,
        "experiments": experiments,
        "generation": {"max_new_tokens": 12, "batch_size": 5, "ignore_eos": True, "seeds": 1,
                       "strategies": ["greedy", {"temperature": 1.0}]},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "config.yaml"


def compare(config: Path, folder: Path) -> int:
    """Do a run on one device and on two; the number of rows, which must be the same up to rounding."""
    one = harness.run(config, out=folder / "one", executor="serial").rows
    command = [sys.executable, str(ROOT / "tests" / "two_devices_run.py"), str(config), str(folder / "two")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    two = harness.load_run(folder / "two").rows
    for column in BY:
        pd.testing.assert_series_equal(one[column], two[column])
    pd.testing.assert_series_equal(one["value"], two["value"], check_exact=False, rtol=1e-3, atol=1e-4)
    return len(one)


@pytest.mark.parametrize("kind", SETS)
def test_rows_on_two_devices_are_those_on_one(kind: str, tmp_path: Path) -> None:
    assert compare(write_config(tmp_path, small_models.llama(3), SETS[kind]), tmp_path) > 20


def test_a_family_with_positions_in_its_first_layer(tmp_path: Path) -> None:
    model = families.build(families.FAMILIES["gpt2"])
    assert compare(write_config(tmp_path, model, [EXPERIMENTS[0]]), tmp_path) > 20
