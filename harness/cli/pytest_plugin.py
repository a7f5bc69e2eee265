"""A pytest plugin: fixtures with which any suite can assert that a run or a fit has not got worse.

Installed with the package; nothing heavy is imported until a fixture is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from ccmc import CCMC, Observations
    from harness.analysis.gate import Verdict


class GateFixture(Protocol):
    """What `ccmc_gate` is: call it with a run and its baseline."""

    def __call__(self, run: Any, baseline: Any, tolerance: Any = None) -> Verdict: ...


class FitFixture(Protocol):
    """What `ccmc_fit_gate` is: call it with a chain, the chain it must not be worse than, and observations."""

    def __call__(self, chain: CCMC, baseline: CCMC, observations: Observations, tolerance: float = 0.0) -> float: ...


def assert_gate(run: Any, baseline: Any, tolerance: Any = None) -> Verdict:
    """Fail unless a run passes the gate against its baseline.

    Args:
        run, baseline: runs, or the paths of run directories.
        tolerance: a `harness.analysis.tolerance.Tolerance`, the path of a tolerance file, or None for what is built in.

    Returns:
        The verdict, with every figure.

    Raises:
        AssertionError: the table of what failed.
    """
    from harness.analysis.gate import gate
    from harness.analysis.tolerance import Tolerance, load_tolerance
    from harness.report.gate_output import failure_table, summary
    from harness.report.render.markdown import to_markdown
    from harness.runs.run import Run, load_run

    opened = [one if isinstance(one, Run) else load_run(one) for one in (run, baseline)]
    allowed = tolerance if isinstance(tolerance, Tolerance) else load_tolerance(tolerance and Path(tolerance))
    verdict = gate(opened[0], opened[1], allowed)
    if not verdict.passed:
        table = failure_table(verdict, str(opened[0].path), str(opened[1].path))
        raise AssertionError(f"{summary(verdict)}\n\n{to_markdown(table)}")
    return verdict


def assert_fit(chain: CCMC, baseline: CCMC, observations: Observations, tolerance: float = 0.0) -> float:
    """Fail where a chain predicts observations worse than another, beyond a tolerance and significantly.

    Args:
        chain: what was fitted.
        baseline: what it must not be worse than, such as `CCMC.load` of a file in the repository.
        observations: held-out ones with a target each; each counts as a unit.
        tolerance: nats per observation that the chain may lose.

    Returns:
        Mean cross-entropy of the chain minus that of the baseline, nats per observation.

    Raises:
        AssertionError: the chain loses more than the tolerance and the interval of the difference excludes zero, or
            gives probability 0 to what happened.
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
