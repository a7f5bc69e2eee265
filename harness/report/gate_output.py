"""What a gate found, as tables, a line, Markdown and JUnit XML."""

from __future__ import annotations

import re
from collections import Counter
from statistics import median
from xml.etree import ElementTree

from harness.analysis.verdict import Finding, Verdict
from harness.core.format import interval, number
from harness.core.records import Cell, Column, Table
from harness.report.render.markdown import to_markdown as table_markdown

MOST_UNDECIDED = 12  # rows of the table of what could not be decided
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _difference(finding: Finding) -> str:
    return "–" if finding.difference is None else interval(finding.difference.interval, signed=True)


def _percent(finding: Finding) -> float | None:
    if finding.difference is None or finding.difference.interval.value is None or not finding.baseline:
        return None
    return 100 * finding.difference.interval.value / abs(finding.baseline)


def _size(finding: Finding) -> float:
    """For sorting: the largest relative change first."""
    moved = finding.difference.interval.value if finding.difference else None
    return -abs(moved / finding.baseline) if moved is not None and finding.baseline else float("-inf")


def _findable(finding: Finding) -> float | None:
    """The smallest change that the gate could have found, percent of the baseline."""
    return 100 * finding.findable / abs(finding.baseline) if finding.findable is not None and finding.baseline else None


def _numbers(one: Finding) -> list[Cell]:
    moved = None if one.difference is None else one.difference.interval
    return [one.baseline, one.value, moved, _percent(one)]


_NUMBERS = (
    Column("baseline", priority=2),
    Column("run", priority=2),
    Column("run - baseline", signed=True),
    Column("relative", "%", signed=True, priority=1),
)


def failure_table(verdict: Verdict, run: str, baseline: str) -> Table:
    """Everything that failed, with numbers; the largest relative change first. What is undecided has its own table."""
    columns = [
        Column("figure", left=True),
        Column("fails as", left=True),
        *_NUMBERS,
        Column("allowed", priority=3),
        Column("n", priority=4),
        Column("how", left=True, priority=5),
    ]
    rows: list[list[Cell]] = []
    for one in sorted((one for one in verdict.failures if not one.undecided), key=_size):
        units = None if one.difference is None else one.difference.interval.n
        rows.append([one.figure, one.status, *_numbers(one), one.allowed, units, one.detail])
    note = (
        "Worse: by more than is allowed, with an interval of the difference that excludes zero. The intervals hold "
        "together for all figures that moved (95 % unless the tolerance file differs), by bootstrap and t over n units."
    )
    return Table("gate", f"Gate: {run} against {baseline}", columns, rows, note)


def undecided_table(verdict: Verdict, run: str, baseline: str) -> Table:
    """The figures that the gate could not decide, at most MOST_UNDECIDED; those that moved the wrong way first."""
    columns = [
        Column("figure", left=True),
        *_NUMBERS,
        Column("allowed", "%", priority=1),
        Column("could have found", "%"),
        Column("n", priority=3),
    ]
    ordered = sorted(verdict.undecided, key=lambda one: (not one.beyond, _size(one)))
    rows: list[list[Cell]] = []
    for one in ordered[:MOST_UNDECIDED]:
        assert one.difference is not None
        allowed = 100 * one.allowed / abs(one.baseline) if one.allowed is not None and one.baseline else None
        rows.append([one.figure, *_numbers(one), allowed, _findable(one), one.difference.interval.n])
    beyond = sum(one.beyond for one in ordered)
    note = (
        f"{beyond} of {len(ordered)} undecided figures moved the wrong way by more than is allowed, by no more than "
        "chance could; of the others the run is too small to say whether they did."
    )
    if len(ordered) > MOST_UNDECIDED:
        note += f" The {len(ordered) - MOST_UNDECIDED} with the smallest changes are left out."
    note += (
        " Could have found: the smallest change, in percent of the baseline, that is found with 80 % power over n "
        "units at the level of all figures together. More prompts or repetitions make it smaller."
    )
    return Table("gate.undecided", f"Undecided: {run} against {baseline}", columns, rows, note)


def summary(verdict: Verdict) -> str:
    """One line: passed or failed, how many figures of each kind, and what of them could not be decided."""
    counts = Counter(finding.status for finding in verdict.failures)
    same = sum(finding.detail == "identical" for finding in verdict.findings)
    judged = sum(finding.difference is not None or finding.detail == "identical" for finding in verdict.findings)
    looked = f"{len(verdict.findings)} figures, {judged} judged, {same} of them identical"
    if verdict.passed:
        return f"gate passed: {looked}{_undecided(verdict)}"
    what = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing could be compared"
    return f"gate failed: {what} ({looked}{_undecided(verdict)})"


def _undecided(verdict: Verdict) -> str:
    """The end of the summary: how many figures are undecided; nothing where none is."""
    found = verdict.undecided
    if not found:
        return ""
    beyond = sum(one.beyond for one in found)
    text = f", {len(found)} undecided"
    if beyond:
        text += f" ({beyond} worse by more than is allowed, but not beyond chance)"
    known = [size for one in found if (size := _findable(one)) is not None]
    if known:
        text += f": the median of them had to change by {median(known):.2g} % to be found"
    return text + ("" if verdict.strict else "; --strict fails on them")


def to_markdown(verdict: Verdict, run: str, baseline: str) -> str:
    """A summary for a pull request."""
    sign = "❌" if not verdict.passed else "⚠️" if verdict.undecided else "✅"
    lines = [f"### {sign} {summary(verdict)}", ""]
    lines += [f"- {note}" for note in verdict.notes]
    for table in tables(verdict, run, baseline):
        lines += ["", table_markdown(table).rstrip()]
    return "\n".join(lines).rstrip() + "\n"


def tables(verdict: Verdict, run: str, baseline: str) -> list[Table]:
    """The tables that say something: what failed, and what could not be decided."""
    made = (failure_table(verdict, run, baseline), undecided_table(verdict, run, baseline))
    return [table for table in made if table.rows]


def to_junit(verdict: Verdict, run: str, baseline: str) -> str:
    """JUnit XML: one test case per figure; one that is undecided counts as skipped, or fails where that is strict."""

    def clean(text: str) -> str:
        return _NOT_XML.sub("\ufffd", text)

    suite = ElementTree.Element(
        "testsuite",
        name=clean(f"ccmc gate {run} --baseline {baseline}"),
        tests=str(len(verdict.findings)),
        failures=str(len(verdict.failures)),
        errors="0",
        skipped=str(0 if verdict.strict else len(verdict.undecided)),
        time="0",
    )
    for finding in verdict.findings:
        case = ElementTree.SubElement(suite, "testcase", classname="ccmc.gate", name=clean(finding.figure), time="0")
        if not (finding.failed or finding.undecided):
            continue
        text = f"baseline {number(finding.baseline)}, run {number(finding.value)}, {_difference(finding)}"
        text += f", allowed {number(finding.allowed)}"
        message = clean(f"{finding.status}: {finding.detail}")
        if finding.undecided:
            text += f", could have found {number(finding.findable)}"
        if finding.undecided and not verdict.strict:
            ElementTree.SubElement(case, "skipped", message=clean(f"{message}; {text}"))
        else:
            ElementTree.SubElement(case, "failure", type=finding.status, message=message).text = clean(text)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
