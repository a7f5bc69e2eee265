"""Whole runs of a small model through the command: their rows, their tables, and what a kill leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from float32 import kl_tolerance

import harness
from harness.cli.app import invoke
from harness.core.errors import UnitsFailedError, UsageError
from harness.core.rows import COLUMNS

COMMAND = [sys.executable, "-m", "harness.cli"]


def ccmc(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, check=False, timeout=300)


def sorted_rows(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path / "rows.parquet")


def test_a_run_has_the_layout_and_the_schema(finished: Any) -> None:
    run, folder = finished
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["state"] == "complete"
    for key in ("config_hash", "config", "config_as_given", "seed", "git", "packages", "machine", "timings", "models"):
        assert key in manifest
    assert len(manifest["models"][0]["weights_sha256"]) == 64
    assert str(folder) not in json.dumps(manifest["machine"])
    rows = sorted_rows(run.path)
    assert list(rows.columns) == list(COLUMNS)
    assert set(rows["experiment"]) == {"one-layer", "heads", "continuations", "generation"}
    assert rows["value"].isna().equals(rows["missing"].notna())
    assert run.rows.equals(rows)
    for unit in manifest["units"]:
        assert (run.path / "units" / unit["key"] / "rows.parquet").is_file()


def test_the_one_layer_part(finished: Any) -> None:
    rows = finished[0].rows
    rows = rows[rows["experiment"] == "one-layer"]
    assert (rows[rows["metric"] == "equivalence_error"]["value"] <= 1e-10).all()
    risk = rows[rows["metric"] == "excess_risk"]
    assert set(risk["surrogate"]) == {"model", "ccmc-weights", "ccmc-fit"}
    assert risk[risk["surrogate"] == "model"]["prediction"].tolist() == pytest.approx([6 * 5 / (2 * 2000)] * 2)
    jaccard = rows[rows["metric"] == "winner_jaccard"]
    assert set(jaccard["surrogate"]) == {"ccmc-weights", "ccmc-fit", "model-reseeded", "model-shuffled"}
    chains = list(finished[0].path.glob("units/*/chains/*.safetensors"))
    assert len(chains) == 4


def test_the_heads_part(finished: Any) -> None:
    rows = finished[0].rows
    rows = rows[(rows["experiment"] == "heads") & (rows["split"] == "held_out")]
    kl = rows[rows["metric"] == "kl"]
    names = {"counts", "distance", "ccmc-weights", "pccmc-weights", "ccmc-fit", "pccmc-fit", "shuffled-weights"}
    assert set(kl["surrogate"]) == names
    assert set(zip(kl["layer"], kl["head"], strict=True)) == {(layer, head) for layer in (0, 2) for head in range(6)}
    exact = kl[(kl["layer"] == 0) & (kl["surrogate"] == "pccmc-weights")]["value"]
    assert exact.max() <= kl_tolerance(12 + 24)
    for metric in ("total_variation", "top_token", "explained", "sink_share"):
        assert len(rows[rows["metric"] == metric]) > 0
    shares = rows[rows["metric"].isin(["total_variation", "top_token", "sink_share"])]["value"]
    assert shares.between(0, 1).all()


def test_training_and_held_out_prompts_do_not_mix(finished: Any) -> None:
    trajectories = finished[0].trajectories
    splits = trajectories[trajectories["experiment"] == "continuations"].groupby("prompt")["split"].nunique()
    assert len(splits) == 12
    assert (splits == 1).all()
    held_out = set(trajectories[trajectories["split"] == "held_out"]["prompt"])
    rows = finished[0].rows
    judged = rows[rows["experiment"].isin(["heads", "generation"]) & (rows["split"] == "held_out")]
    assert set(judged["prompt"].dropna()) <= held_out


def test_surrogates_stay_in_the_prompt_and_are_cut_to_the_real_length(finished: Any) -> None:
    trajectories = finished[0].trajectories
    real = {}
    for row in trajectories[trajectories["experiment"] == "continuations"].to_dict("records"):
        real[row["strategy"], row["prompt"]] = max(
            len(row["continuation"]), real.get((row["strategy"], row["prompt"]), 0) if row["seed"] == 0 else 0
        )
    made = trajectories[trajectories["experiment"] == "generation"].to_dict("records")
    assert {row["source"] for row in made} == {"counts", "in-context-bigram", "ccmc-fit"}
    for row in made:
        assert set(row["continuation"]) <= set(row["prompt_tokens"])
    rows = finished[0].rows
    rows = rows[(rows["experiment"] == "generation") & (rows["metric"] == "seq_rep_1")]
    lengths = rows.pivot_table(index=["strategy", "prompt"], columns="surrogate", values="n", aggfunc="max")
    for surrogate in ("counts", "in-context-bigram", "ccmc-fit"):
        assert (lengths[surrogate] == lengths["model"]).all()


def test_the_greedy_ceiling_is_perfect_and_the_floor_is_not(finished: Any) -> None:
    rows = finished[0].rows
    rows = rows[(rows["strategy"] == "greedy") & (rows["metric"] == "winner_jaccard")]
    assert (rows[rows["surrogate"] == "model-reseeded"]["value"].dropna() == 1.0).all()
    floor = rows[rows["surrogate"] == "model-shuffled"]["value"].dropna()
    assert len(floor)
    assert floor.mean() < 1.0


@pytest.mark.parametrize("workers", [2])
def test_the_rows_do_not_depend_on_the_workers(finished: Any, workers: int, tmp_path: Path) -> None:
    run, folder = finished
    again = harness.run(folder / "small.yaml", out=tmp_path / "again", workers=workers)
    assert again.rows.equals(run.rows)
    assert again.trajectories.equals(run.trajectories)


def test_another_seed_gives_other_rows(finished: Any, tmp_path: Path) -> None:
    run, folder = finished
    other = harness.run(folder / "small.yaml", overrides=["seed=1"], limit=1, out=tmp_path / "other")
    assert not other.rows["value"].equals(run.rows["value"])


def test_show_and_ls(finished: Any) -> None:
    run, folder = finished
    shown = ccmc("show", "run", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    printed = " ".join(shown.stdout.split())
    for table in run.tables():
        assert (" ".join(table.title.split()) in printed) == table.headline, table.name
        assert table.headline or table.name in printed
    assert "run directory: run (complete, " in shown.stdout
    assert not re.search(r"\bnan\b|<NA>", shown.stdout)
    listed = ccmc("ls", ".", cwd=folder)
    assert listed.returncode == 0
    assert "complete" in listed.stdout
    assert [t.title for t in run.tables()] == [t.title for t in harness.load_run(run.path).tables()]


def test_a_complete_run_started_again_prints_its_tables(finished: Any) -> None:
    run, folder = finished
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*")}
    again = ccmc("run", "small.yaml", "--out", "run", cwd=folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout == ccmc("show", "run", cwd=folder).stdout
    assert {p: p.stat().st_mtime_ns for p in run.path.rglob("*")} == before


def test_another_config_in_its_folder_is_refused(finished: Any) -> None:
    run, folder = finished
    with pytest.raises(UsageError, match="its config differs in held_out"):
        harness.run(folder / "small.yaml", overrides=["held_out=0.5"], out=run.path)


def stored_units(path: Path) -> dict[str, int]:
    """Finished units and when they were written; folders that are being made have a dot."""
    return {p.parent.name: p.stat().st_mtime_ns for p in path.glob("units/[!.]*/rows.parquet")}


def wait_for_units(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while len(stored_units(path)) < count:
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_stopped_run_goes_on_where_it_was(finished: Any, tmp_path: Path, number: signal.Signals, code: int) -> None:
    run, folder = finished
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, "run", "small.yaml", "--out", str(out)],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        # shells start jobs in the background with Ctrl-C ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_units(out, 2, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    if number == signal.SIGINT:
        assert errors.strip().splitlines()[-1].startswith("ccmc: interrupted; ")
    stored = stored_units(out)
    assert 2 <= len(stored) < len(run.manifest["units"])
    assert harness.load_run(out).state == ("running" if number == signal.SIGKILL else "partial")
    shown = ccmc("show", str(out), cwd=folder)
    assert "not complete" in shown.stdout
    again = ccmc("run", "small.yaml", "--out", str(out), cwd=folder)
    assert again.returncode == 0, again.stderr
    assert f"of {len(run.manifest['units'])} units are there already" in again.stderr
    assert stored.items() <= stored_units(out).items()
    assert sorted_rows(out).equals(run.rows)


def test_failed_units_end_with_3_and_leave_the_rest(finished: Any, tmp_path: Path, monkeypatch: Any) -> None:
    folder = finished[1]
    from harness.models import language_model

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(language_model, "generate", broken)
    with pytest.raises(UnitsFailedError, match=r"units failed, the first: .*: no memory") as caught:
        harness.run(folder / "small.yaml", out=tmp_path / "run")
    assert caught.value.exit_code == 3
    run = harness.load_run(tmp_path / "run")
    assert run.state == "partial"
    assert set(run.rows["experiment"]) == {"one-layer"}
    assert any("needs" in failure["error"] for failure in run.manifest["failures"])


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gemma2", "falcon"])
def test_heads_of_other_architectures(family: str, finished: Any, tmp_path: Path) -> None:
    import families
    import small_models

    model = small_models.save(families.build(families.FAMILIES[family]), tmp_path / family)
    overrides = [f"models=[{model}]", "experiments=[{kind: heads, layers: [0, 1]}]"]
    run = harness.run(finished[1] / "small.yaml", overrides=overrides, out=tmp_path / "run")
    rows = run.rows[(run.rows["metric"] == "kl") & (run.rows["split"] == "held_out")]
    kl = rows.groupby(["layer", "surrogate"])["value"].max()
    assert kl[0, "pccmc-weights"] <= kl_tolerance(12 + 24)
    assert kl[0, "counts"] > 0.1
    assert kl[1, "pccmc-weights"] > 10 * kl_tolerance(12 + 24)  # deeper heads see context


def test_a_complete_run_is_printed_again_in_any_format(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, folder = finished
    again = ["run", str(folder / "small.yaml"), "--out", str(run.path)]
    assert invoke([*again, "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["run"]["state"] == "complete"
    assert [table["name"] for table in printed["tables"]] == [table.name for table in run.tables()]
    assert invoke([*again, "--format", "xml"]) == 2
    assert "--format 'xml'" in capsys.readouterr().err
