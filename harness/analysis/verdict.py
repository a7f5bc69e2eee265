"""What a gate found: one finding for each figure, and the verdict over all of them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.stats.pooling import Difference

UNDECIDED = "undecided"
FAILURES = ("worse", "missing", "no value", "new", "incomplete", "changed", "schema")


@dataclass(frozen=True)
class Finding:
    """One figure or property that the gate checked.

    Attributes:
        figure: its name, such as "heads smollm2-135m greedy ccmc-fit kl".
        status: `ok`, `undecided`, or one of FAILURES.
        baseline, value: the two figures; None where there is none.
        difference: value - baseline with its interval; None where nothing was compared.
        allowed: how much worse it may be.
        detail: the problem in words, or how the figure was compared.
        worse: how much worse it is, negative where it is better; None where nothing was compared.
        findable: the smallest true difference that the gate finds with 80 % power; None where that is unknown.
    """

    figure: str
    status: str
    baseline: float | None = None
    value: float | None = None
    difference: Difference | None = None
    allowed: float | None = None
    detail: str = ""
    worse: float | None = None
    findable: float | None = None

    @property
    def failed(self) -> bool:
        return self.status in FAILURES

    @property
    def undecided(self) -> bool:
        return self.status == UNDECIDED

    @property
    def beyond(self) -> bool:
        """Did it move the wrong way by more than is allowed, beyond chance or not?"""
        return self.worse is not None and self.allowed is not None and self.worse > self.allowed


@dataclass(frozen=True)
class Verdict:
    """All findings of a gate, and the differences between the two runs.

    Attributes:
        findings: one for each figure or property.
        notes: settings and surroundings that differ, one line each.
        strict: a figure that is undecided fails.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    strict: bool = False

    @property
    def failures(self) -> tuple[Finding, ...]:
        """What fails the gate; with `strict` what is undecided too."""
        return tuple(one for one in self.findings if one.failed or (self.strict and one.undecided))

    @property
    def undecided(self) -> tuple[Finding, ...]:
        """Figures of which the run is too small to say whether they got worse than is allowed."""
        return tuple(one for one in self.findings if one.undecided)

    @property
    def passed(self) -> bool:
        return not self.failures and any(finding.value is not None for finding in self.findings)
