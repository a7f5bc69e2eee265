"""Proper scores: the true sampler cannot be beaten in expectation, which is enumerated exactly over small laws."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from harness.stats.grouped import group_mean
from harness.stats.proper import crps, energy, energy_score, recovered, self_energy, skill

FIGURES = np.array([[0.0, 0.2], [0.1, 0.9], [0.5, 0.5], [0.9, 0.1], [1.0, 1.0]])
SCALE = np.array([0.4, 0.3])
TRUTH = np.array([0.35, 0.05, 0.1, 0.2, 0.3])
Law = np.ndarray
Value = Callable[[np.ndarray, np.ndarray], float | None]


def vector_value(draws: np.ndarray, seen: np.ndarray) -> float | None:
    return energy_score(FIGURES[draws], FIGURES[seen], SCALE).value


def figure_value(draws: np.ndarray, seen: np.ndarray) -> float | None:
    return crps(FIGURES[draws, 0], FIGURES[seen, 0]).value


def expected(law: Law, truth: Law, value: Value, draws: int = 2) -> float:
    """The mean score over every outcome of a few draws of the law and one observation."""
    total = 0.0
    for outcome in itertools.product(range(law.size), repeat=draws + 1):
        chance = float(np.prod(law[list(outcome[:-1])]) * truth[outcome[-1]])
        if chance > 0:
            found = value(np.array(outcome[:-1]), np.array(outcome[-1:]))
            assert found is not None
            total += chance * found
    return total


def powered(law: Law, k: float) -> Law:
    return law**k / (law**k).sum()


OTHERS = {
    "narrower": powered(TRUTH, 2.0),
    "slightly narrower": powered(TRUTH, 1.2),
    "wider": powered(TRUTH, 0.5),
    "uniform": np.full(5, 0.2),
    "mode": np.eye(5)[0],
    "middle": np.eye(5)[2],
    "other prompt": TRUTH[[1, 2, 3, 4, 0]],
}


@pytest.mark.parametrize("value", [vector_value, figure_value], ids=["energy", "crps"])
@pytest.mark.parametrize("other", OTHERS)
def test_no_law_beats_the_true_one(value: Value, other: str) -> None:
    assert expected(OTHERS[other], TRUTH, value) > expected(TRUTH, TRUTH, value) + 1e-4


def test_the_mean_distance_alone_is_won_by_a_constant() -> None:
    """What the second term is for."""

    def plain(draws: np.ndarray, seen: np.ndarray) -> float:
        return energy_score(FIGURES[draws], FIGURES[seen], SCALE).cross

    assert expected(OTHERS["middle"], TRUTH, plain) < expected(TRUTH, TRUTH, plain) - 0.1


@pytest.mark.parametrize("draws", [2, 3])
def test_the_number_of_draws_changes_no_expectation(draws: int) -> None:
    exact = sum(
        a * b * np.linalg.norm((FIGURES[i] - FIGURES[j]) / SCALE)
        for (i, a), (j, b) in itertools.product(enumerate(TRUTH), repeat=2)
    )
    assert expected(TRUTH, TRUTH, vector_value, draws) == pytest.approx(exact / 2)


def test_a_shuffled_surrogate_loses() -> None:
    """Each prompt has its own law; the true draws of other prompts are judged as this prompt's."""
    rng = np.random.default_rng(0)
    prompts, seeds = 60, 4
    middle = rng.normal(0.0, 1.0, prompts)
    draws, seen = (middle[:, None] + rng.normal(0.0, 1.0, (prompts, seeds)) for _ in range(2))
    own = np.array([crps(draws[k], seen[k]).value for k in range(prompts)], dtype=float)
    shuffled = np.array([crps(draws[k - 1], seen[k]).value for k in range(prompts)], dtype=float)
    ceiling = np.array([self_energy(np.abs(s[:, None] - s[None])).value for s in seen], dtype=float)
    gain = skill(own, shuffled)
    assert gain.low is not None
    assert gain.low > 0.1
    found = recovered(own, shuffled, ceiling)
    assert found.share.low is not None
    assert found.share.high is not None
    assert found.room.low is not None
    assert found.room.low > 0
    assert found.share.low < 1 < found.share.high


def test_one_draw_has_no_spread_unless_the_law_is_a_point() -> None:
    found = crps([0.5], [0.2, 0.4])
    assert (found.value, found.spread) == (None, None)
    assert "one draw" in str(found.missing)
    assert found.cross == pytest.approx(0.2)
    point = crps([0.5], [0.2, 0.4], deterministic=True)
    assert (point.value, point.spread) == (pytest.approx(0.2), 0.0)
    with pytest.raises(ValueError, match="its draws differ"):
        crps([0.5, 0.6], [0.2], deterministic=True)


def test_a_law_against_itself_is_judged_by_its_other_seeds() -> None:
    rng = np.random.default_rng(1)
    seen = rng.normal(size=5)
    distance = np.abs(seen[:, None] - seen[None])
    by_hand = []
    for k in range(5):
        rest = np.delete(np.arange(5), k)
        by_hand.append(energy(distance[np.ix_(rest, [k])], distance[np.ix_(rest, rest)]).value)
    assert self_energy(distance).value == pytest.approx(np.mean(np.array(by_hand, dtype=float)))
    assert self_energy(np.zeros((1, 1))).value is None
    assert self_energy(np.zeros((1, 1)), deterministic=True).value == 0.0


def test_nothing_is_recovered_where_there_is_no_room() -> None:
    rng = np.random.default_rng(2)
    ceiling = rng.normal(1.0, 0.1, 40)
    null = ceiling + rng.normal(0.0, 0.5, 40)
    found = recovered(ceiling, null, ceiling)
    assert found.share.value is None
    assert "no room" in str(found.share.missing)
    assert found.room.low is not None
    assert found.room.low < 0
    few = recovered(ceiling[:4], null[:4] + 9, ceiling[:4])
    assert few.share.value is None


def test_halfway_is_half_and_groups_are_resampled_whole() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 3)
    ceiling = rng.uniform(0.5, 1.0, 60)
    room = np.repeat(rng.uniform(0.5, 3.0, 20), 3)
    gained = np.repeat(rng.uniform(0.0, 1.0, 20), 3)
    found = recovered(ceiling + room * (1 - gained), ceiling + room, ceiling, groups).share
    alone = recovered(ceiling + room * (1 - gained), ceiling + room, ceiling).share
    assert found.value == pytest.approx((room * gained).sum() / room.sum())
    assert None not in (found.low, found.high, alone.low, alone.high)
    assert (found.high or 0) - (found.low or 0) > 1.4 * ((alone.high or 0) - (alone.low or 0))


def test_the_interval_of_a_share_covers_it_and_ends_where_a_test_does() -> None:
    rng, groups, runs = np.random.default_rng(4), np.repeat(np.arange(20), 2), 200
    covered = 0
    for _ in range(runs):
        base = np.repeat(rng.gamma(2.0, 1.0, 20), 2)
        null, ceiling = base + rng.normal(0.0, 0.3, 40), rng.normal(0.0, 0.3, 40)
        scores = 0.6 * base + rng.normal(0.0, 0.3, 40)
        found = recovered(scores, null, ceiling, groups).share
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.4 <= found.high
        for end in (found.low, found.high):
            gain = null - scores - end * (null - ceiling)
            assert group_mean(gain, groups).p() == pytest.approx(0.05, abs=1e-4)
    assert covered / runs >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / runs)


def test_a_share_that_every_prompt_has_carries_no_interval() -> None:
    ceiling = np.random.default_rng(5).uniform(0.5, 1.0, 20)
    found = recovered(ceiling, ceiling + 1 + ceiling, ceiling).share
    assert (found.value, found.low) == (pytest.approx(1.0), None)
    assert "groups differ" in str(found.missing)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: energy([[1.0, -1.0]]), "finite, not negative"),
        (lambda: energy([[1.0], [2.0]]), "no distances among"),
        (lambda: energy([[1.0], [2.0]], [[0.0, 1.0], [2.0, 0.0]]), "symmetric"),
        (lambda: energy([[1.0], [2.0]], [[0.0]]), r"must be \[2, 2\]"),
        (lambda: energy(np.zeros((0, 2))), "at least one row"),
        (lambda: energy_score([[1.0, np.nan]], [[1.0, 2.0]], 1.0), r"a\[0, 1\] is nan"),
        (lambda: energy_score([[1.0, 2.0]], [[1.0, 2.0]], [1.0, 0.0]), "without spread"),
        (lambda: energy_score([[1.0, 2.0]], [[1.0]], 1.0), "components"),
        (lambda: crps([], [1.0]), "at least one"),
    ],
)
def test_wrong_arguments_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
