"""`ccmc new` writes packages whose own tests pass and that runs find; it refuses bad names and folders that exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import plugins
import pytest
import yaml
from small_models import write_config as write_small_config

from harness.cli import app

MADE = {
    "surrogate of heads": (["surrogate", "looks-back"], "looks_back", "surrogates"),
    "surrogate of next tokens": (["surrogate", "looks-back", "--of", "next-token"], "looks_back", "surrogates"),
    "measure": (["measure", "distinct-late"], "distinct_late", "measures"),
    "experiment": (["experiment", "settles"], "settles", "experiments"),
}


@pytest.fixture(params=MADE)
def made(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[str, Path, Path, list[str]]:
    """(kind of skeleton, its folder, where it is installed, the commands that were printed)."""
    arguments, snake, _ = MADE[request.param]
    assert app.invoke(["new", *arguments, "--into", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    commands = [line.strip() for line in printed.out.splitlines() if line.startswith("  ")]
    folder = tmp_path / f"ccmc-{snake.replace('_', '-')}"
    assert len((folder / "README.md").read_text().splitlines()) == 10
    return request.param, folder, plugins.install(folder, tmp_path / "site", tmp_path / "source"), commands


def test_a_skeleton_passes_its_own_tests_and_runs(
    made: tuple[str, Path, Path, list[str]], small_model: Path, tmp_path: Path
) -> None:
    kind, folder, site, commands = made
    _, snake, plural = MADE[kind]
    assert len(commands) == 3
    own = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env=plugins.environment(site),
        capture_output=True,
        text=True,
        check=False,
    )
    assert own.returncode == 0, own.stdout
    name = snake if plural == "measures" else snake.replace("_", "-")
    listed = plugins.ccmc(["list", plural, "--format", "csv"], site, cwd=tmp_path)
    assert f"ccmc-{snake.replace('_', '-')}" in listed.stdout
    assert listed.stderr == ""

    if kind == "experiment":
        config = folder / "settles.yaml"
        more = []
    else:
        config = write_small_config(tmp_path, small_model)
        given = yaml.safe_load(config.read_text())
        given["experiments"] = [
            {"kind": "heads", "layers": [0], "surrogates": ["counts"]},
            {"kind": "generation", "surrogates": ["counts"], "rollout_seeds": 1},
        ]
        config.write_text(yaml.safe_dump(given))
        more = ["--set", commands[2].split("--set ")[1].strip("'")]
    run = plugins.ccmc(["run", str(config), *more, "--limit", "3", "--out", "run"], site, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    rows = pd.read_parquet(tmp_path / "run" / "rows.parquet")
    if kind == "experiment":
        assert set(rows["experiment"]) == {"settles"}
        assert "the most frequent token has" in run.stdout
    else:
        assert name in set(rows["metric" if kind == "measure" else "surrogate"].dropna())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["surrogate", "Looks"], "'Looks': a name is lower-case letters and digits"),
        (["surrogate", "../up"], "a name is lower-case letters and digits"),
        (["surrogate", "1st"], "a name is lower-case letters and digits"),
        (["measure", "lambda"], "'lambda' is a word of Python"),
        (["measure", "none"], "'none' is a word of Python"),
        (["surrogate", "counts"], "ccmc-harness has a surrogate of this name"),
        (["measure", "seq-rep-4"], "ccmc-harness has a measure of this name"),
        (["experiment", "heads"], "ccmc-harness has an experiment of this name"),
        (["experiment", "mine", "--of", "heads"], "--of is for surrogates only"),
        (["surrogate", "mine", "--of", "head"], "--of 'head'; did you mean 'heads'?"),
        (["surrogat", "mine"], "did you mean 'surrogate'?"),
    ],
)
def test_bad_names_are_wrong_use(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.invoke(["new", *arguments, "--into", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ccmc-mine").mkdir()
    assert app.invoke(["new", "surrogate", "mine", "--into", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "ccmc-mine exists already" in line
    assert list((tmp_path / "ccmc-mine").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert app.invoke(["new", "surrogate", "mine", "--into", str(tmp_path / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err
