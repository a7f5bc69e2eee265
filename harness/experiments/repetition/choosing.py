"""The unit that chooses a rung of the ladder: one rule for all strategies of a model, before judged prompts are read.

Each fold chooses by its own training prompts. Energy scores of a prompt are summed over strategies, each in the spreads
of its own training texts; the rung with the least mean is chosen. "The lowest that is not significantly worse" would
depend on how many prompts there are: by few of them it is the first rung, whatever it repeats. The unit reads no row
but those of training prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from harness.core.rows import Rows, with_factors
from harness.experiments.repetition.sources import DECODED, LOGIT, TRAINING_ENERGY
from harness.runs.units import Work
from harness.stats.grouped import group_mean
from harness.stats.intervals import Floats
from harness.stats.significance import holm

LOSS = "training_loss"
RULE = (
    "in each fold one for all strategies, chosen by the fold's training prompts: the one with the least mean energy "
    "score of its walks, summed over strategies; of equal ones that with the least log loss"
)
"""How a rung is chosen, as tables say it."""
UNTESTED = "too few groups, or too few that differ"
_EQUAL = 1e-12  # relative difference of means that is rounding


@dataclass(frozen=True)
class Choice:
    """What the rule says of one fold.

    Attributes:
        place: of the chosen rung in the ladder, from 0.
        means: [rungs] mean over prompts.
        p: of each rung the p-value of its distance to the chosen one (paired by prompt, over groups, two-sided, Holm);
            None where nothing could be tested, and of the chosen one itself.
    """

    place: int
    means: Floats
    p: tuple[float | None, ...]


def choose(energies: ArrayLike, groups: ArrayLike, losses: ArrayLike) -> Choice:
    """Apply the rule.

    Args:
        energies: [rungs, n] energy scores of n >= 1 training prompts, summed over strategies; rungs from the lowest.
        groups: [n] what prompts share.
        losses: [rungs] log losses on training texts, summed over strategies.

    Returns:
        The rung. How far the others are above it decides nothing, and is shown.

    Raises:
        ValueError: no rung or prompt, shapes that do not fit, or a value that is not finite (its place is named).
    """
    scores, lost = np.asarray(energies, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if scores.ndim != 2 or scores.size == 0 or lost.shape != scores.shape[:1]:
        raise ValueError(f"energies must be [rungs, n] and losses [rungs], got {scores.shape} and {lost.shape}")
    for name, values in (("energies", scores), ("losses", lost)):
        if wrong := np.argwhere(~np.isfinite(values)).tolist():
            raise ValueError(f"{name}{wrong[0]} is not finite")
    means = scores.mean(axis=1)
    equal = np.flatnonzero(means <= means.min() + _EQUAL * np.abs(means).max())
    least = int(equal[np.argmin(lost[equal])])
    others = [place for place in range(len(scores)) if place != least]
    raw = [group_mean(scores[place] - scores[least], groups).p() for place in others]
    corrected = holm(np.array([1.0 if one is None else one for one in raw])).tolist() if raw else []
    p: list[float | None] = [None] * len(scores)
    for place, one, value in zip(others, raw, corrected, strict=True):
        p[place] = None if one is None else float(value)
    return Choice(least, means, tuple(p))


def choose_rungs(work: Work) -> pd.DataFrame:
    """Choose a rung in every fold of one model."""
    s = work.settings
    rungs: list[str] = s["rungs"]
    seen = pd.concat([_read(folder) for folder in work.inputs], ignore_index=True)
    rows = Rows(experiment="repetition", model=s["model"], revision=s["revision"], surrogate=LOGIT, split="train")
    for fold in s["folds"]:
        energies, groups, losses = _tables(seen[seen["fold"] == fold], s["strategies"], rungs)
        n = len(groups)
        if n == 0:
            said = "no training prompt has an energy score of every rung with every strategy"
            rows.add("chosen_rung", None, missing=said, fold=fold, n=0, condition={"law": DECODED})
            continue
        choice = choose(energies, groups, losses)
        condition = {"law": DECODED, "rung": rungs[choice.place]}
        rows.add("chosen_rung", choice.place + 1, fold=fold, n=n, condition=condition)
        for place, rung in enumerate(rungs):
            where = {"fold": fold, "n": n, "condition": {"law": DECODED, "rung": rung}}
            rows.add("choice_energy", float(choice.means[place]), **where)
            rows.add("choice_loss", float(losses[place]), **where)
            if place != choice.place:
                p = choice.p[place]
                rows.add("choice_p", p, missing=UNTESTED if p is None else None, **where)
    return rows.frame()


def _read(folder: object) -> pd.DataFrame:
    """Rows of training prompts that one fold of one strategy has left, with the rung as a column of its own."""
    columns = ["strategy", "fold", "surrogate", "condition", "split", "prompt", "group", "metric", "value"]
    frame = pd.read_parquet(f"{folder}/rows.parquet", columns=columns, filters=[("split", "==", "train")])
    frame = with_factors(frame[frame["metric"].isin([TRAINING_ENERGY, LOSS]) & (frame["surrogate"] == LOGIT)])
    return frame[frame["at_law"] == DECODED]


def _tables(
    frame: pd.DataFrame, strategies: Sequence[str], rungs: Sequence[str]
) -> tuple[Floats, np.ndarray[Any, Any], Floats]:
    """Energies [rungs, n] and losses [rungs] of one fold, summed over strategies, and groups [n] of the prompts that
    have a score of every rung with every strategy."""
    keys = pd.MultiIndex.from_product([strategies, rungs])
    scored, lost = frame[frame["metric"] == TRAINING_ENERGY], frame[frame["metric"] == LOSS]
    wide = scored.pivot(index="prompt", columns=["strategy", "at_rung"], values="value").reindex(columns=keys)
    wide = wide.astype(float).dropna().sort_index()
    groups = scored.drop_duplicates("prompt").set_index("prompt")["group"].reindex(wide.index)
    energies = wide.to_numpy().reshape(len(wide), len(strategies), len(rungs)).sum(axis=1).T
    losses = lost.set_index(["strategy", "at_rung"])["value"].astype(float).reindex(keys)
    return energies, groups.to_numpy(), losses.to_numpy().reshape(len(strategies), len(rungs)).sum(axis=0)
