"""The rows and continuations of a run are equal to the last bit wherever its units are done, and however many at once.

Sums depend on the number of threads that they are split over, so that this also shows that a unit has its own number.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import harness

ROOT = Path(__file__).resolve().parents[2]
PLACES = [("processes", 1), ("local", 2), ("processes", 3)]
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install '.[ray]'")


def write_config(folder: Path, model: Path) -> Path:
    """Every kind of experiment that computes with a model, as small as it gets."""
    import small_models

    texts = small_models.random_texts(6, 14)
    prompts = [{"id": f"p{i}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts), encoding="utf-8")
    one_layer = {"vocab_size": 6, "dimension": 8, "observations": 500, "prompt_length": 8, "repetitions": 2}
    one_layer |= {"held_out_prompts": 100, "rollout_prompts": 2, "rollout_steps": 32, "rollout_seeds": 2}
    ablation = {"prose": "prompts.yaml", "strengths": [1.0], "heads": 2, "random_draws": 1}
    config = {
        "name": "executors",
        "models": [str(model)],
        "prompts": "prompts.yaml",
        "held_out": 0.34,
        "generation": {"max_new_tokens": 16, "strategies": ["greedy", {"temperature": 1.0}], "batch_size": 3},
        "experiments": [
            {"kind": "one-layer", **one_layer},
            {"kind": "heads", "layers": [0, 2], "layers_per_unit": 1, "surrogates": ["counts", "pccmc-weights"]},
            {"kind": "generation", "rollout_seeds": 1},
            {"kind": "count-ablation", **ablation, "repetition_penalties": [1.1], "no_repeat_ngrams": [2]},
        ],
    }
    path = folder / "executors.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Any:
    """The run with each unit in one process of its own, where torch has been given another number of threads."""
    folder = tmp_path_factory.mktemp("executors")
    path = write_config(folder, small_model)
    lines = [
        "import torch, harness",
        "torch.set_num_threads(2)",
        f"harness.run({str(path)!r}, out={str(folder / 'run')!r}, executor='serial')",
        "assert torch.get_num_threads() == 2",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, capture_output=True, cwd=ROOT)
    run = harness.load_run(folder / "run")
    return run, folder / "executors.yaml"


def check_equal(run: Any, other: Any) -> None:
    pd.testing.assert_frame_equal(run.rows, other.rows, check_exact=True)
    pd.testing.assert_frame_equal(run.trajectories, other.trajectories, check_exact=True)
    assert [unit["key"] for unit in run.manifest["units"]] == [unit["key"] for unit in other.manifest["units"]]


def test_the_run_has_every_kind(serial: Any) -> None:
    kinds = {"one-layer", "heads", "continuations", "generation", "count-ablation", "texts"}
    assert set(serial[0].rows["experiment"]) == kinds
    units = [json.loads(path.read_text(encoding="utf-8")) for path in serial[0].path.glob("units/*/unit.json")]
    assert {unit["threads"] for unit in units} == {1}


@pytest.mark.parametrize(("executor", "workers"), PLACES)
def test_processes_give_the_same_rows(
    serial: Any, executor: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(workers))  # of the user: not what a unit computes with
    run, config = serial
    check_equal(run, harness.run(config, out=tmp_path / "run", executor=executor, workers=workers))


@needs_ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # ray leaves its log files to the garbage collector
@pytest.mark.parametrize("storage", [False, True])
def test_ray_gives_the_same_rows(serial: Any, storage: bool, tmp_path: Path) -> None:
    run, config = serial
    url = (tmp_path / "shared").as_uri() if storage else None
    check_equal(run, harness.run(config, out=tmp_path / "run", executor="ray", workers=2, storage=url))
