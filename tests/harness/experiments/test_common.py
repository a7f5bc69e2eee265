"""Pooling and verdicts of the paper's experiments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.config.load import load_config
from harness.core.errors import UsageError
from harness.core.records import Interval
from harness.experiments._shared import paper
from harness.experiments._shared.claims import Claims, ratio_of_sums, share, slope, statistic_interval, verdict
from harness.experiments._shared.paper_tables import paper_tables, verdict_table
from harness.experiments.trajectory.units import growth


def test_a_verdict_compares_prediction_and_interval() -> None:
    found = Interval(1.0, 0.9, 1.2, 10)
    assert verdict(found, 0.95) == "agrees"
    assert verdict(found, 1.21) == "differs"
    assert verdict(Interval(1.0, None, None, 3), 1.0) == "no interval"
    assert verdict(Interval(0.0, None, None, 9), 0.0) == "agrees"  # no spread, and right
    assert verdict(Interval(0.1, None, None, 9), 0.0) == "differs"
    assert verdict(Interval(None, None, None, 0, "none"), 1.0) == "no value"
    beside = 1.0 + 2e-16 * 4  # all repetitions gave 1, added up in two orders
    assert verdict(Interval(beside, beside, beside, 9), 1.0) == "agrees"
    assert verdict(Interval(1.001, 1.001, 1.001, 9), 1.0) == "differs"


def test_shares_have_exact_intervals() -> None:
    none = share(0, 20)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert share(20, 20).low == pytest.approx(0.025 ** (1 / 20))
    assert share(3, 0).value is None


def test_intervals_of_a_statistic_cover_it() -> None:
    rng = np.random.default_rng(0)
    x = np.arange(4.0)
    covered = 0
    for _ in range(60):
        table = 2 * x + rng.normal(size=(20, 4))
        found = statistic_interval(table[:, :], lambda t: slope(x, t.mean(axis=-2)))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 2 <= found.high
    assert 50 <= covered <= 60  # .93 expected of 60: below 50 has probability 1e-3
    few = statistic_interval(np.ones((3, 2)), lambda t: t.mean(axis=(-2, -1)))
    assert (few.value, few.low) == (1.0, None)


def test_a_slope_leaves_missing_points_out() -> None:
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, np.nan, 5.0, 7.0])
    assert slope(x, y) == pytest.approx(2.0)
    assert np.isnan(slope(x[:2], y[:2]))
    np.testing.assert_allclose(slope(x, np.stack([y, 3 * y, 0 * x])), [2.0, 6.0, 0.0])


def test_a_statistic_of_many_tables_is_that_of_each() -> None:
    rng = np.random.default_rng(1)
    tables = rng.random((5, 7, 2))
    np.testing.assert_allclose(ratio_of_sums(tables), [t[:, 0].sum() / t[:, 1].sum() for t in tables])
    assert np.isnan(ratio_of_sums(np.zeros((1, 3, 2)))).all()
    by_hand = [np.log10(t[:, 1].mean() / t[:, 0].mean()) for t in tables]
    np.testing.assert_allclose(growth(tables), by_hand)


def claims() -> Any:
    made = Claims("coverage")
    made.compare("a", "one thing", Interval(1.0, 0.9, 1.1, 8), 1.0, "ccmc-fit", K=4)
    made.compare("a", "one thing", Interval(1.3, 1.2, 1.4, 8), 1.0, "ccmc-fit", K=8)
    made.compare("b", "a measurement", Interval(0.5, None, None, 2), None)
    made.bound("c", "a bound", 0.2, 0.1, 5)
    return made.frame()


def test_pooled_rows_hold_the_comparison() -> None:
    rows = claims()
    assert rows["verdict"].tolist()[:2] == ["agrees", "differs"]
    assert rows["verdict"].isna().tolist() == [False, False, True, False]
    assert rows["verdict"].iloc[3] == "does not hold"
    assert set(rows["split"]) == {"pooled"}


def test_tables_show_every_pooled_row_and_count_verdicts() -> None:
    rows = claims()
    (table,) = paper_tables(rows)
    assert len(table.rows) == 4
    assert table.rows[0][1:] == ["ccmc-fit, K = 4", "1.00 [0.90, 1.10]", "1.00", "8", "agrees"]
    body = verdict_table(rows).rows
    assert [row[1] for row in body] == ["one thing", "a bound"]
    assert body[0][-1] == "1 of 2 agree"
    assert body[1][-1] == "0 of 1 holds"


def test_a_smoke_run_plans_fewer_units() -> None:
    for kind, more_of in (("equivalence", {}), ("coverage", {}), ("sample-complexity", {"vocab_sizes": [4, 8]})):
        experiment = {"kind": kind, "repetitions": 3, **more_of}
        config = load_config({"name": "x", "experiments": [experiment]}, limit=1).config
        whole = load_config({"name": "x", "experiments": [experiment]}).config
        units = paper.plan(config, config.experiments[0], [], [], "cpu")
        more = paper.plan(whole, whole.experiments[0], [], [], "cpu")
        assert len(more) - 1 == 3 * (len(units) - 1)
        assert units[-1].needs == tuple(units[:-1])


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ({"kind": "equivalnce"}, "did you mean 'equivalence'"),
        ({"kind": "coverage", "rar": 0.1}, "did you mean 'rare'"),
        ({"kind": "equivalence", "dimensions": [0]}, "dimension 0 is not in"),
        ({"kind": "trajectory", "loser_weights": [0.5]}, "loser weight 0.5 is not between"),
        ({"kind": "winners"}, "needs `models`"),
    ],
)
def test_wrong_settings_are_named(experiment: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config({"name": "x", "experiments": [experiment]})
