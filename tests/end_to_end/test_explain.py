"""One model explained through the command: sizes that fit a time, a run that goes on, sentences, a report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small_models
import yaml

import harness
from harness.cli import explain
from harness.core.errors import UsageError
from harness.core.format import number
from harness.core.rows import Rows
from harness.experiments import estimating
from harness.experiments.explaining import SIZES, all_prompts, config_of, neutral_context, spread
from harness.report.explained import sentences
from harness.runs.costs import Speed

COMMAND = [sys.executable, "-m", "harness.cli"]


def ccmc(*arguments: str, cwd: Path, seconds: int = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, check=False, timeout=seconds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("explain")
    small_models.save(small_models.llama(2), made / "model")
    prompts = [
        {"id": f"p{i:02}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(small_models.random_texts(16, 9))
    ]
    (made / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    done = ccmc("explain", "model", "--prompts", "prompts.yaml", "--minutes", "0.5", "--out", "run", cwd=made)
    assert done.returncode == 0, done.stderr
    (made / "said.txt").write_text(done.stdout)
    (made / "errors.txt").write_text(done.stderr)
    return made


def test_it_says_what_it_does_and_what_it_found(folder: Path) -> None:
    said, errors = (folder / "said.txt").read_text(), (folder / "errors.txt").read_text()
    assert "15 prompts, 32 tokens each, heads of 2 of 2 layers" in errors
    for start in ("- Attention: its heads are", "- Heads: ", "- Repetition: ", "- Loops: "):
        assert start in said
    assert (folder / "run" / "report.html").stat().st_size > 100_000
    rows = harness.load_run(folder / "run").rows
    assert set(rows["experiment"]) >= {"heads", "in-the-loop", "self-reinforcement", "repetition"}


def test_a_run_that_was_begun_goes_on_in_its_size(folder: Path) -> None:
    done = ccmc("explain", "model", "--minutes", "500", "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "its size was chosen when it began" in done.stderr
    assert "- Attention: " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smollm2-135n"], "smollm2-135m"),
        (["model", "--prompts", "none.yaml"], "none.yaml"),
        (["model", "--prompts", "few.yaml"], "12 or more"),
        (["model", "--minutes", "0"], "minutes"),
        (["model", "--prompts", "prompts.yaml", "--workers", "0"], "--workers 0"),
        (["other", "--out", "run"], "another folder"),
    ],
)
def test_wrong_input_is_one_line(folder: Path, arguments: list[str], message: str) -> None:
    few = yaml.safe_load((folder / "prompts.yaml").read_text())[:4]
    (folder / "few.yaml").write_text(yaml.safe_dump(few))
    done = ccmc("explain", *arguments, cwd=folder, seconds=120)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Speeds are what is written here; with how many workers they were measured, measurement by measurement."""
    found: list[int] = []

    def speeds(made: Any, todo: Any, workers: int, progress: Any) -> dict[str, Speed]:
        found.append(workers)
        return {"": Speed(), **{model.name: Speed(0.1, 0.01, 0.005) for model in made.models}}

    monkeypatch.setattr(estimating, "_speeds", speeds)
    return found


def quiet(share: float, what: str) -> None:
    """Shows nothing."""


def choose(folder: Path, minutes: float, workers: int | None = None) -> tuple[dict[str, Any], str]:
    """What the command runs, and what it says about it."""
    return explain._config(
        str(folder / "model"), folder / "prompts.yaml", minutes, folder / "new", workers, quiet,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_the_largest_size_that_fits_by_the_cost_of_its_units_is_taken(
    folder: Path, widths: list[int], workers: int
) -> None:
    every = all_prompts(folder / "prompts.yaml")
    configs = [config_of(str(folder / "model"), spread(every, size.prompts), size, 2, "w1") for size in SIZES]
    out = folder / "new"
    minutes = [estimating.estimate(config, out=out, workers=workers).total / 60 for config in configs]
    assert minutes == sorted(minutes)
    assert minutes[-1] > 2 * minutes[0]
    for config, size, needed in zip(configs, SIZES, minutes, strict=True):
        widths.clear()
        chosen, said = choose(folder, needed * 1.0001, workers)
        assert widths == [workers]  # speeds are measured once
        assert chosen["generation"] == config["generation"]
        assert chosen["experiments"][0] == config["experiments"][0]
        assert f"{size.tokens} tokens each" in said
        assert said.endswith(f"some {number(needed)} minutes by estimate")
    chosen, said = choose(folder, minutes[0] / 2, workers)
    assert chosen["generation"]["max_new_tokens"] == SIZES[0].tokens
    assert f"some {number(minutes[0])} minutes by estimate, more than {minutes[0] / 2:g}" in said
    assert not out.exists()


def test_with_more_workers_the_same_time_is_enough_for_more(folder: Path, widths: list[int]) -> None:
    every = all_prompts(folder / "prompts.yaml")
    config = config_of(str(folder / "model"), spread(every, SIZES[-1].prompts), SIZES[-1], 2, "w1")
    needed = estimating.estimate(config, out=folder / "new", workers=3).total / 60
    assert choose(folder, needed * 1.0001, 3)[0]["generation"]["max_new_tokens"] == SIZES[-1].tokens
    alone, _ = choose(folder, needed * 1.0001)
    assert alone["generation"]["max_new_tokens"] < SIZES[-1].tokens
    assert widths == [3, 3, 1]


def test_few_of_many_sizes_are_resolved(folder: Path, widths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[int] = []
    prepare = estimating.prepare

    def counted(config: Any, *rest: Any) -> Any:
        resolved.append(config["generation"]["max_new_tokens"])
        return prepare(config, *rest)

    monkeypatch.setattr(estimating, "prepare", counted)
    choose(folder, 1000.0)
    assert len(resolved) <= 4
    assert resolved[0] == SIZES[0].tokens
    resolved.clear()
    choose(folder, 0.001)
    assert resolved == [SIZES[0].tokens]


def test_prompts_are_spread_over_the_file_and_configs_are_valid() -> None:
    chosen = spread(all_prompts("prompts/repetition.yaml"), 20)
    assert len(chosen) == 20
    assert len({one["kind"] for one in chosen}) >= 6
    config = config_of("smollm2-135m", chosen, SIZES[2], 30, "\n")
    loop = config["experiments"][1]
    assert loop["layers"] == [0, 6, 12, 17, 23, 29]
    assert config_of("smollm2-135m", chosen, SIZES[-1], 30, "\n")["experiments"][0]["layers"] == "all"


def test_a_neutral_context_has_a_token() -> None:
    def words(known: set[str]):  # type: ignore[no-untyped-def]
        return lambda text, add_special_tokens: {"input_ids": [1] if text in known else []}

    assert neutral_context(words({"\n", "x"}), ["x y"]) == "\n"
    assert neutral_context(words({"x"}), ["z y", "x y"]) == "x"
    with pytest.raises(UsageError, match="no token"):
        neutral_context(words(set()), ["x"])


def test_loops_are_told_with_the_earliest_as_an_example() -> None:
    loop, plain = [1, 2, 3] * 16, list(range(48))
    trajectories = pd.DataFrame(
        {
            "experiment": "continuations", "strategy": "greedy", "source": "model", "group": None,
            "prompt": [f"p{k}" for k in range(6)],
            "continuation": [loop, plain, [9, 9, 8, *loop], plain, plain, loop],
            "text": ["first", "plain", "later", "plain", "plain", "again"],
        }
    )  # fmt: skip
    (said,) = sentences(Rows(experiment="heads").frame(), trajectories)
    assert "0.5" in said or "50" in said
    assert "period of 3" in said
    assert said.endswith("'first'.")
