"""The gate's third state: what a run is too small to decide is neither ok nor worse, and is shown with its power."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from harness.analysis.gate import gate_rows
from harness.analysis.tolerance import Tolerance
from harness.analysis.verdict import Finding, Verdict
from harness.cli import pytest_plugin
from harness.cli.app import invoke
from harness.core.hashing import file_hash
from harness.core.rows import Rows
from harness.report.gate_output import MOST_UNDECIDED, summary, tables, to_junit, to_markdown
from harness.runs.writing import write_parquet

Array = np.ndarray[Any, Any]


def rows(values: Array, surrogate: str = "ccmc-fit", metric: str = "kl") -> pd.DataFrame:
    """One figure: a value per held-out prompt."""
    made = Rows(experiment="heads", model="m", strategy="greedy", split="held_out")
    for index, value in enumerate(values):
        made.add(metric, float(value), surrogate=surrogate, prompt=f"p{index}", n=10)
    return made.frame()


def judged(new: Array, old: Array, paired: bool = True, tolerance: Tolerance | None = None) -> Finding:
    (found,) = gate_rows(
        rows(new), rows(old), tolerance or Tolerance(), paired_prompts=paired, paired_repetitions=False,
        language_models=["m"],
    )  # fmt: skip
    return found


def test_a_large_change_that_six_prompts_cannot_show_is_undecided() -> None:
    rng = np.random.default_rng(0)
    old = rng.uniform(0.8, 1.2, 6)
    for percent in (48, 74):
        noise = np.array([2.5, -1.2, 3.0, -2.0, 2.2, -0.9])
        new = old * (1 + percent / 100) + 1.5 * (noise - noise.mean())
        found = judged(new, old)
        assert found.status == "undecided"
        assert found.beyond
        assert found.baseline is not None
        assert found.value == pytest.approx((1 + percent / 100) * old.mean(), rel=0.05)
        assert found.findable is not None
        assert found.findable > 0.74 * found.baseline  # 80 % power would need a larger change than this


def test_the_same_change_is_worse_where_the_run_shows_it() -> None:
    old = np.random.default_rng(1).uniform(0.8, 1.2, 6)
    assert judged(old * (1.4 + 0.1 * np.linspace(-1, 1, 6)), old).status == "worse"
    assert judged(old * 1.48, old).status == "worse"


@pytest.mark.parametrize("n", [4, 5, 6, 24])
def test_rows_that_agree_are_ok_and_so_is_rounding(n: int) -> None:
    rng = np.random.default_rng(2)
    old = rng.lognormal(0.0, 1.0, n)
    assert judged(old, old.copy()).detail == "identical"
    assert judged(old * (1 + 1e-6 * rng.normal(size=n)), old).status == "ok"


def test_a_change_within_the_tolerance_is_ok_only_where_a_larger_one_would_have_been_found() -> None:
    rng = np.random.default_rng(3)
    for n, noise, status in ((6, 0.3, "undecided"), (6, 0.001, "ok"), (400, 0.01, "ok")):
        old = rng.uniform(0.9, 1.1, n)
        shift = rng.normal(0.0, noise, n)
        found = judged(old + shift - shift.mean(), old)
        assert found.status == status, (n, noise)
        assert not found.beyond
    better = judged(0.3 * old + 0.01 * shift, old)
    assert better.status == "ok"


def test_few_units_are_ok_only_where_each_is_within_the_tolerance() -> None:
    old = np.array([1.0, 1.1, 0.9])
    assert judged(old * 1.01, old).status == "ok"
    assert judged(old + np.array([0.3, -0.3, 0.0]), old).status == "undecided"
    assert judged(old * 1.3, old).status == "worse"  # the tolerance decides alone
    one = judged(np.array([1.0]), np.array([1.005]))
    assert one.status == "ok"
    assert one.findable is None


def test_two_samples_without_power_are_undecided() -> None:
    rng = np.random.default_rng(4)
    found = judged(rng.normal(1.0, 0.3, 6), rng.normal(1.0, 0.3, 6), paired=False)
    assert found.status == "undecided"
    wide = Tolerance(relative=3.0)
    assert judged(rng.normal(1.0, 0.3, 6), rng.normal(1.0, 0.3, 6), paired=False, tolerance=wide).status == "ok"


def test_any_change_counts_where_a_tolerance_says_same() -> None:
    same = Tolerance.model_validate({"relative": 0.05, "metrics": {"kl": {"direction": "same"}}})
    old = np.random.default_rng(5).uniform(0.9, 1.1, 8)
    small = 0.002 * np.linspace(-1, 1, 8)
    assert judged(old * 0.98 + small, old, tolerance=same).status == "ok"
    assert judged(old * 0.8 + small, old, tolerance=same).status == "worse"
    assert judged(old + 3 * np.linspace(-1, 1, 8) - 0.1, old, tolerance=same).status == "undecided"


def test_the_difference_that_could_have_been_found_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(6)
    n, figures, runs = 6, 10, 4000
    from scipy.special import stdtrit

    from harness.stats.joint import Spread, together

    level = together(0.95, figures)
    shift = Spread(1 / np.sqrt(n), n - 1.0, 0.0).findable(level)
    drawn = rng.normal(shift, 1.0, (runs, n))
    t = drawn.mean(1) / (drawn.std(1, ddof=1) / np.sqrt(n))
    found = float(np.mean(t > -stdtrit(n - 1, (1 - level) / 2)))
    assert found == pytest.approx(0.8, abs=0.03)  # standard error .006


def verdict_of(count: int, strict: bool = False) -> Verdict:
    rng = np.random.default_rng(7)
    tables_of = [[], []]  # type: list[list[pd.DataFrame]]
    for index in range(count):
        old = rng.uniform(0.8, 1.2, 6)
        for side, values in zip(tables_of, (old + rng.normal(0.0, 0.2, 6), old), strict=True):
            side.append(rows(values, surrogate=f"s{index}"))
    new, old_rows = (pd.concat(side, ignore_index=True) for side in tables_of)
    found = gate_rows(new, old_rows, Tolerance(), paired_prompts=True, paired_repetitions=True, language_models=["m"])
    return Verdict(tuple(found), (), strict)


def test_many_undecided_figures_are_counted_and_the_worst_are_shown() -> None:
    verdict = verdict_of(40)
    assert verdict.passed
    assert len(verdict.undecided) == 40
    (table,) = tables(verdict, "run", "base")
    assert len(table.rows) == MOST_UNDECIDED
    relative = [cell for cell in table.column("relative") if isinstance(cell, float)]
    assert relative == sorted(relative, reverse=True)
    assert f"The {40 - MOST_UNDECIDED} with the smallest changes are left out" in table.caption
    beyond = sum(one.beyond for one in verdict.undecided)
    line = summary(verdict)
    assert line.startswith("gate passed: ")
    assert f"40 undecided ({beyond} worse by more than is allowed, but not beyond chance)" in line
    assert "--strict fails on them" in line
    assert "⚠️" in to_markdown(verdict, "run", "base")
    suite = ElementTree.fromstring(to_junit(verdict, "run", "base"))[0]
    assert (suite.attrib["skipped"], suite.attrib["failures"]) == ("40", "0")
    assert "could have found" in suite.findall("testcase/skipped")[0].attrib["message"]


def test_strict_fails_on_them() -> None:
    verdict = verdict_of(3, strict=True)
    assert not verdict.passed
    assert summary(verdict).startswith("gate failed: 3 undecided")
    suite = ElementTree.fromstring(to_junit(verdict, "run", "base"))[0]
    assert (suite.attrib["skipped"], suite.attrib["failures"]) == ("0", "3")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    """Two run directories of one figure with six prompts, one +48 % worse than the other with noise."""
    manifest = {
        "schema_version": 1, "config_as_given": {}, "name": "tiny", "state": "complete", "config_hash": "h", "seed": 0,
        "config": {"name": "tiny", "seed": 0, "models": ["m"], "limit": None, "generation": {"batch_size": 16},
                   "experiments": [{"kind": "heads"}]},
        "prompts": {"train": 6, "held_out": 6, "sha256": "p"}, "packages": {}, "machine": {}, "units": [],
        "models": [{"name": "m", "revision": None, "weights_sha256": "w", "layers": 1, "folder": None}],
        "git": {"commit": None, "dirty": None}, "failures": [], "created": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    old = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 1.0])
    new = 1.48 * old + np.array([1.5, -1.4, 1.3, -1.5, 1.4, -1.3])
    made = []
    for name, values, batch in (("new", new, 4), ("old", old, 16)):
        folder = tmp_path / name
        folder.mkdir()
        write_parquet(rows(values), folder / "rows.parquet")
        content = json.loads(json.dumps(manifest))
        content["config"]["generation"]["batch_size"] = batch
        content["tables"] = {"rows.parquet": file_hash(folder / "rows.parquet")}
        (folder / "manifest.json").write_text(json.dumps(content))
        made.append(str(folder))
    return made[0], made[1]


def test_the_command_says_what_it_cannot_decide(runs: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    new, old = runs
    assert invoke(["gate", new, "--baseline", old]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "generation.batch_size is 16 and 4 (changes speed and rounding only)" in out
    assert "1 undecided (1 worse by more than is allowed, but not beyond chance)" in out
    assert "Undecided: " in out
    assert invoke(["gate", new, "--baseline", old, "--strict"]) == 1
    assert "gate failed: 1 undecided" in capsys.readouterr().out
    assert invoke(["gate", old, "--baseline", old, "--strict"]) == 0
    assert "undecided" not in capsys.readouterr().out


def test_the_fixtures_show_the_third_state(runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(pytest_plugin, "_UNDECIDED", said)
    assert len(pytest_plugin.assert_gate(*runs).undecided) == 1
    assert len(said) == 1
    assert "strict=True fails on them" in said[0]
    with pytest.raises(AssertionError, match="gate failed: 1 undecided"):
        pytest_plugin.assert_gate(*runs, strict=True)
