"""Pooling and verdicts of the paper's experiments."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from harness.config.load import load_config
from harness.core.errors import UsageError
from harness.core.records import Interval
from harness.experiments._shared.claims import Claims, ratio_of_sums, share, slope, statistic_interval, verdict
from harness.experiments._shared.claims_words import claims_tables, verdict_table
from harness.experiments.experiment import Request
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
    headline, every = claims_tables(rows, {"a": "short"})
    assert (headline.headline, every.headline) == (True, False)
    assert (headline.name, every.name) == ("coverage.verdicts", "coverage.claims")
    assert len(every.rows) == 4
    assert every.column("claim") == ["one thing", "one thing", "a measurement", "a bound"]
    assert every.column("surrogate") == ["ccmc-fit", "ccmc-fit", None, None]
    assert every.column("K") == [4, 8, None, None]
    assert every.column("measured")[0] == Interval(1.0, 0.9, 1.1, 8)
    assert every.column("predicted") == [1.0, 1.0, None, 0.1]
    assert every.column("is") == ["=", "=", None, "≤"]
    assert every.column("verdict") == ["agrees", "differs", None, "does not hold"]
    assert headline.column("claim") == ["short", "a bound"]
    assert headline.column("measured")[0] == Interval(1.3, 1.2, 1.4, 8)  # the one that is furthest
    assert (headline.column("agree"), headline.column("differ")) == ([1, 0], [1, 1])
    table = verdict_table(rows)
    assert table.column("experiment") == ["coverage", "coverage"]
    assert table.column("claim") == ["one thing", "a bound"]


def test_a_headline_of_many_claims_shows_those_that_differ_first() -> None:
    made = Claims("coverage")
    for number in range(20):
        for K in range(1 + number % 3):
            made.compare("m", f"claim {number}", Interval(1.0, 0.9, 1.1, 8), 2.0 if number == 17 else 1.0, K=K)
    headline, every = claims_tables(made.frame(), {})
    assert len(headline.rows) == 12
    assert headline.column("claim")[0] == "claim 17"
    assert set(headline.column("agree")[1:6]) == {3}  # then the largest
    assert "12 of 20 claims" in headline.caption
    assert len(every.rows) == sum(1 + number % 3 for number in range(20))


def test_a_smoke_run_plans_fewer_units() -> None:
    for kind, more_of in (("equivalence", {}), ("coverage", {}), ("sample-complexity", {"vocab_sizes": [4, 8]})):
        experiment = {"kind": kind, "repetitions": 3, **more_of}
        config = load_config({"name": "x", "experiments": [experiment]}, limit=1).config
        whole = load_config({"name": "x", "experiments": [experiment]}).config
        plan = importlib.import_module(f"harness.experiments.{kind.replace('-', '_')}.plan").plan
        units = plan(Request(config, config.experiments[0]))
        more = plan(Request(whole, whole.experiments[0]))
        assert len(more) - 1 == 3 * (len(units) - 1)
        assert units[-1].needs == tuple(units[:-1])
        assert {unit.threads for unit in units} == {1}


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
