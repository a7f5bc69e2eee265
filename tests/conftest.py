"""What all tests share: the weights of smollm2-135m (one cached copy), a small model on disk, a config of seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small jobs: threads that wait for each other slow them down


@pytest.fixture(scope="session")
def smollm2() -> Any:
    """The files of smollm2-135m, fetched into the cache where they are not there yet."""
    from harness.models import catalogue

    return catalogue.resolve("smollm2-135m", lambda share, what: None)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random rotary model with 3 layers and a window of 256 tokens."""
    import small_models

    return small_models.save(small_models.llama(3), tmp_path_factory.mktemp("models") / "small")


def write_small_config(folder: Path, model: Path) -> Path:
    """A config that goes through every experiment in seconds: 12 prompts of 2 kinds, 4 of them held out."""
    import small_models

    texts = small_models.random_texts(12, 12)
    prompts = [{"id": f"p{i:02}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    one_layer = {
        "kind": "one-layer",
        "vocab_size": 6,
        "dimension": 8,
        "observations": 2000,
        "prompt_length": 8,
        "repetitions": 2,
        "held_out_prompts": 500,
        "rollout_prompts": 3,
        "rollout_steps": 40,
        "rollout_seeds": 2,
    }
    config = {
        "name": "small",
        "models": [str(model)],
        "prompts": "prompts.yaml",
        "held_out": 0.34,
        "generation": {"max_new_tokens": 24, "batch_size": 5},
        "experiments": [
            one_layer,
            {"kind": "heads", "layers": [0, 2], "layers_per_unit": 1},
            {"kind": "generation", "rollout_seeds": 2},
        ],
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@pytest.fixture
def small_config(tmp_path: Path, small_model: Path) -> Path:
    """The small config in a folder of its own."""
    return write_small_config(tmp_path, small_model)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Any:
    """One complete run of the small config, and its folder."""
    import harness

    folder = tmp_path_factory.mktemp("finished")
    return harness.run(write_small_config(folder, small_model), out=folder / "run"), folder
