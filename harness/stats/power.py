"""Power of a run: the smallest difference that it could have found, and the size of a run that finds a given one.

Seeds are nested in prompts, prompts in groups. More seeds make each prompt's mean more exact; what varies between
prompts only more prompts average out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.core.records import Interval
from harness.stats.equivalence import ALPHA, provable_margin
from harness.stats.intervals import Floats
from harness.stats.joint import Spread

FINDABLE = "findable: the smallest true difference that would have been found with 80 % power, at the 5 % level"
"""What a column of `smallest_difference` holds, for a caption."""
_NORMAL = 1.96  # half a 95 % interval, in standard errors
_FOUND = 2.8  # 1.96 + 0.84: a difference that many standard errors from zero is found with 80 % power


def smallest_difference(interval: Interval) -> float | None:
    """The smallest true difference that a run of this size finds with 80 % power at the 5 % level.

    Args:
        interval: a difference with its 95 % interval.

    Returns:
        2.8 standard errors, the standard error being half the interval over 1.96; None where there is no interval.

    Source:
        Gelman and Hill, "Data Analysis Using Regression and Multilevel/Hierarchical Models", 2007, section 20.2.
    """
    if interval.low is None or interval.high is None:
        return None
    return (interval.high - interval.low) / 2 / _NORMAL * _FOUND


@dataclass(frozen=True)
class Components:
    """Where the values of one figure vary, as variances; of a difference where `components` was given a reference.

    Attributes:
        groups: between groups of prompts; 0 where no group has two prompts.
        prompts: between prompts of a group.
        seeds: between seeds of a prompt; None where no prompt has two, and it is a part of `prompts`.
        reference: between the reference's seeds of a prompt; 0 without one, None as `seeds`.
        companions: mean number of prompts in a prompt's group, itself included.
        n_prompts, n_groups: how many were seen.
    """

    groups: float
    prompts: float
    seeds: float | None
    reference: float | None
    companions: float
    n_prompts: int
    n_groups: int

    def spread(self, seeds: int = 1) -> float | None:
        """Standard deviation of one prompt's mean that counts for n prompts: the standard error is this / sqrt(n).

        Args:
            seeds: of each side; None is returned where more seeds than one cannot be predicted.
        """
        if seeds < 1:
            raise ValueError(f"at least one seed, got {seeds}")
        if self.seeds is None or self.reference is None:
            return float(np.sqrt(self.groups * self.companions + self.prompts)) if seeds == 1 else None
        noise = (self.seeds + self.reference) / seeds
        return float(np.sqrt(self.groups * self.companions + self.prompts + noise))


def components(values: pd.DataFrame, reference: pd.DataFrame | None = None, deterministic: bool = False) -> Components:
    """Variance components of nested seeds, prompts and groups, by the method of moments; unbalanced is fine.

    Args:
        values: columns prompt, group, seed, value; one row for each seed of each prompt. Without a column `group` each
            prompt is its own.
        reference: the same of the other side, whose mean over seeds is taken off, prompt by prompt; prompts that only
            one side has are left out.
        deterministic: both sides have one possible value per prompt (greedy): seeds add no variance.

    Returns:
        The components; an estimate below 0 is 0.

    Raises:
        ValueError: fewer than 3 groups, a missing value, a column that is not there, or a prompt in two groups.

    Source:
        Searle, Casella and McCulloch, "Variance Components", 1992, sections 3.6 and 5.2 (unweighted means).
    """
    own = _of_prompts(values, "values")
    other = None if reference is None else _of_prompts(reference, "reference")
    if other is not None:
        common = own.index.intersection(other.index)
        own, other = own.loc[common], other.loc[common]
    group, prompt_means = own["group"].to_numpy(), own["mean"].to_numpy(dtype=np.float64)
    noise = np.zeros(len(own))
    within: list[float | None] = []
    for side in (own, other):
        found: float | None = 0.0
        if side is not None:
            free = float((side["seeds"] - 1).sum())
            found = 0.0 if deterministic else (float(side["squares"].sum()) / free if free > 0 else None)
            noise += (found or 0.0) / side["seeds"].to_numpy(dtype=np.float64)
        within.append(found)
    if other is not None:
        prompt_means = prompt_means - other["mean"].to_numpy(dtype=np.float64)
    between, among, companions, count = _two_levels(prompt_means, group, noise)
    return Components(between, among, within[0], within[1], companions, len(own), count)


def _of_prompts(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Per prompt the group, number of seeds, mean, and sum of squares around it."""
    missing = {"prompt", "value"} - set(frame.columns)
    if missing:
        raise ValueError(f"{name} has no column {', '.join(sorted(missing))}")
    rows = frame.assign(value=frame["value"].astype(float))
    rows = rows.assign(group=rows["group"].fillna(rows["prompt"]) if "group" in rows else rows["prompt"])
    if not np.isfinite(rows["value"]).all():
        raise ValueError(f"{name} has values that are missing or infinite; leave such prompts out and count them")
    by = rows.groupby("prompt", observed=True)
    if (by["group"].nunique() > 1).any():
        raise ValueError(f"{name}: prompt {by['group'].nunique().idxmax()!r} is in two groups")
    size = by["value"].size()
    squares = by["value"].var(ddof=0) * size
    return pd.DataFrame({"group": by["group"].first(), "seeds": size, "mean": by["value"].mean(), "squares": squares})


def _two_levels(values: Floats, groups: np.ndarray, noise: Floats) -> tuple[float, float, float, int]:
    """Variance between groups, between prompts of a group, prompts per prompt's group, and number of groups."""
    _, place = np.unique(groups, return_inverse=True)
    size = np.bincount(place).astype(np.float64)
    if size.size < 3:
        raise ValueError(f"{size.size} groups of prompts: variance between them needs at least 3")
    mean = np.bincount(place, weights=values) / size
    companions = float((size**2).sum() / size.sum())
    free = float((size - 1).sum())
    all_groups = float(mean.var(ddof=1))
    if free == 0:  # every prompt is its own group: what varies between groups varies between prompts
        return 0.0, max(0.0, all_groups - float(noise.mean())), companions, size.size
    inner = float(((values - mean[place]) ** 2).sum())
    among = (inner - float((noise * (1 - 1 / size[place])).sum())) / free
    among = max(0.0, among)
    of_means = float(np.mean(among / size + np.bincount(place, weights=noise) / size**2))
    return max(0.0, all_groups - of_means), among, companions, size.size


@dataclass(frozen=True)
class Design:
    """A size of run, and what it finds with 80 % power at the 5 % level.

    Attributes:
        seeds: of each side and prompt.
        spread: standard deviation that counts for one prompt.
        prompts: how many.
        effect: the difference that is found.
        margin: the margin within which equal means are shown to agree.
    """

    seeds: int
    spread: float
    prompts: int
    effect: float
    margin: float


def findable(found: Components, prompts: int, seeds: int = 1) -> Design | None:
    """What a run of a given size finds.

    Args:
        found: variance components of the difference.
        prompts: how many the run has, in groups of the size that was seen.
        seeds: of each side.

    Returns:
        The design; None where the components do not say what so many seeds do (`Components.spread`).

    Raises:
        ValueError: fewer than 3 groups of prompts.
    """
    spread = found.spread(seeds)
    if spread is None:
        return None
    freedom = prompts / found.companions - 1
    if freedom < 2:
        raise ValueError(f"{prompts} prompts are fewer than 3 groups")
    one = Spread(spread / math.sqrt(prompts), freedom, 0.0)
    return Design(seeds, spread, prompts, one.findable(1 - ALPHA), provable_margin(one))


def needed(
    found: Components, effect: float, equivalence: bool = False, seeds: Sequence[int] = (1, 2, 4, 8)
) -> list[Design]:
    """How many prompts find an effect, or show equal means to agree within it, for several numbers of seeds.

    Args:
        found: variance components of the difference.
        effect: the difference to find; with `equivalence` the margin to agree within.
        equivalence: which of the two.
        seeds: numbers of seeds of each side.

    Returns:
        One design for each number of seeds that the components speak about, with the least number of prompts.

    Raises:
        ValueError: an effect that is not above 0.
    """
    if not effect > 0:
        raise ValueError(f"the effect must be above 0, got {effect}")
    designs = []
    for count in seeds:
        if found.spread(count) is None:
            continue

        def enough(prompts: int, count: int = count) -> bool:
            design = findable(found, prompts, count)
            return design is not None and (design.margin if equivalence else design.effect) <= effect

        least = math.ceil(3 * found.companions)
        most = least
        while not enough(most):
            most *= 2
        while least < most:
            middle = (least + most) // 2
            least, most = (least, middle) if enough(middle) else (middle + 1, most)
        designs.append(findable(found, most, count))
    return [design for design in designs if design is not None]
