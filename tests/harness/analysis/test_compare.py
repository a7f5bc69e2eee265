"""Comparisons: paired figures by hand, refusals that say what differs, rankings that share ranks honestly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.analysis import compare as comparing
from harness.analysis.comparability import compare_manifests
from harness.analysis.leaderboard import folder_sides, leaderboard, natural, revisions
from harness.analysis.sides import one_side, open_sides
from harness.cli.app import invoke
from harness.core.errors import UsageError
from harness.core.rows import Rows
from harness.runs.run import load_run
from harness.stats.pooling import CELL, Observed, difference
from harness.stats.power import smallest_difference
from harness.stats.significance import holm

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "results" / "reference" / "quickstart"
Change = Callable[[pd.DataFrame], pd.DataFrame]


def copy(target: Path, change: Change | None = None, **manifest: Any) -> Path:
    """A copy of the reference run with other rows or another manifest."""
    target.mkdir(parents=True)
    rows = pd.read_parquet(REFERENCE / "rows.parquet")
    (rows if change is None else change(rows)).to_parquet(target / "rows.parquet", index=False)
    content = json.loads((REFERENCE / "manifest.json").read_text())
    content.update(manifest)
    (target / "manifest.json").write_text(json.dumps(content))
    return target


def better_fit(rows: pd.DataFrame) -> pd.DataFrame:
    """The KL of ccmc-fit on heads falls by a tenth, but rises on one prompt and one head."""
    fit = (rows["experiment"] == "heads") & (rows["metric"] == "kl") & (rows["surrogate"] == "ccmc-fit")
    rows.loc[fit, "value"] *= 0.9
    rows.loc[fit & (rows["prompt"] == "code-03"), "value"] *= 2.0
    rows.loc[fit & (rows["layer"] == 5) & (rows["head"] == 7), "value"] *= 3.0
    return rows


def test_figures_are_paired_by_prompt(tmp_path: Path) -> None:
    changed = copy(tmp_path / "changed", better_fit)
    found = comparing.compare(one_side(str(changed)), one_side(str(REFERENCE)))
    line = next(x for x in found.lines if x.figure == "heads greedy ccmc-fit" and x.metric == "kl")

    def per_prompt(path: Path) -> pd.Series:
        rows = pd.read_parquet(path / "rows.parquet")
        rows = rows[(rows["experiment"] == "heads") & (rows["metric"] == "kl") & (rows["strategy"] == "greedy")]
        return rows[rows["surrogate"] == "ccmc-fit"].groupby("prompt")["value"].mean().astype(float)

    units = per_prompt(changed) - per_prompt(REFERENCE)
    assert line.difference.paired
    assert line.difference.interval.n == 15
    assert line.difference.interval.value == pytest.approx(float(units.mean()))
    assert line.difference.better == pytest.approx(float((units < 0).mean()))
    assert line.difference.units.sort_index().to_numpy() == pytest.approx(units.sort_index().to_numpy())
    assert comparing.movers(line.difference).startswith("code-03 +")
    assert found.heads[0][0].endswith("layer 5 head 7")
    untouched = next(x for x in found.lines if x.figure == "heads greedy ccmc-weights" and x.metric == "kl")
    assert untouched.difference.identical
    assert untouched.corrected is None


def test_p_values_are_corrected_together(tmp_path: Path) -> None:
    changed = copy(tmp_path / "changed", better_fit)
    found = comparing.compare(one_side(str(changed)), one_side(str(REFERENCE)), ["kl", "explained"])
    raw = [line.difference.p for line in found.lines if line.difference.p is not None]
    corrected = [line.corrected for line in found.lines if line.corrected is not None]
    assert len(raw) == 4  # two strategies, two metrics
    assert corrected == pytest.approx(list(holm(raw)))
    twice = comparing.against_baseline(open_sides([str(changed)]) * 2, one_side(str(REFERENCE)), ["kl"], False)
    assert [x.corrected for c in twice for x in c.lines if x.corrected] == pytest.approx(list(holm(raw[:2] * 2)))


def explained_by_hand(path: Path, prompts: list[str]) -> float:
    rows = pd.read_parquet(path / "rows.parquet")
    rows = rows[(rows["experiment"] == "heads") & (rows["metric"] == "kl") & (rows["strategy"] == "greedy")]
    rows = rows[rows["prompt"].isin(prompts)]
    total = (rows["value"].astype(float) * rows["n"].astype(float)).groupby(rows["surrogate"]).sum()
    return float(1 - total["ccmc-fit"] / total["counts"])


def test_explained_is_pooled_and_leaving_a_prompt_out_agrees() -> None:
    seen = Observed(load_run(REFERENCE).rows)
    where = {"experiment": "heads", "metric": "explained", "surrogate": "ccmc-fit", "strategy": "greedy"}
    ((_, sample),) = seen.cells(("metric",), **where)
    prompts = list(sample.units)
    assert sample.value == pytest.approx(explained_by_hand(REFERENCE, prompts))
    assert sample.pooled is not None
    assert 1 - sample.pooled.without_each()[0] == pytest.approx(explained_by_hand(REFERENCE, prompts[1:]))


def test_what_differs_is_said(tmp_path: Path) -> None:
    manifest = json.loads((REFERENCE / "manifest.json").read_text())

    def changed(**parts: Any) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(json.dumps(manifest))
        for path, value in parts.items():
            node: Any = content
            *above, last = path.split("__")
            for key in above:
                node = node[int(key) if key.isdigit() else key]
            node[last] = value
        return content

    cases = {
        "seeds 0 and 1": changed(config__seed=1),
        "other prompts": changed(prompts__sha256="x"),
        "has other weights on each side": changed(models__0__weights_sha256="x"),
        "torch 2.13.0+cpu and 1.0": changed(packages__torch="1.0"),
        "device cpu and cuda": changed(machine__device="cuda"),
        "is partial": changed(state="partial"),
        f"source at {manifest['git']['commit'][:8]} and bbbb": changed(git__commit="bbbb"),
        "changes that were not committed": changed(git__dirty=True),
    }
    for message, other in cases.items():
        found = compare_manifests(manifest, other)
        assert found.refusals == ()
        assert any(message in warning.text for warning in found.warnings), message
    assert compare_manifests(manifest, manifest).warnings == ()
    refused = compare_manifests(manifest, changed(config__experiments__0__observations=1))
    (only,) = refused.refusals
    assert (only.kind, only.scope, only.name, only.mine, only.theirs) == (
        "setting",
        "one-layer",
        "observations",
        25600,
        1,
    )
    assert only.text == "one-layer.observations is 25600 and 1"
    assert refused.settings_of("one-layer") == [only]
    assert refused.settings_of("heads") == []
    assert not refused.paired(of_language_model=False)
    assert compare_manifests(manifest, changed(config__generation__batch_size=1)).refusals == ()
    for harmless in (
        changed(config__experiments__1__surrogates=["counts"]),
        changed(config__experiments__1__layers_per_unit=1),
        changed(config__experiments__0__repetitions=1),
        changed(config__experiments__2__measures=["a-plugin's"]),
        changed(config__generation__seeds=9),
    ):
        assert compare_manifests(manifest, harmless).refusals == ()
    other = changed(config__generation__max_new_tokens=9)
    (longer,) = compare_manifests(manifest, other).refusals
    assert (longer.scope, longer.place) == ("", "generation.max_new_tokens")
    assert compare_manifests(manifest, other).settings_of("heads") == [longer]
    assert compare_manifests(manifest, other).settings_of("one-layer") == []
    alone = changed(config__experiments=[manifest["config"]["experiments"][0]], config__generation__max_new_tokens=9)
    assert compare_manifests(manifest, alone).refusals == ()  # one-layer continues no prompts of the run
    gone = {"kind": "of-a-plugin-that-is-gone", "size": 1}
    a, b = (changed(config__experiments=[{**gone, "size": size}]) for size in (1, 2))
    assert [one.text for one in compare_manifests(a, b).refusals] == ["of-a-plugin-that-is-gone.size is 1 and 2"]


def test_runs_that_mean_something_else_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.loads((REFERENCE / "manifest.json").read_text())["config"]
    config["experiments"][1]["max_length"] = 64
    other = copy(tmp_path / "other", config=config)
    assert invoke(["compare", str(REFERENCE), str(other)]) == 2
    assert "cannot be compared: heads.max_length is 512 and 64; --anyway" in capsys.readouterr().err
    assert invoke(["compare", str(REFERENCE), str(other), "--anyway", "--metric", "kl"]) == 0
    out = capsys.readouterr().out
    assert "note: not the same figure: heads.max_length is 512 and 64" in out
    assert "identical" in out
    assert invoke(["compare", str(REFERENCE), str(other), "--metric", "kll"]) == 2


def test_other_prompts_are_two_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = {"train": 35, "held_out": 15, "sha256": "x"}
    other = copy(tmp_path / "other", lambda rows: rows.assign(prompt=rows["prompt"] + "x"), prompts=prompts)
    found = comparing.compare(one_side(str(other)), one_side(str(REFERENCE)), ["kl", "excess_risk"])
    assert {line.difference.paired for line in found.lines if line.metric == "kl"} == {False}
    assert {line.difference.paired for line in found.lines if line.metric == "excess_risk"} == {True}
    assert all(line.corrected == 1.0 for line in found.lines if line.metric == "kl")
    assert invoke(["compare", str(other), str(REFERENCE), "--metric", "kl", "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert "compared as two samples" in out
    assert "differences not paired: two samples, p by random permutations" in out
    (table, *_) = comparing.tables(found)
    assert [column.name for column in table.columns][9] == "paired"
    changes = zip(table.column("A - B"), table.column("findable"), strict=True)
    assert all(least == (None if isinstance(one, str) else smallest_difference(one)) for one, least in changes)
    assert any(least is not None for least in table.column("findable"))
    assert dict(zip(table.column("metric"), table.column("paired"), strict=True)) == {
        "kl": False,
        "excess_risk": True,
    }


def test_many_against_one_and_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(copy(tmp_path / name, better_fit)) for name in ("x", "y")]
    arguments = ["compare", *paths, "--baseline", str(REFERENCE), "--metric", "kl"]
    assert invoke([*arguments, "--format", "markdown"]) == 0
    out = capsys.readouterr().out
    assert out.count("heads greedy ccmc-fit") == 2
    assert invoke([*arguments, "--format", "csv"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(
        "run,baseline,figure,metric,a,b,difference,low,high,p,p_holm,wins,n,paired,findable\n"
    )
    assert invoke(["compare", str(REFERENCE), str(REFERENCE) + "/"]) == 0
    assert invoke(["compare", *paths, str(REFERENCE)]) == 2


def test_conditions_models_and_rounding_are_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def last_digits(rows: pd.DataFrame) -> pd.DataFrame:
        risk = (rows["metric"] == "excess_risk") & (rows["surrogate"] == "ccmc-fit")
        rows.loc[risk, "value"] += 1e-12 + 1e-14 * np.arange(int(risk.sum()))
        return rows

    models = json.loads((REFERENCE / "manifest.json").read_text())["models"]
    other = str(copy(tmp_path / "other", last_digits, models=[{**models[0], "weights_sha256": "x"}]))
    arguments = ["compare", other, str(REFERENCE), "--metric", "excess_risk", "--format", "markdown"]
    assert invoke(arguments) == 0
    out = capsys.readouterr().out
    assert "one-layer ccmc-fit K = 16, d = 32, n = 25600, prompt_length = 16 | excess_risk" in out
    assert "smollm2-135m has other weights on each side" in out
    assert "(model)" not in out
    assert "| rounding |" in out
    assert invoke(["compare", str(REFERENCE), str(REFERENCE), "--metric", "kl"]) == 0
    assert "both sides are one and the same run" in capsys.readouterr().out


def two_models(rows: pd.DataFrame) -> pd.DataFrame:
    real = rows[rows["model"] == "smollm2-135m"]
    return pd.concat([rows, better_fit(real.assign(model="other").reset_index(drop=True))], ignore_index=True)


def test_one_model_of_several_is_a_side(tmp_path: Path) -> None:
    models = json.loads((REFERENCE / "manifest.json").read_text())["models"]
    path = str(copy(tmp_path / "both", two_models, models=[*models, {**models[0], "name": "other"}]))
    with pytest.raises(UsageError, match="has several models; say which"):
        one_side(path)
    with pytest.raises(UsageError, match="has no model 'othr'; did you mean 'other'"):
        one_side(f"{path}:othr")
    found = comparing.compare(one_side(f"{path}:other"), one_side(f"{path}:smollm2-135m"), ["kl"])
    assert "other models: other and smollm2-135m" in [one.text for one in found.comparability.warnings]
    line = next(x for x in found.lines if x.figure == "heads greedy ccmc-fit")
    assert line.difference.paired
    assert line.difference.better == pytest.approx(14 / 15)


def test_a_leaderboard_shares_ranks_that_are_not_sure(tmp_path: Path) -> None:
    def noisy(rows: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng(0)
        pccmc = (rows["metric"] == "kl") & (rows["surrogate"] == "pccmc-weights")
        rows.loc[pccmc, "value"] *= np.exp(rng.normal(0.0, 0.3, pccmc.sum()) - 0.045)
        return rows

    def worse(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[(rows["metric"] == "kl") & (rows["surrogate"] != "counts"), "value"] *= 1.5
        return rows

    copy(tmp_path / "a")
    copy(tmp_path / "b", noisy)
    copy(tmp_path / "deep" / "c", worse)
    copy(tmp_path / "d", state="partial")
    sides, left_out = folder_sides(tmp_path)
    assert [side.name for side in sides] == ["a", "b", "deep/c"]
    assert len(left_out) == 1
    assert "partial" in left_out[0]
    table = next(t for t in leaderboard(sides, "explained") if t.title.startswith("heads greedy"))
    assert [row[0] for row in table.rows] == [1, 1, 3]
    assert table.rows[2][1] == "deep/c"
    assert {row[4] for row in table.rows[:2]} == {"pccmc-weights"}
    fit = next(t for t in leaderboard(sides, "kl", "ccmc-fit") if t.title.startswith("heads greedy"))
    assert [row[0] for row in fit.rows] == [1, 1, 3]  # b's ccmc-fit is a's, c's is worse
    for arguments, message in (
        (("seq_rep_1",), "neither direction"),
        (("kl", "cmc-fit"), "did you mean 'ccmc-fit'"),
        (("explaned",), "did you mean 'explained'"),
    ):
        with pytest.raises(UsageError, match=message):
            leaderboard(sides, *arguments)
    assert invoke(["leaderboard", str(tmp_path), "--metric", "kl", "--format", "markdown"]) == 0


def test_a_leaderboard_shows_what_several_runs_have_and_counts_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((REFERENCE / "manifest.json").read_text())["config"]
    config["experiments"][1] |= {"max_length": 64, "layers": [0]}
    config["generation"]["max_new_tokens"] = 9
    copy(tmp_path / "a")
    copy(tmp_path / "b", lambda rows: rows[rows["experiment"] == "heads"], config=config)
    assert invoke(["leaderboard", str(tmp_path)]) == 0
    short = capsys.readouterr().out
    assert "Other settings than a in 1 of 1 runs: generation.max_new_tokens, heads.layers and 1 more" in " ".join(
        short.split()
    )
    assert "one-layer" not in short
    assert "figures that only one run has; --all shows them." in short
    assert invoke(["leaderboard", str(tmp_path), "--all"]) == 0
    every = capsys.readouterr().out
    assert "one-layer" in every
    assert "Not ranked" not in every


def test_a_chain_of_small_steps_does_not_share_one_rank(tmp_path: Path) -> None:
    """Each run is hardly worse than the one above it, but the last is surely worse than the first."""

    def worse(step: int) -> Change:
        def change(rows: pd.DataFrame) -> pd.DataFrame:
            rng = np.random.default_rng(step)
            chosen = (rows["metric"] == "kl") & (rows["surrogate"] != "counts") & (rows["experiment"] == "heads")
            rows = rows[chosen].copy()
            prompts = {name: rng.normal(0.0, 0.12) for name in rows["prompt"].unique()}
            rows["value"] *= np.exp(0.05 * step + rows["prompt"].map(prompts).astype(float))
            return rows

        return change

    for step in range(7):
        copy(tmp_path / str(step), worse(step))
    sides, _ = folder_sides(tmp_path)
    table = next(t for t in leaderboard(sides, "kl", "ccmc-fit") if t.title.startswith("heads greedy"))
    assert table.rows[0][0] == 1
    assert int(str(table.rows[-1][0])) > 1


def test_a_model_over_its_revisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = json.loads((REFERENCE / "manifest.json").read_text())["models"]
    paths = []
    for step, factor in ((1000, 1.0), (200, 1.2), (30, 1.5)):

        def scaled(rows: pd.DataFrame, factor: float = factor) -> pd.DataFrame:
            rows.loc[(rows["metric"] == "kl") & (rows["surrogate"] == "ccmc-fit"), "value"] *= factor
            return rows

        own = [{**models[0], "revision": f"step{step}", "weights_sha256": str(step)}]
        paths.append(str(copy(tmp_path / str(step), scaled, models=own)))
    svg = tmp_path / "curve.svg"
    assert invoke(["revisions", *paths, "--metric", "kl", "--format", "markdown", "--svg", str(svg)]) == 0
    out = capsys.readouterr().out
    steps = [line.split(" | ")[1] for line in out.splitlines() if line.startswith("| ccmc-fit")][:3]
    assert steps == ["step30", "step200", "step1000"]
    assert svg.read_text().startswith("<svg")
    table, curves = next(entry for entry in revisions(open_sides(paths), "kl") if "heads greedy" in entry[0].title)
    values = [found.value or 0.0 for _, found in curves["ccmc-fit"]]
    assert values == sorted(values, reverse=True)
    assert table.rows[0][3] is None
    with pytest.raises(UsageError, match="at least two different ones"):
        revisions(open_sides(paths[:1]))
    with pytest.raises(UsageError, match="one model is needed"):
        other = copy(tmp_path / "other", models=[{**models[0], "name": "x"}])
        revisions(open_sides([*paths, str(other)]))
    assert sorted(["step10", "step2", "a"], key=natural) == ["a", "step2", "step10"]


def test_units_are_what_was_drawn() -> None:
    nested = Rows(experiment="one-layer", model="one-layer", surrogate="counts", split="held_out")
    for seed in range(3):
        for prompt in range(2):
            nested.add("winner_jaccard", float(seed + prompt), prompt=f"r{seed}-{prompt}", seed=seed)
    ((_, sample),) = Observed(nested.frame()).cells(CELL)
    assert list(sample.units) == ["repetition 0", "repetition 1", "repetition 2"]
    assert sample.value == pytest.approx(1.5)
    crossed = Rows(experiment="generation", model="m", surrogate="counts", split="held_out")
    for seed in range(3):
        for prompt in range(2):
            crossed.add("kl", float(seed + prompt), prompt=f"p{prompt}", seed=seed, condition={"real_seed": seed})
    crossed.add("kl", None, missing="infinite", prompt="p0", seed=0)
    ((_, sample),) = Observed(crossed.frame()).cells(CELL)
    assert list(sample.units) == ["p0", "p1"]
    assert (sample.rows, sample.missing, sample.reason) == (7, 1, "infinite")
    empty = difference(sample, sample, "kl", paired=True)
    assert empty.identical
    assert empty.better is None or empty.better == 0.5


def test_copies_are_left_alone(tmp_path: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in REFERENCE.iterdir()}
    comparing.compare(one_side(str(REFERENCE)), one_side(str(shutil.copytree(REFERENCE, tmp_path / "copy"))))
    assert {p.name: p.stat().st_mtime_ns for p in REFERENCE.iterdir()} == before
