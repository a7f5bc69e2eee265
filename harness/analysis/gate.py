"""`ccmc gate`: has a run got worse than its baseline?

A figure fails where it is worse than the baseline's by more than its tolerance *and* the interval of the difference
excludes zero; where that interval cannot exist (fewer than 5 units, or the same difference in each), the tolerance
decides alone. A figure of which the run is too small to say whether it got worse is undecided (`judging`): the gate
passes, says how many these are and what it could have found, and fails on them with `strict`. Intervals of figures that
moved hold together, by Bonferroni's correction: with hundreds of figures some would exclude zero by chance. What is
missing, has no value, or is new without being declared fails too, and so do runs that are incomplete or were changed by
hand. Runs that cannot be compared at all, as figures of the same name do not mean the same, are wrong use. NaN never
passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from harness.analysis.comparability import compare_manifests, nothing_shared, refusal
from harness.analysis.judging import Moved, judge
from harness.analysis.tolerance import Pattern, Tolerance
from harness.analysis.verdict import Finding, Verdict
from harness.core import registry
from harness.core.errors import UsageError
from harness.core.rows import frames
from harness.runs.verify import check_tables, schema_problems
from harness.stats.pooling import CELL, Observed, Sample, factors

ROW = ("layer", "head", "fold", "prompt", "seed")  # with the factors of a cell, these identify a row
Key = tuple[object, ...]


def gate(run: Any, baseline: Any, tolerance: Tolerance | None = None, strict: bool = False) -> Verdict:
    """Compare a run with its baseline.

    Args:
        run: an opened run.
        baseline: the run that it must not be worse than.
        tolerance: allowed changes; default: those that the measures declare.
        strict: a figure that is undecided fails.

    Returns:
        The verdict; it passes only where something was compared and nothing failed.

    Raises:
        UsageError: figures of the same name do not mean the same (another experiment, model set or decoding).
    """
    found = compare_manifests(baseline.manifest, run.manifest)
    if why := refusal(found) or nothing_shared(baseline.manifest, run.manifest):
        raise UsageError(f"{baseline.path} and {run.path} cannot be compared: {why}")
    notes = [one.text for one in found.warnings if one.kind != "source"]
    lost = {e["kind"] for e in baseline.manifest["config"]["experiments"]} - {
        e["kind"] for e in run.manifest["config"]["experiments"]
    }
    whole = [
        Finding(str(kind), "missing", detail="an experiment of the baseline is not in this run")
        for kind in sorted(lost)
    ]
    for name, one in (("run", run), ("baseline", baseline)):
        if one.state != "complete":
            done, planned = one.finished_units()
            whole.append(Finding(name, "incomplete", detail=f"{one.state}: {done} of {planned} units are stored"))
        else:
            for problem in check_tables(one.path, one.manifest)[1]:
                if problem.unknown:
                    notes.append(f"{name}: {problem.text}")
                else:
                    whole.append(Finding(f"{name} {problem.file}", "changed", detail=problem.text))
    if len(run.manifest["units"]) < len(baseline.manifest["units"]):
        counts = f"{len(run.manifest['units'])} units, the baseline has {len(baseline.manifest['units'])}"
        whole.append(Finding("units", "missing", detail=counts))
    models = {model["name"] for model in run.manifest["models"]}
    rows = gate_rows(
        run.rows,
        baseline.rows,
        tolerance or Tolerance(),
        paired_prompts=found.same_prompts,
        paired_repetitions=found.same_repetitions,
        language_models=models,
    )
    return Verdict((*whole, *rows), tuple(notes), strict)


def gate_rows(
    rows: pd.DataFrame,
    baseline: pd.DataFrame,
    tolerance: Tolerance,
    *,
    paired_prompts: bool,
    paired_repetitions: bool,
    language_models: Iterable[str] = (),
) -> list[Finding]:
    """Compare the rows of a run with those of its baseline.

    Args:
        rows, baseline: two tables in the schema.
        tolerance: allowed changes.
        paired_prompts: prompts of the same name have the same text in both.
        paired_repetitions: repetition i drew the same data in both.
        language_models: models whose units are prompts; the units of all others are repetitions.

    Returns:
        One finding for each figure, those of layers too where units are paired.
    """
    broken = [
        Finding(f"{name} {index}", "schema", detail=problem)
        for name, table in (("rows", rows), ("rows of the baseline", baseline))
        for index, problem in enumerate(schema_problems(table))
    ]
    if broken:
        return broken
    models = set(language_models)
    mine, theirs = Observed(rows), Observed(baseline)
    levels: list[tuple[str, ...]] = [CELL]
    if paired_prompts:
        levels.append((*CELL[:3], "layer", *CELL[3:]))
    findings: list[Finding] = []
    moved: list[Moved] = []
    for by in levels:
        new, old = dict(mine.cells(by)), dict(theirs.cells(by))
        changes = _row_changes(mine, theirs, by)
        for key in dict.fromkeys([*old, *new]):
            named = dict(zip(by, key, strict=True))
            if ("layer" in by and named["layer"] is None) or _declared(tolerance.ignore, named):
                continue
            paired = paired_prompts if named["model"] in models else paired_repetitions
            lost, more = changes.get(key, (0, 0)) if paired else (0, 0)
            finding = _presence(named, new.get(key), old.get(key), tolerance, paired, lost, more)
            if finding is None:
                a, b = new[key], old[key]
                moved.append(Moved(len(findings), a, b, str(named["metric"]), str(named["surrogate"]), paired))
                allowed = None if b.value is None else tolerance.allowed(str(named["metric"]), b.value)
                finding = Finding(_label(named), "ok", b.value, a.value, None, allowed)
            findings.append(finding)
    judge(findings, moved, tolerance)
    return findings


def _declared(patterns: tuple[Pattern, ...], named: dict[str, Any]) -> bool:
    return any(pattern.fits(named) for pattern in patterns)


def _label(named: dict[str, Any]) -> str:
    parts = []
    for name, value in named.items():
        if value is None or (name == "split" and value == "held_out"):
            continue
        shown = factors(value) if name == "condition" else f"layer {value}" if name == "layer" else value
        parts.append(str(shown))
    return " ".join(parts)


def _row_changes(mine: Observed, theirs: Observed, by: tuple[str, ...]) -> dict[Key, tuple[int, int]]:
    """Cell -> how many rows of the baseline are not in the run, and how many of the run not in the baseline."""
    columns = list(dict.fromkeys((*by, *ROW)))
    both = pd.concat([seen.frame[columns].assign(change=turn) for seen, turn in ((mine, 1), (theirs, -1))])
    net = both.groupby(columns, dropna=False, sort=False)["change"].sum()
    moved = net[net != 0].reset_index()
    found: dict[Key, tuple[int, int]] = {}
    for row in moved.to_dict("records"):
        key = tuple(None if pd.isna(row[name]) else row[name] for name in by)
        lost, more = found.get(key, (0, 0))
        found[key] = (lost + max(-row["change"], 0), more + max(row["change"], 0))
    return found


def _presence(
    named: dict[str, Any],
    new: Sample | None,
    old: Sample | None,
    tolerance: Tolerance,
    paired: bool,
    lost_rows: int,
    more_rows: int,
) -> Finding | None:
    """The problem that prevents a comparison of two figures; None where there is none."""
    figure = _label(named)
    if old is None:
        assert new is not None
        status = "ok" if _declared(tolerance.new, named) else "new"
        return Finding(figure, status, None, new.value, detail="not in the baseline")
    if new is None:
        status = "ok" if _declared(tolerance.missing, named) else "missing"
        return Finding(figure, status, old.value, None, detail="in the baseline, not in this run")
    if _declared(tolerance.missing, named) and (not paired or new.units.intersection(old.units).empty):
        return Finding(figure, "ok", old.value, new.value, detail="declared: may be gone")
    if not paired and not _watched(named) and (new.pooled is None) != (old.pooled is None):
        reason = new.reason if new.pooled is None else old.reason
        return Finding(figure, "ok", old.value, new.value, detail=f"undefined on the data of one side: {reason}")
    if new.pooled is None and old.pooled is not None:
        return Finding(figure, "no value", old.value, None, detail=new.reason or "no value")
    if new.pooled is None or old.pooled is None:
        if new.pooled is not None and not _declared(tolerance.new, named):
            return Finding(figure, "new", None, new.value, detail="the baseline has no value here")
        return Finding(figure, "ok", old.value, new.value, detail=f"no value on either side: {new.reason}")
    if lost_rows and not _declared(tolerance.missing, named):
        counts = f"{old.rows - lost_rows} of {old.rows} rows are there"
        return Finding(figure, "missing", old.value, new.value, detail=counts)
    if more_rows and not _declared(tolerance.new, named):
        counts = f"{more_rows} rows that the baseline has not, or twice"
        return Finding(figure, "new", old.value, new.value, detail=counts)
    nothing = pd.Index([])
    lost = old.units.difference(new.units) if paired else nothing
    if len(lost):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        why = f": {new.reason}" if new.missing > old.missing else ""
        return _lost(figure, named, old, new, f"no value for {lost[0]}{more}{why}")
    if paired and new.rows - new.missing < old.rows - old.missing:
        counts = f"{new.rows - new.missing} rows have a value, {old.rows - old.missing} in the baseline"
        return _lost(figure, named, old, new, f"{counts}: {new.reason}")
    fresh = new.units.difference(old.units) if paired else nothing
    if len(fresh) and not _declared(tolerance.new, named):
        more = f" and {len(fresh) - 1} more" if len(fresh) > 1 else ""
        return _lost(figure, named, old, new, f"units that the baseline has no value for: {fresh[0]}{more}", "new")
    if not paired and len(new.units) + 1 < 0.9 * len(old.units):  # one unit can always be undefined on other data
        return _lost(figure, named, old, new, f"{len(new.units)} units, the baseline has {len(old.units)}")
    return None


def _watched(named: dict[str, Any]) -> bool:
    """Is one direction of a figure better?"""
    return named["surrogate"] not in frames() and registry.sign(str(named["metric"])) != 0


def _lost(
    figure: str, named: dict[str, Any], old: Sample, new: Sample, detail: str, status: str = "missing"
) -> Finding | None:
    """Where a metric is undefined for some units, such as the onset of a loop, they come and go: judged ones do not."""
    if not _watched(named):
        return None
    return Finding(figure, status, old.value, new.value, detail=detail)
