"""What a gate found, as a table, a line, Markdown and JUnit XML."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

from harness.analysis.gate import Finding, Verdict
from harness.core.format import interval, number
from harness.core.records import Cell, Column, Table
from harness.report.render.markdown import to_markdown as table_markdown

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _difference(finding: Finding) -> str:
    return "–" if finding.difference is None else interval(finding.difference.interval, signed=True)


def _percent(finding: Finding) -> float | None:
    if finding.difference is None or finding.difference.interval.value is None or not finding.baseline:
        return None
    return 100 * finding.difference.interval.value / abs(finding.baseline)


def failure_table(verdict: Verdict, run: str, baseline: str) -> Table:
    """Everything that failed, with numbers; the largest relative change first."""

    def size(finding: Finding) -> float:
        moved = finding.difference.interval.value if finding.difference else None
        return -abs(moved / finding.baseline) if moved is not None and finding.baseline else float("-inf")

    columns = [
        Column("figure", left=True),
        Column("fails as", left=True),
        Column("baseline", priority=2),
        Column("run", priority=2),
        Column("run - baseline", signed=True),
        Column("relative", "%", signed=True, priority=1),
        Column("allowed", priority=3),
        Column("n", priority=4),
        Column("how", left=True, priority=5),
    ]
    rows: list[list[Cell]] = []
    for one in sorted(verdict.failures, key=size):
        moved = None if one.difference is None else one.difference.interval
        figures: list[Cell] = [one.baseline, one.value, moved, _percent(one), one.allowed]
        rows.append([one.figure, one.status, *figures, None if moved is None else moved.n, one.detail])
    note = (
        "Worse: by more than is allowed, with an interval of the difference that excludes zero. The intervals hold "
        "together for all figures that moved (95 % unless the tolerance file differs), by bootstrap over n units."
    )
    return Table("gate", f"Gate: {run} against {baseline}", columns, rows, note)


def summary(verdict: Verdict) -> str:
    """One line: passed or failed, and how many figures of each kind."""
    counts = Counter(finding.status for finding in verdict.findings if finding.failed)
    same = sum(finding.detail == "identical" for finding in verdict.findings)
    judged = sum(finding.difference is not None or finding.detail == "identical" for finding in verdict.findings)
    looked = f"{len(verdict.findings)} figures, {judged} judged, {same} of them identical"
    if verdict.passed:
        return f"gate passed: {looked}"
    what = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing could be compared"
    return f"gate failed: {what} ({looked})"


def to_markdown(verdict: Verdict, run: str, baseline: str) -> str:
    """A summary for a pull request."""
    lines = [f"### {'✅' if verdict.passed else '❌'} {summary(verdict)}", ""]
    lines += [f"- {note}" for note in verdict.notes]
    if verdict.failures:
        lines += ["", table_markdown(failure_table(verdict, run, baseline)).rstrip()]
    return "\n".join(lines).rstrip() + "\n"


def to_junit(verdict: Verdict, run: str, baseline: str) -> str:
    """JUnit XML: one test case per figure."""

    def clean(text: str) -> str:
        return _NOT_XML.sub("\ufffd", text)

    suite = ElementTree.Element(
        "testsuite",
        name=clean(f"ccmc gate {run} --baseline {baseline}"),
        tests=str(len(verdict.findings)),
        failures=str(len(verdict.failures)),
        errors="0",
        skipped="0",
        time="0",
    )
    for finding in verdict.findings:
        case = ElementTree.SubElement(suite, "testcase", classname="ccmc.gate", name=clean(finding.figure), time="0")
        if finding.failed:
            numbers = f"baseline {number(finding.baseline)}, run {number(finding.value)}, {_difference(finding)}"
            message = clean(f"{finding.status}: {finding.detail}")
            failure = ElementTree.SubElement(case, "failure", type=finding.status, message=message)
            failure.text = clean(f"{numbers}, allowed {number(finding.allowed)}")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
