"""What a run could have found, and the run that finds it: closed forms, unbiased components, found as often as said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.core.records import Interval
from harness.stats.grouped import group_mean
from harness.stats.intervals import mean_interval
from harness.stats.power import Components, components, findable, needed, smallest_difference


def test_it_is_2_8_standard_errors() -> None:
    assert smallest_difference(Interval(0.5, -1.96, 1.96, 30)) == pytest.approx(2.8)
    assert smallest_difference(Interval(0.5, None, None, 3, "too few")) is None


def test_such_a_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    found, runs = 0, 200
    for run in range(runs):
        interval = mean_interval(rng.normal(2.8 / np.sqrt(40), 1.0, 40), run)
        assert interval.low is not None
        found += interval.low > 0
    assert 0.7 <= found / runs <= 0.9  # a binomial of 200 at .8 leaves this range once in 1,000


def nested(
    rng: np.random.Generator, groups: int, spreads: tuple[float, float, float], seeds: int = 0, shift: float = 0.0
) -> pd.DataFrame:
    """Values of seeds in prompts in groups of 1 to 3; 1 to 4 seeds a prompt unless their number is given."""
    rows = []
    for group in range(groups):
        of_group = rng.normal(0.0, spreads[0])
        for prompt in range(1 + group % 3):
            of_prompt = of_group + rng.normal(0.0, spreads[1])
            for seed in range(seeds or 1 + (group + prompt) % 4):
                value = shift + of_prompt + rng.normal(0.0, spreads[2])
                rows.append({"prompt": f"{group}.{prompt}", "group": group, "seed": seed, "value": value})
    return pd.DataFrame(rows)


def test_components_are_unbiased_on_unbalanced_designs() -> None:
    rng = np.random.default_rng(0)
    found = [components(nested(rng, 60, (0.5, 0.3, 0.4))) for _ in range(200)]
    means = np.mean([(one.groups, one.prompts, one.seeds) for one in found], axis=0)
    assert means == pytest.approx([0.25, 0.09, 0.16], abs=0.012)
    assert (found[0].n_prompts, found[0].n_groups) == (120, 60)
    assert found[0].companions == pytest.approx((1 + 4 + 9) / 6)


def test_balanced_components_are_those_of_the_analysis_of_variance() -> None:
    x = np.random.default_rng(1).normal(size=(8, 3, 4))
    names = np.indices(x.shape).reshape(3, -1)
    frame = pd.DataFrame({"group": names[0], "prompt": names[0] * 10 + names[1], "seed": names[2], "value": x.ravel()})
    frame["value"] += names[0] + 0.5 * names[1]
    y = frame["value"].to_numpy().reshape(x.shape)
    seeds = y.var(axis=2, ddof=1).mean()
    prompts = y.mean(axis=2).var(axis=1, ddof=1).mean() - seeds / 4
    groups = y.mean(axis=(1, 2)).var(ddof=1) - prompts / 3 - seeds / 12
    found = components(frame)
    assert (found.groups, found.prompts, found.seeds) == pytest.approx((groups, prompts, seeds))


def test_a_difference_has_the_noise_of_both_sides() -> None:
    rng = np.random.default_rng(2)
    one, two = nested(rng, 90, (0.0, 0.2, 0.4), seeds=4), nested(rng, 90, (0.0, 0.1, 0.3), seeds=2)
    found = components(one, two)
    assert found.seeds == pytest.approx(0.16, abs=0.02)
    assert found.reference == pytest.approx(0.09, abs=0.02)
    assert found.groups + found.prompts == pytest.approx(0.05, abs=0.03)
    assert found.spread(4) == pytest.approx(
        np.sqrt(found.groups * found.companions + found.prompts + 0.25 / 4), abs=0.01
    )


def test_one_seed_says_nothing_about_more_seeds() -> None:
    found = components(nested(np.random.default_rng(3), 40, (0.0, 0.3, 0.2), seeds=1))
    assert found.seeds is None
    assert found.spread(2) is None
    assert [design.seeds for design in needed(found, 0.1)] == [1]
    certain = components(nested(np.random.default_rng(3), 40, (0.0, 0.3, 0.2), seeds=1), deterministic=True)
    assert [design.seeds for design in needed(certain, 0.1)] == [1, 2, 4, 8]
    assert certain.spread(8) == pytest.approx(found.spread(1))


@pytest.mark.parametrize(("spread", "prompts"), [(0.35, 420), (0.375, 485), (0.4, 550)])
def test_agreement_within_a_twentieth_takes_about_500_prompts(spread: float, prompts: int) -> None:
    """At greedy the difference of surrogate and model has a standard deviation of .35 to .40 a prompt."""
    greedy = Components(0.0, spread**2, 0.0, 0.0, 1.0, 240, 240)
    (design,) = needed(greedy, 0.05, equivalence=True, seeds=(1,))
    assert design.prompts == pytest.approx(prompts, abs=10)
    assert spread / np.sqrt(240) == pytest.approx(0.025, abs=0.0025)
    today = findable(greedy, 240)
    assert today is not None
    assert today.margin > 0.06
    assert today.effect == pytest.approx(2.8 * spread / np.sqrt(240), rel=0.02)


def test_the_needed_run_finds_the_effect_four_times_in_five() -> None:
    rng, spreads = np.random.default_rng(4), (0.1, 0.2, 0.3)
    known = Components(0.01, 0.04, 0.09, 0.0, 14 / 6, 100, 50)
    designs = needed(known, 0.1, seeds=(1, 4))
    assert designs[0].prompts > designs[1].prompts
    found, runs = 0, 200
    for _ in range(runs):
        frame = nested(rng, round(designs[1].prompts / 2), spreads, seeds=4, shift=0.1)
        means = frame.groupby("prompt", sort=False).agg(value=("value", "mean"), group=("group", "first"))
        p = group_mean(means["value"], means["group"]).p()
        assert p is not None
        found += p <= 0.05
    assert 0.7 <= found / runs <= 0.9


def test_wrong_frames_are_refused() -> None:
    frame = pd.DataFrame({"prompt": ["a", "a", "b", "c"], "group": [0, 1, 1, 2], "value": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(ValueError, match="'a' is in two groups"):
        components(frame)
    with pytest.raises(ValueError, match="no column value"):
        components(frame.drop(columns="value"))
    with pytest.raises(ValueError, match="missing or infinite"):
        components(frame.assign(value=np.nan, group=0))
    with pytest.raises(ValueError, match="at least 3"):
        components(frame.assign(group=0))
    with pytest.raises(ValueError, match="above 0"):
        needed(Components(0.0, 1.0, 0.0, 0.0, 1.0, 9, 9), 0.0)
    with pytest.raises(ValueError, match="at least one seed"):
        Components(0.0, 1.0, 0.0, 0.0, 1.0, 9, 9).spread(0)
    with pytest.raises(ValueError, match="fewer than 3 groups"):
        findable(Components(0.0, 1.0, 0.0, 0.0, 3.0, 9, 3), 6)
