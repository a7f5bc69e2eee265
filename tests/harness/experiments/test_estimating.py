"""`ccmc run --dry-run`: the plan of a run, what is stored of it, and what it would take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.core import registry
from harness.core.errors import UsageError
from harness.experiments import estimating
from harness.experiments.estimating import cost_of, estimate, step_of
from harness.runs.costs import Cost
from harness.runs.units import Unit


def ccmc(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=300)


def test_every_experiment_says_what_its_units_cost() -> None:
    for name in registry.experiments():
        package = type(registry.experiment(name)).__module__.rpartition(".")[0]
        if package.startswith("harness."):
            assert util.find_spec(f"{package}.cost") is not None, name


def test_units_of_an_experiment_without_costs_have_no_estimate() -> None:
    assert cost_of(Unit("ccmc.chain:simulate", "mine", {})) is None
    assert cost_of(Unit("no_such_package.units:do", "mine", {})) is None


@pytest.mark.parametrize(
    ("label", "step"),
    [
        ("m: heads of layers 0, 1, 2", "m: heads of some layers"),
        ("one-layer model, repetition 3 of 8", "one-layer model"),
        ("m: continuing 12 prompts, greedy, seed 0", "m: continuing 12 prompts, greedy"),
        ("m, greedy: surrogates of fold 2", "m, greedy: surrogates of a fold"),
        ("m, greedy: one fit of all other strategies, fold 2", "m, greedy: one fit of all other strategies"),
    ],
)
def test_units_that_do_the_same_are_one_step(label: str, step: str) -> None:
    assert step_of(Unit("a.b:c", label, {})) == step


def test_a_dry_run_writes_nothing_and_a_run_leaves_nothing_to_do(small_config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = estimate(small_config, out=out)
    assert not out.exists()
    keys = {unit.key for unit in found.prepared.plan}
    assert set(found.seconds) == keys
    assert found.unknown == 0
    assert found.total > 0
    assert found.memory > 0
    steps = found.table().rows
    assert sum(row[1] for row in steps) == len(keys)  # type: ignore[misc]
    assert all(row[2] == 0 for row in steps)
    done = harness.run(small_config, out=out)
    assert {unit["key"] for unit in done.manifest["units"]} == keys
    again = estimate(small_config, out=out)
    assert again.stored == keys
    assert again.total == 0.0
    assert again.speeds == {}


def test_twice_the_tokens_cost_more(small_config: Path, tmp_path: Path) -> None:
    found: dict[int, dict[str, Cost]] = {}
    for length in (8, 16):
        made = estimating.prepare(small_config, [f"generation.max_new_tokens={length}"], None, tmp_path / "o", _quiet)
        found[length] = {}
        for unit in made.plan:
            cost = cost_of(unit)
            assert cost is not None, unit.label
            found[length][unit.label] = cost
    assert found[8].keys() == found[16].keys()
    for label, small in found[8].items():
        large = found[16][label]
        assert large.decoded == 2 * small.decoded
        if small.read or small.decoded:
            assert large.decoded + large.read > small.decoded + small.read, label


def test_what_loads_no_model_needs_no_speed_of_it(small_config: Path, tmp_path: Path) -> None:
    made = estimating.prepare(small_config, [], None, tmp_path / "o", _quiet)
    name = made.models[0].name
    reads = [unit for unit in made.plan if unit.local][:1]
    judges = [Unit("a.b:judge", "x", {"model": name})]
    assert estimating._speeds(made, judges, 1, _quiet).keys() == {""}
    assert estimating._speeds(made, [*judges, *reads], 1, _quiet).keys() == {"", name}


def _quiet(share: float, what: str) -> None:
    """Shows nothing."""


def test_the_command_says_plan_speed_time_and_memory(small_config: Path, tmp_path: Path) -> None:
    done = ccmc("run", str(small_config), "--dry-run", "--workers", "2", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing was run" in done.stdout
    said = re.sub(r"\s+", " ", done.stdout)
    assert re.search(r"speed here, 2 units at once: .* writes [\d.e+]+ tokens a second, \d+ texts together", said)
    assert re.search(r"all that is missing, 2 units at once: \d+ (s|min)", done.stdout)
    assert re.search(r"memory: \d+\.\d+ GB a worker", done.stdout)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_that_cannot_be_is_refused(small_config: Path, tmp_path: Path, workers: int) -> None:
    with pytest.raises(UsageError, match=f"--workers {workers}"):
        estimate(small_config, out=tmp_path / "run", workers=workers)


def test_the_table_comes_in_other_formats(small_config: Path, tmp_path: Path) -> None:
    done = ccmc("run", str(small_config), "--dry-run", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said: Any = json.loads(done.stdout)
    assert said


def test_a_wrong_config_is_refused_as_by_a_run(small_config: Path, tmp_path: Path) -> None:
    done = ccmc("run", str(small_config), "--dry-run", "--set", "generation.max_new_token=3", cwd=tmp_path)
    assert done.returncode == 2
    assert "max_new_tokens" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
