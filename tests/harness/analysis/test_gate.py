"""The gate: what fails, what passes, and that nothing without a number ever passes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import harness
from ccmc import CCMC, Contexts, Observations
from harness.analysis.gate import gate
from harness.analysis.tolerance import Tolerance, load_tolerance
from harness.analysis.verdict import Verdict
from harness.cli.app import invoke
from harness.cli.pytest_plugin import assert_fit, assert_gate
from harness.core.errors import UsageError
from harness.core.hashing import file_hash
from harness.runs.run import Run, load_run
from harness.runs.verify import verify
from harness.runs.writing import write_parquet

ROOT = Path(__file__).resolve().parents[3]
Change = Callable[[pd.DataFrame], pd.DataFrame]


def changed(base: Path, target: Path, change: Change | None = None, **manifest: Any) -> Run:
    """A copy of a run with other rows or another manifest."""
    target.mkdir()
    for name in ("manifest.json", "rows.parquet"):
        shutil.copyfile(base / name, target / name)
    content = json.loads((target / "manifest.json").read_text())
    if change is not None:
        write_parquet(change(pd.read_parquet(target / "rows.parquet")), target / "rows.parquet")
    content["tables"] = {"rows.parquet": file_hash(target / "rows.parquet")}
    content.update(manifest)
    (target / "manifest.json").write_text(json.dumps(content))
    return load_run(target)


@pytest.fixture
def judged(finished: Any, tmp_path: Path) -> Callable[..., Verdict]:
    """Judge a change of the small run against the small run."""

    def judge(change: Change | None = None, tolerance: Tolerance | None = None, **manifest: Any) -> Verdict:
        base = finished[0].path
        return gate(changed(base, tmp_path / "changed", change, **manifest), load_run(base), tolerance)

    return judge


def scaled(metric: str, factor: float, **where: Any) -> Change:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        chosen = rows["metric"] == metric
        for column, value in where.items():
            chosen &= (rows[column] == value).fillna(False)
        assert chosen.any()
        rows.loc[chosen, "value"] *= factor
        return rows

    return change


def failed(verdict: Verdict) -> set[tuple[str, str]]:
    return {(finding.status, finding.figure.split()[-1]) for finding in verdict.failures}


def test_a_run_passes_against_itself(judged: Callable[..., Verdict]) -> None:
    verdict = judged()
    assert verdict.passed
    assert len(verdict.findings) > 200
    assert sum(finding.detail == "identical" for finding in verdict.findings) > 50


def test_a_worse_fit_fails_by_name_and_number(judged: Callable[..., Verdict]) -> None:
    verdict = judged(scaled("kl", 1.05, experiment="heads", surrogate="ccmc-fit"))
    assert not verdict.passed
    assert {finding.status for finding in verdict.failures} == {"worse"}
    assert {tuple(f.figure.split()[-2:]) for f in verdict.failures} <= {("ccmc-fit", "kl"), ("ccmc-fit", "explained")}
    pooled = next(f for f in verdict.failures if f.figure.endswith("ccmc-fit kl") and "layer" not in f.figure)
    assert pooled.difference is not None
    assert pooled.baseline is not None
    assert pooled.allowed == pytest.approx(0.02 * pooled.baseline)
    assert pooled.difference.interval.value == pytest.approx(0.05 * pooled.baseline)


def test_better_is_no_failure_and_less_than_the_tolerance_neither(judged: Callable[..., Verdict]) -> None:
    assert judged(scaled("kl", 0.5, surrogate="ccmc-fit")).passed


def test_small_changes_pass(judged: Callable[..., Verdict]) -> None:
    assert judged(scaled("total_variation", 1.01)).passed


def test_noise_that_is_not_sure_passes(finished: Any, tmp_path: Path) -> None:
    def noise(rows: pd.DataFrame) -> pd.DataFrame:
        chosen = (rows["metric"] == "winner_jaccard") & (rows["experiment"] == "generation")
        rng = np.random.default_rng(0)
        rows.loc[chosen, "value"] = rng.permutation(rows.loc[chosen, "value"].to_numpy())
        return rows

    base = finished[0].path
    same = gate(changed(base, tmp_path / "a", noise), load_run(base))
    worse = [finding for finding in same.failures if finding.status == "worse"]
    # four held-out prompts carry no interval: there the tolerance decides, and says so
    assert all(finding.difference is not None for finding in worse)
    assert all("fewer than 5" in finding.detail for finding in worse)


def test_a_broken_control_is_not_a_regression(judged: Callable[..., Verdict]) -> None:
    assert judged(scaled("kl", 2.0, surrogate="shuffled-weights")).passed


def drop(**where: Any) -> Change:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        chosen = pd.Series(True, index=rows.index)
        for column, value in where.items():
            chosen &= (rows[column] == value).fillna(False)
        assert chosen.any()
        return rows[~chosen].reset_index(drop=True)

    return change


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (drop(metric="kl", experiment="generation"), "missing"),
        (drop(metric="seq_rep_1", surrogate="counts"), "missing"),
        (drop(metric="kl", surrogate="ccmc-fit", experiment="heads", layer=2, head=3), "missing"),
        (drop(experiment="one-layer", seed=1), "missing"),
        (drop(experiment="heads"), "missing"),
        (lambda rows: rows.assign(metric=rows["metric"].replace("kl", "kullback")), "new"),
        (lambda rows: rows.assign(surrogate=rows["surrogate"].replace("counts", "count")), "new"),
    ],
    ids=["metric", "neutral metric", "head", "repetition", "experiment", "new metric", "new surrogate"],
)
def test_what_is_missing_or_new_fails(judged: Callable[..., Verdict], change: Change, status: str) -> None:
    verdict = judged(change)
    assert not verdict.passed
    assert status in {finding.status for finding in verdict.failures}


def twice(rows: pd.DataFrame) -> pd.DataFrame:
    """One head's row of KL stands there twice."""
    chosen = rows[(rows["metric"] == "kl") & (rows["surrogate"] == "ccmc-fit") & rows["head"].notna()]
    return pd.concat([rows, chosen.head(1)], ignore_index=True)


def in_place_of_another(rows: pd.DataFrame) -> pd.DataFrame:
    """As many rows as before, but one head's row is another's."""
    doubled = twice(rows)
    chosen = doubled[(doubled["metric"] == "kl") & (doubled["surrogate"] == "ccmc-fit") & doubled["head"].notna()]
    return doubled.drop(index=chosen.index[1]).reset_index(drop=True)


@pytest.mark.parametrize(("change", "statuses"), [(twice, {"new"}), (in_place_of_another, {"missing"})])
def test_rows_that_stand_there_twice_fail(judged: Callable[..., Verdict], change: Change, statuses: set[str]) -> None:
    assert {finding.status for finding in judged(change).failures} & {"new", "missing"} == statuses


def test_tables_edited_by_hand_fail(finished: Any, tmp_path: Path) -> None:
    base = finished[0].path
    edited = changed(base, tmp_path / "edited", scaled("kl", 0.99), tables=finished[0].manifest["tables"])
    for run, reference, who in ((edited, load_run(base), "run"), (load_run(base), edited, "baseline")):
        found = {(f.figure, f.detail) for f in gate(run, reference).failures if f.status == "changed"}
        assert (f"{who} rows.parquet", "rows.parquet was changed after it was written") in found
    old = changed(base, tmp_path / "old", tables={})
    verdict = gate(load_run(base), old)
    assert verdict.passed
    assert any("no hashes of the assembled tables" in note for note in verdict.notes)


def test_a_baseline_outside_the_schema_fails(finished: Any, tmp_path: Path) -> None:
    broken = changed(finished[0].path, tmp_path / "broken", scaled("kl", float("nan")))
    verdict = gate(load_run(finished[0].path), broken)
    assert {(f.figure.split()[-2], f.status) for f in verdict.failures} == {("baseline", "schema")}


def test_nan_never_passes(judged: Callable[..., Verdict]) -> None:
    verdict = judged(scaled("kl", float("nan"), surrogate="ccmc-fit"))
    assert {finding.status for finding in verdict.failures} == {"schema"}


def test_a_value_that_became_undefined_fails(judged: Callable[..., Verdict]) -> None:
    def undefine(rows: pd.DataFrame) -> pd.DataFrame:
        chosen = (rows["metric"] == "kl") & (rows["surrogate"] == "ccmc-fit")
        rows.loc[chosen, "value"] = pd.NA
        rows.loc[chosen, "missing"] = "infinite: probability 0"
        return rows

    verdict = judged(undefine)
    assert ("no value", "kl") in failed(verdict)
    assert ("no value", "explained") in failed(verdict)


def test_no_rows_never_pass(judged: Callable[..., Verdict]) -> None:
    assert not judged(lambda rows: rows.iloc[:0]).passed


def test_runs_that_cannot_be_compared_are_wrong_use(
    finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = finished[0]

    def with_config(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(json.dumps(base.manifest["config"]))
        change(config)
        return {"config": config}

    others = {
        "one-layer.vocab_size is 6 and 7": with_config(lambda c: c["experiments"][0].update(vocab_size=7)),
        "generation.max_new_tokens": with_config(lambda c: c["generation"].update(max_new_tokens=9)),
        "generation.special_strings is split and parse": with_config(
            lambda c: c["generation"].update(special_strings="parse")
        ),
        "models.allow_mismatch is False and True": with_config(
            lambda c: c.update(models={"names": c["models"], "allow_mismatch": True})
        ),
        "no experiment in common": with_config(lambda c: c.update(experiments=[{"kind": "positions"}])),
        "no decoding strategy in common: ": with_config(lambda c: c["generation"].update(strategies=[{"top_k": 3}])),
        "no model in common: ": {"models": [{**base.manifest["models"][0], "name": "another"}]},
    }
    for index, (message, manifest) in enumerate(others.items()):
        other = changed(base.path, tmp_path / str(index), **manifest)
        with pytest.raises(UsageError, match="cannot be compared"):
            gate(other, base)
        assert invoke(["gate", str(other.path), "--baseline", str(base.path)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert len(said.err.strip().splitlines()) == 1
        assert message in said.err


def test_an_experiment_that_is_gone_is_missing(judged: Callable[..., Verdict], finished: Any) -> None:
    config = json.loads(json.dumps(finished[0].manifest["config"]))
    gone = config["experiments"].pop()["kind"]
    assert ("missing", gone) in failed(judged(config=config))


def test_a_partial_run_and_lost_units_fail(judged: Callable[..., Verdict], finished: Any) -> None:
    verdict = judged(state="partial", units=finished[0].manifest["units"][1:])
    assert {("incomplete", "run"), ("missing", "units")} <= failed(verdict)


def test_what_is_declared_may_be_new_or_gone(judged: Callable[..., Verdict]) -> None:
    declared = Tolerance.model_validate(
        {"new": [{"metric": "kullback"}], "missing": [{"metric": "kl"}, {"metric": "explained"}]}
    )
    assert judged(lambda rows: rows.assign(metric=rows["metric"].replace("kl", "kullback")), declared).passed


def test_a_tolerance_file_decides(judged: Callable[..., Verdict], tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("metrics: {kl: {relative: 0.2}, explained: {absolute: 0.5}, seq_rep_1: {direction: same}}\n")
    change = scaled("kl", 1.05, surrogate="ccmc-fit")
    assert judged(change, load_tolerance(path)).passed
    shutil.rmtree(tmp_path / "changed")
    assert not judged(scaled("seq_rep_1", 0.5, surrogate="ccmc-fit"), load_tolerance(path)).passed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: {kll: {relative: 0.1}}", "unknown metric 'kll'; did you mean 'kl'"),
        ("metric: {kl: {relative: 0.1}}", "unknown key 'metric'; did you mean 'metrics'"),
        ("relative: -1", "relative: "),
        ("metrics: {kl: {direction: up}}", "direction: "),
        ("[1]", "is a mapping of keys"),
    ],
)
def test_wrong_tolerance_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_tolerance(path)


def test_the_shipped_tolerance_file_is_valid() -> None:
    assert load_tolerance(ROOT / "results" / "reference" / "tolerance.yaml").level == 0.95


def test_the_command_and_its_files(finished: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = str(finished[0].path)
    assert invoke(["gate", base, "--baseline", base]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("gate passed: ")
    worse = str(changed(finished[0].path, tmp_path / "worse", scaled("kl", 1.3, surrogate="ccmc-fit")).path)
    xml, summary = tmp_path / "out" / "gate.xml", tmp_path / "gate.md"
    arguments = ["gate", worse, "--baseline", base, "--junit", str(xml), "--markdown", str(summary)]
    assert invoke(arguments) == 1
    out = capsys.readouterr().out
    assert "ccmc-fit kl" in out
    assert "+30.0 " in out
    assert out.strip().splitlines()[-1].startswith("gate failed: ")
    suite = ElementTree.parse(xml).getroot()[0]
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure")) > 0
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
    names = [case.attrib["name"] for case in suite.findall("testcase")]
    assert len(set(names)) == len(names)  # readers of the format take cases of one name for one
    assert all(case.attrib["classname"] and float(case.attrib["time"]) == 0 for case in suite.findall("testcase"))
    assert "ccmc-fit kl" in summary.read_text()
    assert invoke(["gate", worse, "--baseline", base, "--junit", str(tmp_path)]) == 2
    assert invoke(["gate", worse]) == 2


def test_a_baseline_is_made_only_of_runs_that_can_be_trusted(finished: Any, tmp_path: Path) -> None:
    from harness.analysis.baseline import update_baseline

    source, target = tmp_path / "source", tmp_path / "reference"
    shutil.copytree(finished[0].path, source)

    def with_manifest(**changes: Any) -> Run:
        content = {**finished[0].manifest, "git": {"commit": "a" * 40, "dirty": False}, **changes}
        (source / "manifest.json").write_text(json.dumps(content))
        return load_run(source)

    config = {**finished[0].manifest["config"], "limit": 1}
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"state": "partial"}, "it is partial"),
        ({"git": {"commit": "a" * 40, "dirty": True}}, "not committed"),
        ({"git": {"commit": None, "dirty": None}}, "not made from a git checkout"),
        ({"config": config}, "--limit 1"),
        ({"config_hash": "0"}, "config_hash is 0"),
    ]
    for changes, message in refusals:
        with pytest.raises(UsageError, match=message):
            update_baseline(with_manifest(**changes), target)
    good = with_manifest()
    with pytest.raises(UsageError, match="the run itself"):
        update_baseline(good, source)
    with pytest.raises(UsageError, match="a run with its units"):
        update_baseline(good, finished[0].path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="holds other things"):
        update_baseline(good, tmp_path / "thesis")
    assert not target.exists()
    for _ in range(2):  # new, then in the place of the old one
        assert invoke(["gate", str(source), "--baseline", str(target), "--update"]) == 0
        assert sorted(p.name for p in target.iterdir()) == ["manifest.json", "rows.parquet", "trajectories.parquet"]
        assert file_hash(target / "rows.parquet") == file_hash(source / "rows.parquet")
        assert verify(target).problems == ()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["reference", "source", "thesis"]
    assert invoke(["gate", str(source), "--baseline", str(target)]) == 0


def test_another_seed_is_compared_as_two_samples(finished: Any, tmp_path: Path) -> None:
    changes = ["seed=1", "experiments=[{kind: one-layer, vocab_size: 6, dimension: 8, observations: 2000, "]
    changes[1] += "prompt_length: 8, repetitions: 6, held_out_prompts: 500, rollout_prompts: 3, rollout_steps: 40, "
    changes[1] += "rollout_seeds: 2}]"
    runs = [
        harness.run(finished[1] / "small.yaml", overrides=[f"seed={seed}", changes[1]], out=tmp_path / str(seed))
        for seed in (0, 1)
    ]
    verdict = gate(runs[1], runs[0])
    assert any("seeds 0 and 1" in note for note in verdict.notes)
    how = {f.detail for f in verdict.findings if f.difference is not None and f.difference.interval.low is not None}
    assert how == {"unpaired, two samples"}
    assert not any(finding.status == "missing" for finding in verdict.findings)


def test_on_other_data_a_measure_of_loops_may_be_undefined(finished: Any, tmp_path: Path) -> None:
    def no_loops(rows: pd.DataFrame) -> pd.DataFrame:
        chosen = rows["metric"].isin(["loop_onset", "zipf_slope"])
        rows.loc[chosen, "value"] = pd.NA
        rows.loc[chosen, "missing"] = "no loop"
        return rows

    def no_fit(rows: pd.DataFrame) -> pd.DataFrame:
        chosen = (rows["metric"] == "kl") & (rows["experiment"] == "generation")
        rows.loc[chosen, "value"] = pd.NA
        rows.loc[chosen, "missing"] = "infinite"
        return rows

    base = finished[0]
    other = {**base.manifest["prompts"], "sha256": "x"}
    verdict = gate(changed(base.path, tmp_path / "a", no_loops, prompts=other), base)
    assert verdict.passed
    assert any("undefined on the data of one side: no loop" in finding.detail for finding in verdict.findings)
    assert not gate(changed(base.path, tmp_path / "b", no_loops), base).passed  # on the same data it is news
    assert not gate(changed(base.path, tmp_path / "c", no_fit, prompts=other), base).passed


def test_fixtures_for_other_suites(finished: Any, tmp_path: Path) -> None:
    base = finished[0].path
    changed(base, tmp_path / "worse", scaled("kl", 1.3, surrogate="ccmc-fit"))
    (tmp_path / "test_mine.py").write_text(
        f"def test_good(ccmc_gate):\n    assert ccmc_gate({str(base)!r}, {str(base)!r}).passed\n"
        f"def test_bad(ccmc_gate):\n    ccmc_gate({str(tmp_path / 'worse')!r}, {str(base)!r})\n"
    )
    installed = any(entry.value == "harness.cli.pytest_plugin" for entry in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "harness.cli.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "gate failed: " in done.stdout
    assert "ccmc-fit kl" in done.stdout
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert declared == {"ccmc": "harness.cli.pytest_plugin"}


def test_the_fixture_takes_runs_paths_and_tolerance_files(finished: Any, tmp_path: Path) -> None:
    worse = changed(finished[0].path, tmp_path / "worse", scaled("kl", 1.05, surrogate="ccmc-fit"))
    with pytest.raises(AssertionError, match="gate failed"):
        assert_gate(worse, str(finished[0].path))
    (tmp_path / "t.yaml").write_text("relative: 0.2\nmetrics: {explained: {absolute: 1}}")
    assert assert_gate(worse, finished[0], tmp_path / "t.yaml").passed


def test_a_fit_can_be_asserted_on() -> None:
    rng = np.random.default_rng(0)
    good = CCMC(rng.normal(0.0, 1.0, (5, 5)))
    bad = CCMC(good.logits + rng.normal(0.0, 0.5, (5, 5)))
    contexts = Contexts(rng.integers(1, 4, (4000, 5)).astype(float), rng.integers(0, 5, 4000))
    probability = np.asarray(good.next_token(contexts.counts, contexts.query))
    targets = (np.cumsum(probability, axis=1) <= rng.random((4000, 1))).sum(axis=1)
    for observed in (Observations(contexts, targets), Observations(contexts, probability)):
        assert assert_fit(good, bad, observed) < 0
        with pytest.raises(AssertionError, match="worse than its baseline by"):
            assert_fit(bad, good, observed)
        assert assert_fit(bad, good, observed, tolerance=1.0) > 0
