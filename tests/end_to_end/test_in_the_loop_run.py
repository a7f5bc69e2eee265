"""Heads replaced while a small model runs, through the command: run, show, table, resume; and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_models
import torch
import yaml
from browsers import emulate, load, logs, needs_browser
from float32 import tolerance

import harness
from harness.core.format import interval
from harness.experiments._shared.continuations import read_continuations
from harness.experiments._shared.loop_arms import read_alone, read_arm
from harness.experiments._shared.loop_fits import divided
from harness.experiments.in_the_loop.figures import lines
from harness.experiments.in_the_loop.parts import LOST, parts
from harness.models import loading
from harness.report.page import write_report
from harness.runs.verify import verify

COMMAND = [sys.executable, "-m", "harness.cli"]


def ccmc(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, check=False, timeout=300)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a finished run, and of its model."""
    folder = tmp_path_factory.mktemp("loop")
    model = small_models.save(small_models.llama(3), folder / "model")
    prompts = [
        {"id": f"p{i:02}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(small_models.random_texts(12, 9))
    ]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    experiment = {
        "kind": "in-the-loop", "surrogates": ["counts", "pccmc-weights"], "leaders": ["pccmc-weights"],
        "nulls": ["counts", "mean-row"], "controls": ["uniform", "mean-output"],
        "sets": ["share", "alone", "random", "kind", "layer", "greedy"], "alone_texts": 2,
        "shares": [0.25, 1.0], "random_draws": 1, "generate": [0.25], "training_texts": 2, "max_length": 24,
        "greedy": {"heads": 4, "candidates": 3, "step": 2, "texts": 1}, "layers_per_unit": 2,
    }  # fmt: skip
    config = {
        "name": "loop", "models": [str(model)], "prompts": "prompts.yaml", "held_out": 0.5,
        "generation": {
            "max_new_tokens": 12, "strategies": ["greedy", {"temperature": 1.0}], "seeds": 2, "ignore_eos": True,
        },
        "experiments": [experiment],
    }  # fmt: skip
    (folder / "loop.yaml").write_text(yaml.safe_dump(config))
    done = ccmc("run", "loop.yaml", "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "in place of" in done.stdout
    return folder / "run", model


def lost(run: Path, **factors: Any) -> pd.DataFrame:
    rows = harness.load_run(run).rows
    rows = rows[(rows["metric"] == "nats_lost") & (rows["split"] == "held_out")]
    keep = [all(json.loads(text).get(k) == v for k, v in factors.items()) for text in rows["condition"]]
    return rows[keep]


def test_layer_0_is_exact_and_later_layers_are_not(loop: tuple[Path, Path]) -> None:
    own = lost(loop[0], set="layer", order="pccmc-weights", first_position="leader")
    by_layer = own[own["surrogate"] == "pccmc-weights"].groupby(own["condition"].map(lambda c: json.loads(c)["layer"]))
    worst = by_layer["value"].agg(lambda values: values.abs().max())
    assert worst[0] <= tolerance(8.0, 3 * 48 * 24)  # logits, after the roundings of three layers
    assert worst[1] > 1e-3
    even = lost(loop[0], set="share", order="pccmc-weights", first_position="leader")
    pairs = even.pivot_table(index=["condition", "strategy", "prompt"], columns="surrogate", values="value")
    assert (pairs["uniform"] - pairs["counts"]).abs().max() == 0  # one rule for the first position leaves no difference
    of_counts = own[own["surrogate"] == "counts"]
    assert of_counts["value"].abs().max() > 1e-3


def test_a_loss_is_that_of_the_model_with_the_heads_replaced(loop: tuple[Path, Path]) -> None:
    """One text and one set again, from logits of the model inside and outside of a block."""
    run, path = loop
    model = loading.load_model(path, "cpu")
    folders = [folder for folder in sorted((run / "units").iterdir()) if folder.is_dir()]
    arm = read_arm(model, folders, "pccmc-weights", 24)
    texts = [c for f in folders if (f / "trajectories.parquet").exists() for c in _continuations(f)]
    text = next(c for c in texts if c.split == "held_out" and c.strategy == "greedy")
    ids = torch.as_tensor(text.tokens[:24])
    heads = [(layer, head) for layer in (1, 2) for head in range(6)]

    def loss() -> float:
        with torch.inference_mode():
            return float(torch.nn.functional.cross_entropy(model(ids[None]).logits[0, :-1], ids[1:]))

    before = loss()
    with arm.replacing(heads, "leader"):
        after = loss()
    own = lost(run, set="share", share=1.0, order="pccmc-weights", layer_0="out", first_position="leader")
    own = own[(own["surrogate"] == "pccmc-weights") & (own["prompt"] == text.prompt) & (own["strategy"] == "greedy")]
    assert own["value"].tolist() == pytest.approx([after - before], abs=1e-5)
    assert abs(after - before) > 1e-3


def _continuations(folder: Path) -> Any:
    frame = pd.read_parquet(folder / "trajectories.parquet")
    return read_continuations(folder) if set(frame["experiment"]) == {"continuations"} else []


def test_sets_of_heads_that_change_least_alone(loop: tuple[Path, Path]) -> None:
    """One head and text again; the order is by KL on choosing texts; held-out ones are shown."""
    run, path = loop
    rows = harness.load_run(run).rows
    own = rows[(rows["metric"] == "kl_alone") & (rows["strategy"] == "greedy")]
    assert set(own["split"]) == {"train", "held_out"}
    assert len(own) == 18 * 4  # 18 heads on two texts of each side
    model = loading.load_model(path, "cpu")
    folders = [folder for folder in sorted((run / "units").iterdir()) if folder.is_dir()]
    arm = read_arm(model, folders, "pccmc-weights", 24)
    row = own[own["layer"] == 2].iloc[0]
    texts = [c for f in folders if (f / "trajectories.parquet").exists() for c in _continuations(f)]
    text = next(c for c in texts if (c.prompt, c.strategy, c.seed) == (row["prompt"], "greedy", row["seed"]))
    ids = torch.as_tensor(text.tokens[:24])[None]
    with torch.inference_mode():
        before = torch.log_softmax(model(ids).logits[0, :-1].double(), -1)
        with arm.replacing([(2, int(row["head"]))], "leader"):
            after = torch.log_softmax(model(ids).logits[0, :-1].double(), -1)
    kl = (before.exp() * (before - after)).sum(-1).mean()
    assert row["value"] == pytest.approx(float(kl), rel=1e-2, abs=1e-6)
    everywhere = rows[(rows["metric"] == "kl_alone") & (rows["split"] == "train")]
    by_head = everywhere.groupby(["layer", "head", "strategy"])["value"].mean().groupby(["layer", "head"]).mean()
    assert read_alone(folders, "pccmc-weights") == pytest.approx(by_head.to_dict())
    lost_there = lost(run, set="alone", order="pccmc-weights", layer_0="out", first_position="leader")
    assert set(lost_there["surrogate"]) == {"pccmc-weights", "counts", "mean-row", "uniform", "mean-output"}


def test_statics_and_orders_know_no_held_out_text(loop: tuple[Path, Path]) -> None:
    """The vocabulary is that of the training texts, and rows about heads are about them."""
    run, _ = loop
    folders = [folder for folder in (run / "units").iterdir() if folder.is_dir()]
    texts = [c for f in folders if (f / "trajectories.parquet").exists() for c in _continuations(f)]
    train = np.unique(np.concatenate([c.tokens[:24] for c in texts if c.split == "train"]))
    for folder in folders:
        if (folder / "vocabulary.npz").exists():
            assert np.load(folder / "vocabulary.npz")["ids"].tolist() == train.tolist()
    rows = harness.load_run(run).rows
    assert set(rows[rows["metric"] == "training_kl"]["split"]) == {"train"}
    chosen = rows[(rows["metric"] == "nats_lost") & (rows["split"] == "train") & rows["prompt"].notna()]
    fitted = {c.group for c, _ in divided([(c, c.tokens) for c in texts if c.split == "train"], 0.25, 0)[0]}
    assert fitted
    assert not fitted & set(chosen["group"])  # what choices are made on is read by no fit
    outside = rows[rows["metric"] == "outside_vocabulary"]
    assert set(outside[outside["split"] == "held_out"]["seed"]) == {0}
    by_text = {(c.prompt, c.strategy, c.seed): np.mean(~np.isin(c.tokens[:24], train)) for c in texts}
    for one in outside.to_dict("records"):
        assert one["value"] == pytest.approx(by_text[one["prompt"], one["strategy"], one["seed"]])


def test_shown_and_tabled(loop: tuple[Path, Path]) -> None:
    run, _ = loop
    shown = ccmc("show", str(run), "--all", "--format", "markdown", cwd=run)
    assert shown.returncode == 0, shown.stderr
    for title in (
        "chains in place of heads",
        "Every arm",
        "kinds of heads",
        "heads replaced",
        "Which layers",
        "chains least",
    ):
        assert title in shown.stdout
    table = ccmc("table", str(run), "--rows", "surrogate", "--columns", "strategy", "--metric", "nats_lost", cwd=run)
    assert table.returncode == 0, table.stderr
    for arm in ("counts", "pccmc-weights", "mean-row", "uniform", "mean-output"):
        assert arm in table.stdout
    assert list(verify(run).problems) == []
    rows = harness.load_run(run).rows
    written = rows[(rows["metric"] == "seq_rep_4") & (rows["experiment"] == "in-the-loop")]
    assert set(written["surrogate"]) == {"model", "pccmc-weights", "counts", "mean-row"}
    reseeded = rows[(rows["metric"] == "winner_jaccard") & (rows["surrogate"] == "model-reseeded")]
    assert set(reseeded["strategy"]) == {"temperature=1"}


def test_a_run_goes_on_where_it_stopped(loop: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    run, _ = loop
    again = tmp_path / "again"
    shutil.copytree(run, again)
    before = pd.read_parquet(again / "rows.parquet")
    folders = [folder for folder in (again / "units").iterdir() if not (folder / "heads.json").exists()]
    losses = [f for f in folders if "nats_lost_written" in set(pd.read_parquet(f / "rows.parquet")["metric"])]
    assert len(losses) > 2
    shutil.rmtree(losses[0])
    kept = {f.name: (f / "rows.parquet").stat().st_mtime_ns for f in (again / "units").iterdir() if f.is_dir()}
    done = ccmc("run", "loop.yaml", "--out", str(again), cwd=run.parent)
    assert done.returncode == 0, done.stderr
    after = {f.name: (f / "rows.parquet").stat().st_mtime_ns for f in (again / "units").iterdir() if f.is_dir()}
    assert set(after) - set(kept) == {losses[0].name}
    assert all(after[name] == time for name, time in kept.items())
    pd.testing.assert_frame_equal(pd.read_parquet(again / "rows.parquet"), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("experiments.in-the-loop.layers=[7]", "layers 0 to 2, not 7"),
        ("experiments.in-the-loop.surrogates=[pcmc-fit]", "pccmc-fit"),
        ("generation.strategies=[{beams: 2}]", "beam"),
    ],
)
def test_wrong_input_is_one_line(loop: tuple[Path, Path], change: str, message: str, tmp_path: Path) -> None:
    done = ccmc("run", "loop.yaml", "--set", change, "--out", str(tmp_path / "no"), cwd=loop[0].parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@needs_browser
def test_the_report_answers_when_it_is_pointed_at(loop: tuple[Path, Path], browser: Any, tmp_path: Path) -> None:
    """Points of the curves and cells of the map say their figures; a cell opens the attention of its head."""
    run = harness.load_run(loop[0])
    write_report([run], tmp_path / "report.html")
    emulate(browser, "light", 1280)
    logs(browser)
    load(browser, tmp_path / "report.html")
    point = (
        "const all = [...document.querySelectorAll('.said')];"
        "const node = all.filter((n) => n.getAttribute('data-head') === arguments[0])"
        "[arguments[1]]; const box = node.getBoundingClientRect();"
        "const event = (name) => node.dispatchEvent(new PointerEvent(name, {clientX: box.x, clientY: box.y}));"
        "event('pointerenter'); const tip = document.querySelector('.tip'); const said = [tip.hidden, tip.textContent];"
        "event('pointerleave'); return [...said, tip.hidden, node.classList.contains('opens')]"
    )
    hidden, said, gone, opens = browser.execute_script(point, "2.3", 0)
    (part, *_) = parts(run.of("in-the-loop"))
    assert (hidden, gone, opens) == (False, True, True)
    assert said.startswith(f"head 2.3: KL {interval(part.of_head('kl_alone', 2, 3))}")
    first = next(line for line in lines(part, True))
    hidden, said, gone, opens = browser.execute_script(point, None, 0)
    value = part.mean(LOST, first[2], first[1][0].condition)
    assert said == f"{first[0]}, at {100 * first[1][0].factors['share']:.4g}: {interval(value)}"
    assert not opens
    browser.execute_script(
        "document.querySelector('.said[data-head=\"2.3\"]').dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    chosen = browser.execute_script("return [...document.querySelectorAll('.attention select')].map((b) => b.value)")
    assert chosen[1:] == ["2.3", "counts"]
    shares = browser.execute_script("return document.querySelectorAll('.attention tbody tr').length")
    assert shares > 3
    assert browser.execute_script("return document.querySelector('.attention').getBoundingClientRect().top") < 900
    assert logs(browser)[0] == []
    top = browser.execute_script("return document.querySelectorAll('.said title').length")
    assert top == 0  # the script shows them itself
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<title>head 2.3: KL ") == 2  # by strategy
