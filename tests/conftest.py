"""What all tests share: the weights of smollm2-135m (one cached copy), a small model on disk, a config of seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture
def in_doubles() -> Iterator[None]:
    """For tests of algorithms: models and everything they are compared with are in float64."""
    from float32 import in_float64

    with in_float64():
        yield


@pytest.fixture
def small_config(tmp_path: Path, small_model: Path) -> Path:
    """The small config in a folder of its own."""
    import small_models

    return small_models.write_config(tmp_path, small_model)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Any:
    """One complete run of the small config, and its folder."""
    import small_models

    import harness

    folder = tmp_path_factory.mktemp("finished")
    return harness.run(small_models.write_config(folder, small_model), out=folder / "run"), folder
