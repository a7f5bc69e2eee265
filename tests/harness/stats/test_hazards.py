"""Forecasts of events: Murphy's identity, propriety, honest infinities, and intervals that know about clusters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from harness.stats.hazards import (
    bin_edges,
    brier,
    brier_scores,
    calibration,
    choice_scores,
    fair_brier_scores,
    from_rollouts,
    judge_hazard,
    log_score,
    log_scores,
    wilson,
)
from harness.stats.proper import skill

RNG = np.random.default_rng(0)
CLUSTERS = np.repeat(np.arange(30), 20)
CHANCE = np.clip(np.repeat(RNG.uniform(0.0, 0.6, 30), 20) + RNG.uniform(0.0, 0.4, 600), 0, 1)
EVENTS = (RNG.random(600) < CHANCE).astype(float)


def test_rollouts_never_give_certainty() -> None:
    assert from_rollouts([0, 32, 64], 64) == pytest.approx([0.5 / 65, 0.5, 64.5 / 65])
    with pytest.raises(ValueError, match=r"hits\[1\] is 65"):
        from_rollouts([0, 65], 64)
    with pytest.raises(ValueError, match="at least one"):
        from_rollouts([0], 0)


def test_the_parts_add_up_to_the_score() -> None:
    found = brier(CHANCE, EVENTS, CLUSTERS)
    parts = [one.value or 0.0 for one in (found.reliability, found.resolution, found.uncertainty)]
    assert found.value.value == pytest.approx(parts[0] - parts[1] + parts[2] + found.within)
    assert found.value.value == pytest.approx(np.mean((CHANCE - EVENTS) ** 2))
    assert (found.n, found.clusters) == (600, 30)
    for one in (found.value, found.reliability, found.resolution, found.uncertainty):
        assert one.low is not None
        assert one.high is not None
        assert one.low < (one.value or 0.0) < one.high


def test_forecasts_of_few_values_have_nothing_within_bins() -> None:
    forecasts = np.tile([0.1, 0.4, 0.8], 40)
    events = np.tile([0.0, 1.0, 1.0, 0.0, 0.0, 1.0], 20)
    found = brier(forecasts, events, np.arange(120) // 6)
    assert found.within == pytest.approx(0.0, abs=1e-12)
    # rates 0, .5 and 1 of three bins of one size
    assert found.reliability.value == pytest.approx((0.1**2 + 0.1**2 + 0.2**2) / 3)
    assert found.resolution.value == pytest.approx(0.5 / 3)
    assert found.uncertainty.value == pytest.approx(0.25)


def test_no_forecast_beats_the_chance_itself() -> None:
    """Exact expectations of both scores at every forecast of a grid."""
    grid = np.linspace(0.01, 0.99, 99)
    for chance in (0.05, 0.3, 0.5):
        for score in (brier_scores, log_scores):
            mean = chance * score(grid, np.ones(99)) + (1 - chance) * score(grid, np.zeros(99))
            assert grid[mean.argmin()] == pytest.approx(chance)


@pytest.mark.parametrize("rollouts", [2, 8, 64])
def test_a_fair_score_is_that_of_the_law_behind_the_rollouts(rollouts: int) -> None:
    """Exact over all numbers of hits: finite rollouts cost the plain score q (1 - q) / R, and the fair one nothing."""
    hits, law = np.arange(rollouts + 1), 0.3
    weight = binom.pmf(hits, rollouts, law)
    for event in (0.0, 1.0):
        events = np.full(rollouts + 1, event)
        fair = float(weight @ fair_brier_scores(hits, rollouts, events))
        plain = float(weight @ brier_scores(hits / rollouts, events))
        assert fair == pytest.approx((law - event) ** 2)
        assert plain == pytest.approx((law - event) ** 2 + law * (1 - law) / rollouts)


def test_a_calibrated_forecast_has_skill_and_a_shuffled_one_has_none() -> None:
    rate = np.full(600, EVENTS.mean())
    good = skill(brier_scores(CHANCE, EVENTS), brier_scores(rate, EVENTS), CLUSTERS)
    assert good.low is not None
    assert good.low > 0
    shuffled = np.random.default_rng(1).permutation(CHANCE)
    bad = skill(brier_scores(shuffled, EVENTS), brier_scores(rate, EVENTS), CLUSTERS)
    assert bad.high is not None
    assert bad.high < 0


def test_an_infinite_log_score_is_shown_and_counted() -> None:
    scores = log_scores([0.0, 0.5, 1.0, 0.0], [1, 1, 1, 0])
    assert scores.tolist() == [np.inf, pytest.approx(np.log(2)), 0.0, 0.0]
    found = log_score(np.tile(scores, 10), np.arange(40) // 2)
    assert found.value.value == np.inf
    assert (found.value.low, found.infinite, found.n, found.clusters) == (None, 10, 40, 20)
    assert "10 of 40 steps had probability 0" in str(found.value.missing)
    finite = log_score(log_scores(CHANCE.clip(0.01, 0.99), EVENTS), CLUSTERS)
    assert finite.infinite == 0
    assert finite.value.low is not None
    with pytest.raises(ValueError, match="NaN"):
        log_score([np.nan], [0])


def test_wilson_is_the_score_test_turned_round() -> None:
    low, high = wilson(0.2, 50)
    for end in (low, high):
        assert abs(0.2 - end) / np.sqrt(end * (1 - end) / 50) == pytest.approx(1.959964, rel=1e-5)
    assert wilson(0.0, 30)[0] == 0.0
    assert wilson(0.0, 30)[1] == pytest.approx(1.959964**2 / (30 + 1.959964**2), rel=1e-5)


def test_the_calibration_table_counts_every_step_once() -> None:
    table = calibration(CHANCE, EVENTS, CLUSTERS, bins=8)
    assert sum(one.n for one in table) == 600
    assert all(one.low <= one.forecast <= one.high for one in table)
    covered = sum((one.observed.low or 0) <= one.forecast <= (one.observed.high or 1) for one in table)
    assert covered >= 7  # these forecasts are the chances themselves


def test_clusters_of_equal_steps_make_intervals_wider() -> None:
    events = np.repeat(np.random.default_rng(2).random(30) < 0.5, 20)
    forecasts = np.full(600, 0.5)
    (whole,) = calibration(forecasts, events, CLUSTERS)
    (alone,) = calibration(forecasts, events, np.arange(600))
    widths = [(one.observed.high or 0) - (one.observed.low or 0) for one in (whole, alone)]
    assert widths[0] > 3.5 * widths[1]  # 20 equal steps count as one: the root of 20


def test_bins_with_one_kind_of_outcome_still_have_an_interval() -> None:
    forecasts = np.where(np.arange(600) % 2 == 0, 0.01, 0.9)
    events = np.where(np.arange(600) % 2 == 0, 0.0, (np.arange(600) // 20 % 3 > 0).astype(float))
    rare, often = calibration(forecasts, events, CLUSTERS)
    assert (rare.observed.value, rare.observed.low) == (0.0, 0.0)
    assert 0.0 < (rare.observed.high or 0.0) < 0.5
    assert often.n == 300


def test_equal_forecasts_share_a_bin() -> None:
    assert bin_edges(np.full(10, 0.3)).tolist() == [0.0, 1.0]
    assert bin_edges(np.array([0.1] * 9 + [0.9]), 4).tolist() == [0.0, 1.0]
    assert len(bin_edges(np.linspace(0, 1, 101), 10)) == 11


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: brier([0.5], [2], [0]), r"events\[0\] is 2"),
        (lambda: brier([1.5], [1], [0]), r"forecasts\[0\] is 1.5"),
        (lambda: brier([float("nan")], [1], [0]), r"forecasts\[0\] is nan"),
        (lambda: brier([0.5, 0.5], [1], [0]), "equally long"),
        (lambda: brier([0.5, 0.5], [1, 0], [0]), "clusters of shape"),
        (lambda: brier([], [], []), "equally long"),
        (lambda: fair_brier_scores([1], 1, [1]), "at least 2"),
        (lambda: bin_edges(np.array([0.1]), 0), "at least one bin"),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_few_clusters_have_parts_without_intervals() -> None:
    found = brier(CHANCE[:60], EVENTS[:60], CLUSTERS[:60])
    assert found.reliability.value is not None
    assert found.reliability.low is None
    assert "fewer than 5" in str(found.reliability.missing)


def test_choices_are_scored_over_all_tokens() -> None:
    p = np.random.default_rng(3).dirichlet(np.ones(5), 7)
    came = np.random.default_rng(4).integers(0, 5, 7)
    by_hand = ((p - np.eye(5)[came]) ** 2).sum(axis=1)
    assert choice_scores(p[np.arange(7), came], (p**2).sum(axis=1)) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="sum of squares"):
        choice_scores([0.9], [0.5])


def test_a_forecast_that_knows_the_position_alone_has_no_skill_over_it() -> None:
    """The event depends on position and, half of it, on the text; one forecast knows both, one the position alone."""
    rng = np.random.default_rng(5)

    def texts(count: int) -> tuple[np.ndarray, ...]:
        positions = np.tile(np.arange(0.0, 256.0, 8.0), count)
        text = np.repeat(rng.choice([0.2, 0.9], count), 32)
        chance = text * positions / 256
        return positions, chance, (rng.random(chance.size) < chance).astype(float), np.repeat(np.arange(count), 32)

    before, _, happened, _ = texts(100)
    positions, chance, events, clusters = texts(80)
    knows = judge_hazard(chance, events, positions, clusters, before, happened)
    blind = judge_hazard(0.55 * positions / 256, events, positions, clusters, before, happened)
    assert knows.over_position.low is not None
    assert knows.over_position.low > 0.05
    assert (knows.over_base.value or 0) > (knows.over_position.value or 0)
    assert blind.over_base.low is not None
    assert blind.over_base.low > 0
    assert blind.over_position.value == pytest.approx(0.0, abs=0.02)
    assert (knows.nats.infinite, knows.brier.clusters, sum(one.n for one in knows.table)) == (0, 80, 80 * 32)


def test_calibration_covers_where_steps_taken_for_independent_do_not() -> None:
    """Texts differ in how easily they loop, and no forecast knows it: over texts it is calibrated all the same."""
    rng, runs = np.random.default_rng(6), 100
    covered = {"texts": 0, "steps": 0}
    for _ in range(runs):
        chance = np.repeat(rng.beta(1.0, 3.0, 60), 32)  # mean 1/4
        events = (rng.random(chance.size) < chance).astype(float)
        for name, clusters in (("texts", np.repeat(np.arange(60), 32)), ("steps", np.arange(chance.size))):
            (one,) = calibration(np.full(chance.size, 0.25), events, clusters)
            covered[name] += (one.observed.low or 0) <= 0.25 <= (one.observed.high or 1)
    assert covered["texts"] / runs >= 0.88  # three standard errors below 95 %
    assert covered["steps"] / runs <= 0.7
