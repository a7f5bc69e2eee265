"""What all tests share: the weights of smollm2-135m (one cached copy), a small model on disk, a config of seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a hub
os.environ.setdefault("MKL_CBWR", "AUTO")  # as `import harness` sets it, before a test computes without it
os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small jobs: threads that wait for each other slow them down


SLOW = (
    "benchmarks/test_gate_power.py",
    "ccmc/test_bootstrap.py",
    "ccmc/test_context_logit.py",
    "ccmc/test_fit_hard.py",
    "ccmc/test_fit_pairs.py",
    "ccmc/test_mean_field.py",
    "ccmc/test_regimes.py",
    "end_to_end/",
    "harness/analysis/test_compare.py",
    "harness/analysis/test_gate.py",
    "harness/analysis/test_noise.py",
    "harness/analysis/test_pivot.py",
    "harness/attention/test_interventions.py",
    "harness/attention/test_loop_rows.py",
    "harness/cli/test_locale.py",
    "harness/cli/test_new.py",
    "harness/cli/test_widths.py",
    "harness/config/test_every_field.py",
    "harness/experiments/test_estimating.py",
    "harness/experiments/test_experiments.py",
    "harness/experiments/test_repetition_run.py",
    "harness/experiments/test_repetition_tables.py",
    "harness/experiments/test_repetition_unseen.py",
    "harness/experiments/test_self_reinforcement.py",
    "harness/experiments/test_single_heads.py",
    "harness/hf/test_lm_eval.py",
    "harness/models/test_network.py",
    "harness/models/test_placement.py",
    "harness/report/test_kept_readings.py",
    "harness/report/test_report.py",
    "harness/runs/test_execution.py",
    "harness/runs/test_owner.py",
    "harness/runs/test_reproducible_sums.py",
    "harness/runs/test_stopping.py",
    "harness/runs/test_unit_identity.py",
    "harness/runs/test_verify.py",
    "harness/runs/test_without_posix.py",
    "harness/surrogates/test_vocabulary.py",
)
"""Files and folders whose tests take seconds each: a sixth of all tests, five sixths of their time."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow ones, and leave them out of a plain `pytest`: one that names no file, no mark and no keyword."""
    root = Path(__file__).parent
    slow = {item for item in items if item.path.relative_to(root).as_posix().startswith(SLOW)}
    for item in slow:
        item.add_marker(pytest.mark.slow)
    given = {(config.invocation_params.dir / argument).resolve() for argument in config.args}
    if given <= {root, root.parent} and not config.option.markexpr and not config.option.keyword:
        config.hook.pytest_deselected(items=[item for item in items if item in slow])
        items[:] = [item for item in items if item not in slow]
    items[:] = _spread(items, root)


def _spread(items: list[pytest.Item], root: Path) -> list[pytest.Item]:
    """File by file, those of `ccmc` evenly among the others.

    In a row, several processes would start on them at once, and each would compile the same kernels for a minute.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    own = [path for path in files if path.is_relative_to(root / "ccmc")]
    others = [path for path in files if path not in set(own)]
    places = {path: place / len(part) for part in (own, others) for place, path in enumerate(part)}
    return [item for path in sorted(files, key=lambda path: places[path]) for item in files[path]]


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
