"""What the paper's experiments share: units per repetition, pooling over them, and verdicts.

A repetition draws everything anew; it is what intervals resample. The pooling unit of an experiment reads the rows of
its repetitions and writes rows of split "pooled": measurement with interval, prediction, verdict. A verdict is the
comparison and nothing else:

    agrees / differs             the prediction is inside / outside the 95 % interval
    holds / does not hold        a bound that was fixed beforehand is kept / broken
    no interval                  too few repetitions, as in a smoke run
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.config.load import Config
from harness.core.records import Interval
from harness.core.rows import Rows, with_factors
from harness.runs.units import Unit, Work
from harness.stats.intervals import FEWEST_UNITS, bca, mean_interval, too_few
from harness.stats.resampling import resampled

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
POOLED = "pooled"
SEED = 0  # of the bootstrap: the same rows give the same pooled rows


def repetitions(config: Config, wanted: int) -> int:
    """How many repetitions a run makes, a smoke run fewer."""
    return wanted if config.limit is None else min(wanted, config.limit)


def plan_repetitions(
    config: Config, settings: Any, cells: Sequence[tuple[str, dict[str, Any]]] = (("", {}),)
) -> list[Unit]:
    """Units `repetition` for every cell and repetition, and `pool` after them.

    Args:
        config: the whole config.
        settings: of the experiment.
        cells: (label, settings of its own) of each cell.
    """
    module = f"harness.experiments.{settings.kind.replace('-', '_')}.units"
    total = repetitions(config, settings.repetitions)
    shared = settings.model_dump(mode="json", exclude={"repetitions"})
    units = [
        Unit(
            f"{module}:repetition",
            f"{settings.kind}{', ' if label else ''}{label}, repetition {index + 1} of {total}",
            {**shared, **own, "seed": config.seed, "repetition": index},
        )
        for label, own in cells
        for index in range(total)
    ]
    pool = Unit(f"{module}:pool", f"{settings.kind}: pooling", {**shared, "seed": config.seed}, tuple(units))
    return [*units, pool]


def read_rows(work: Work) -> pd.DataFrame:
    """The rows of all units that a pooling unit needs, with the factors of `condition` as columns of their own."""
    frame = pd.concat([pd.read_parquet(folder / "rows.parquet") for folder in work.inputs], ignore_index=True)
    return with_factors(frame)


def values(frame: pd.DataFrame, **where: object) -> FloatArray:
    """Values of the rows that match, one per repetition in order; missing ones are left out."""
    for column, wanted in where.items():
        frame = frame[frame[column] == wanted]
    kept: FloatArray = frame.sort_values("seed", kind="stable")["value"].dropna().to_numpy(dtype=float)
    return kept


# An interval over repetitions that all give one number has no width: sums in another order may end beside it.
_ROUNDING = 1e-10


def verdict(found: Interval, prediction: float) -> str:
    """Is a prediction inside the interval of its measurement, up to rounding?"""
    if found.value is None:
        return "no value"
    rounding = _ROUNDING * max(1.0, abs(prediction))
    if found.low is None or found.high is None:
        if found.n >= FEWEST_UNITS and abs(found.value - prediction) <= rounding:
            return "agrees"
        return "no interval" if found.n < FEWEST_UNITS else "differs"
    return "agrees" if found.low - rounding <= prediction <= found.high + rounding else "differs"


class Claims:
    """Collects pooled rows of one experiment.

    Args:
        experiment: its kind.
    """

    def __init__(self, experiment: str) -> None:
        self._rows = Rows(experiment=experiment, model="one-layer", split=POOLED)

    def compare(
        self, metric: str, claim: str, found: Interval, prediction: float | None, /, surrogate: str = "", **factors: Any
    ) -> None:
        """A measurement against a predicted number; with prediction None, a measurement alone."""
        said = None if prediction is None else verdict(found, prediction)
        self._add(metric, claim, found, prediction, said, surrogate, factors)

    def bound(
        self, metric: str, claim: str, largest: float, bound: float, n: int, /, surrogate: str = "", **factors: Any
    ) -> None:
        """The largest measurement against a bound that was fixed beforehand; what it bounds is predicted to be 0."""
        said = "holds" if largest <= bound else "does not hold"
        self._add(metric, claim, Interval(largest, None, None, n), 0.0, said, surrogate, {**factors, "bound": bound})

    def _add(
        self,
        metric: str,
        claim: str,
        found: Interval,
        prediction: float | None,
        said: str | None,
        surrogate: str,
        factors: dict[str, Any],
    ) -> None:
        missing = None if found.value is not None else found.missing or "no value"
        self._rows.add(
            metric,
            found.value,
            missing=missing,
            low=found.low,
            high=found.high,
            n=found.n,
            prediction=prediction,
            verdict=said,
            surrogate=surrogate or None,
            condition={"claim": claim, **factors},
        )

    def frame(self) -> pd.DataFrame:
        """The pooled rows."""
        return self._rows.frame()


def mean(found: FloatArray) -> Interval:
    """Mean over repetitions with its bootstrap interval."""
    return mean_interval(found, SEED)


def share(successes: int, n: int, level: float = 0.95) -> Interval:
    """A share with its exact interval.

    Args:
        successes: how many of n.
        n: independent trials.
        level: least coverage.

    Source: Clopper and Pearson 1934.
    """
    if n == 0:
        return Interval(None, None, None, 0, "no units")
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return Interval(successes / n, low, high, n)


def statistic_interval(
    table: FloatArray, statistic: Callable[[FloatArray], FloatArray], level: float = 0.95
) -> Interval:
    """Any statistic of repetitions, with a BCa bootstrap interval over them.

    Args:
        table: [R, ...] one entry per repetition; NaN where a repetition has none.
        statistic: of many such tables [tables, repetitions, ...] at once, with any number of repetitions; [tables].
        level: nominal coverage.
    """
    n = len(table)
    value = float(statistic(table[None])[0])
    if not np.isfinite(value):
        return Interval(None, None, None, n, "the statistic is undefined on these repetitions")
    if n < FEWEST_UNITS:
        return Interval(value, None, None, n, too_few(n))
    found = resampled(n, SEED, lambda draws: statistic(table[draws]), table[0].size)
    without = statistic(np.stack([np.delete(table, index, axis=0) for index in range(n)]))
    found, without = found[np.isfinite(found)], without[np.isfinite(without)]
    if np.ptp(found) == 0:
        return Interval(value, None, None, n, "all repetitions are equal: resampling has no spread")
    return bca(value, found, without, n, (1 - level) / 2)


def slope(x: FloatArray, y: FloatArray) -> FloatArray:
    """Least-squares slopes [...] of y [..., m] on x [m], over the pairs that are both finite; NaN below two of them."""
    kept = np.isfinite(x) & np.isfinite(y)
    mean = np.where(kept, x, 0.0).sum(axis=-1) / np.maximum(kept.sum(axis=-1), 1)
    centred = np.where(kept, x - mean[..., None], 0.0)
    squares = (centred**2).sum(axis=-1)
    products = (centred * np.where(kept, y, 0.0)).sum(axis=-1)
    found: FloatArray = np.divide(products, squares, out=np.full_like(squares, np.nan), where=squares > 0)
    return found


def ratio_of_sums(tables: FloatArray) -> FloatArray:
    """Sum of the first column over that of the second, of tables [..., R, 2]; NaN where the latter is not positive."""
    above, below = np.moveaxis(tables.sum(axis=-2), -1, 0)
    found: FloatArray = np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)
    return found
