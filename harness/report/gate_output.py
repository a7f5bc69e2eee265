"""What a gate found, as a table, a line, Markdown and JUnit XML."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

from harness.analysis.gate import Finding, Verdict
from harness.core.format import interval, number
from harness.experiments._shared.tables import Table

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _difference(finding: Finding) -> str:
    return "–" if finding.difference is None else interval(finding.difference.interval, signed=True)


def _percent(finding: Finding) -> str:
    if finding.difference is None or finding.difference.interval.value is None or not finding.baseline:
        return "–"
    return f"{100 * finding.difference.interval.value / abs(finding.baseline):+.1f} %"


def failure_table(verdict: Verdict, run: str, baseline: str) -> Table:
    """Everything that failed, with numbers; the largest relative change first."""

    def size(finding: Finding) -> float:
        moved = finding.difference.interval.value if finding.difference else None
        return -abs(moved / finding.baseline) if moved is not None and finding.baseline else float("-inf")

    body = [
        [
            f.figure,
            f.status,
            number(f.baseline),
            number(f.value),
            _difference(f),
            _percent(f),
            number(f.allowed),
            "–" if f.difference is None else str(f.difference.interval.n),
            f.detail,
        ]
        for f in sorted(verdict.failures, key=size)
    ]
    return Table(
        f"Gate: {run} against {baseline}",
        ["figure", "fails as", "baseline", "run", "run - baseline", "relative", "allowed", "n", "how"],
        body,
        "Worse: by more than is allowed, with an interval of the difference that excludes zero. The intervals hold "
        "together for all figures that moved (95 % unless the tolerance file differs), by bootstrap over n units.",
    )


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
        lines += ["", failure_table(verdict, run, baseline).markdown().rstrip()]
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
