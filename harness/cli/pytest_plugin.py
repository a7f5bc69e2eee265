"""A pytest plugin: fixtures with which any suite can assert that a run or a fit has not got worse.

Installed with the package; nothing heavy is imported until a fixture is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from ccmc import CCMC, Observations
    from harness.analysis.verdict import Verdict


_UNDECIDED: list[str] = []  # one line for each gate of this session that passed with figures it could not decide


class GateFixture(Protocol):
    """What `ccmc_gate` is: call it with a run and its baseline."""

    def __call__(self, run: Any, baseline: Any, tolerance: Any = None, strict: bool = False) -> Verdict: ...


class FitFixture(Protocol):
    """What `ccmc_fit_gate` is: call it with a chain, the chain it must not be worse than, and observations."""

    def __call__(
        self, chain: CCMC, baseline: CCMC, observations: Observations, tolerance: float = 0.0, strict: bool = False
    ) -> float: ...


def assert_gate(run: Any, baseline: Any, tolerance: Any = None, strict: bool = False) -> Verdict:
    """Fail unless a run passes the gate against its baseline.

    Args:
        run, baseline: runs, or the paths of run directories.
        tolerance: a `harness.analysis.tolerance.Tolerance`, the path of a tolerance file, or None for what is built in.
        strict: fail on figures that are undecided, as the run is too small to say whether they got worse.

    Returns:
        The verdict, with every figure; `verdict.undecided` are those that could not be decided.

    Raises:
        AssertionError: the tables of what failed and of what could not be decided.
        UsageError: figures of the two runs do not mean the same.
    """
    from harness.analysis.gate import gate
    from harness.analysis.tolerance import Tolerance, load_tolerance
    from harness.report.gate_output import summary, tables
    from harness.report.render.markdown import to_markdown
    from harness.runs.run import Run, load_run

    opened = [one if isinstance(one, Run) else load_run(one) for one in (run, baseline)]
    allowed = tolerance if isinstance(tolerance, Tolerance) else load_tolerance(tolerance and Path(tolerance))
    verdict = gate(opened[0], opened[1], allowed, strict)
    if not verdict.passed:
        shown = "\n".join(map(to_markdown, tables(verdict, str(opened[0].path), str(opened[1].path))))
        raise AssertionError(f"{summary(verdict)}\n\n{shown}")
    if verdict.undecided:
        _UNDECIDED.append(f"{opened[0].path}: {summary(verdict).replace('--strict', 'strict=True')}")
    return verdict


def assert_fit(
    chain: CCMC, baseline: CCMC, observations: Observations, tolerance: float = 0.0, strict: bool = False
) -> float:
    """Fail where a chain predicts observations worse than another, beyond a tolerance and significantly.

    Args:
        chain: what was fitted.
        baseline: what it must not be worse than, such as `CCMC.load` of a file in the repository.
        observations: held-out ones with a target each; each counts as a unit.
        tolerance: nats per observation that the chain may lose.
        strict: fail where the observations are too few to say whether it loses more.

    Returns:
        Mean cross-entropy of the chain minus that of the baseline, nats per observation.

    Raises:
        AssertionError: the chain loses more than the tolerance and the interval of the difference excludes zero, or
            gives probability 0 to what happened; with `strict` also where the interval reaches beyond the tolerance.
    """
    import numpy as np

    from harness.stats.intervals import paired_difference

    losses = [_cross_entropy(one, observations) for one in (chain, baseline)]
    if not np.isfinite(losses[0]).all():
        raise AssertionError(f"observation {int(np.argmin(np.isfinite(losses[0])))} has probability 0 or NaN")
    found = paired_difference(losses[0], losses[1], seed=0)
    assert found.value is not None
    if found.value > tolerance and (found.low is None or found.low > 0):
        raise AssertionError(
            f"the fit is worse than its baseline by {found.value:.3g} nats per observation "
            f"[{found.low}, {found.high}], allowed {tolerance:g}; n = {found.n}"
        )
    if found.high is not None and found.high > tolerance and found.value != 0:
        said = f"undecided: {found.value:+.3g} nats per observation [{found.low:.3g}, {found.high:.3g}], "
        said += f"allowed {tolerance:g}; n = {found.n}"
        if strict:
            raise AssertionError(f"the fit against its baseline is {said}")
        if found.value > tolerance:
            _UNDECIDED.append(f"fit {said}")
    return found.value


def _cross_entropy(chain: CCMC, observations: Observations) -> Any:
    """Cross-entropy of each observation, [n]."""
    import numpy as np

    contexts = observations.contexts
    predicted: Any = chain.next_token(contexts.counts, contexts.query)
    dense = _dense(predicted)
    targets: Any = observations.targets
    if np.ndim(targets) == 1:
        chosen = dense[np.arange(len(dense)), np.asarray(targets)]
        with np.errstate(divide="ignore"):
            return -np.log(chosen)
    share = _dense(targets)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(share > 0, share * np.log(dense), 0.0).sum(axis=1)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say at the end of a session what gates passed without being able to decide."""
    if _UNDECIDED:
        terminalreporter.section("ccmc: passed, but undecided")
        for line in _UNDECIDED:
            terminalreporter.write_line(line)


def _dense(matrix: Any) -> Any:
    return matrix.toarray() if hasattr(matrix, "toarray") else matrix


@pytest.fixture(scope="session")
def ccmc_gate() -> GateFixture:
    """Assert that a run is no worse than its baseline: `ccmc_gate(run, "results/reference/mine")`."""
    return assert_gate


@pytest.fixture(scope="session")
def ccmc_fit_gate() -> FitFixture:
    """Assert that a chain predicts no worse than another: `ccmc_fit_gate(chain, CCMC.load(path), observations)`."""
    return assert_fit
