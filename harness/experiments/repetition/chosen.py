"""The chosen ladder as rows have it: of every fold, the figures of the rung that the fold chose on training prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.core.format import listed
from harness.core.once import among, once
from harness.experiments.repetition.sources import LOGIT
from harness.experiments.repetition.unseen import JOINT

CHOSEN, BELOW, ABOVE = "chosen", "chosen, one less", "chosen, one more"
"""What stands in the place of a rung's name: the chosen one, and the rungs below and above it in the ladder."""
NEIGHBOURS = {BELOW: -1, ABOVE: 1}
NEIGHBOUR_METRICS = frozenset({"energy_score"})
"""Measures that the chosen rung is compared with its neighbours by."""
SHORT = 24  # signs of a rung's name in tables


def short_rung(rung: str) -> str:
    """A rung where there is little room: "followed-by-4,6" of two with one stem, "suffix + 7 more" of many.

    Args:
        rung: what it adds, joined by " + ".
    """
    names = rung.split(" + ")
    pieces: list[str] = []
    stem = ""
    for name in names:
        of, _, number = name.rpartition("-")
        if of and of == stem and number.isdigit():
            pieces[-1] += f",{number}"
        else:
            pieces.append(name)
        stem = of if number.isdigit() else ""
    joined = " + ".join(pieces)
    if len(joined) <= SHORT:
        return joined
    return f"{pieces[0]} + {len(names) - 1 - pieces[0].count(',')} more"


def up_to(rung: str, first: str) -> str:
    """A rung in words: "counts" of the first, else "up to recency", as it has all statistics of the rungs before."""
    return short_rung(rung) if rung == first else f"up to {short_rung(rung)}"


@dataclass(frozen=True)
class Chosen:
    """The rungs that the folds of one model chose.

    Attributes:
        folds: fold -> its rung.
        rungs: all rungs, in the order of the ladder.
        prompts: the fewest and the most training prompts that a fold chose by.
    """

    folds: Mapping[int, str]
    rungs: tuple[str, ...]
    prompts: tuple[int, int]

    @property
    def counts(self) -> dict[str, int]:
        """Rung -> folds that chose it, in the order of the ladder."""
        every = list(self.folds.values())
        return {rung: every.count(rung) for rung in self.rungs if rung in every}

    @property
    def words(self) -> str:
        """Which rungs in how many folds: "up to recency", "up to recency in 3 of 5 folds and counts in 2"."""
        found = [(up_to(rung, self.rungs[0]), count) for rung, count in self.counts.items()]
        if len(found) == 1:
            return found[0][0] + (f" in all {len(self.folds)} folds" if len(self.folds) > 1 else "")
        said = [f"{name} in {count}" for name, count in sorted(found, key=lambda one: -one[1])]
        said[0] += f" of {len(self.folds)} folds"
        return listed(said)

    @property
    def brief(self) -> str:
        """The rung of most folds, the lowest of equals, for a table: "up to recency", "recency (3 of 5 folds)"."""
        rung, count = max(self.counts.items(), key=lambda one: one[1])
        if count == len(self.folds):
            return up_to(rung, self.rungs[0])
        return f"{short_rung(rung)} ({count} of {len(self.folds)} folds)"

    def beside(self, step: int) -> dict[int, str]:
        """Fold -> the rung that is `step` above the chosen one, where there is one."""
        places = {fold: self.rungs.index(rung) + step for fold, rung in self.folds.items()}
        return {fold: self.rungs[place] for fold, place in places.items() if 0 <= place < len(self.rungs)}


@once
def choices(rows: pd.DataFrame) -> dict[str, Chosen]:
    """Model -> what its folds chose; models of which some fold chose nothing are left out.

    Args:
        rows: of the experiment, from one run.
    """
    metrics = ["chosen_rung", "choice_energy"]
    of_units = rows[among(rows, "metric", *metrics) & among(rows, "surrogate", LOGIT)]
    found = {}
    for model, own in of_units.groupby("model", sort=False):
        picked = own[own["metric"] == "chosen_rung"]
        if picked.empty or picked["value"].isna().any():
            continue
        folds = {
            int(fold): str(_condition(text)["rung"])
            for fold, text in zip(picked["fold"], picked["condition"], strict=True)
        }
        every = own.loc[own["metric"] == "choice_energy", "condition"]
        rungs = tuple(dict.fromkeys(str(_condition(text)["rung"]) for text in every))
        found[str(model)] = Chosen(folds, rungs, (int(picked["n"].min()), int(picked["n"].max())))
    return found


def with_chosen(rows: pd.DataFrame, chosen: Mapping[str, Chosen]) -> pd.DataFrame:
    """The rows, and once more those of the chosen ladder with `chosen` in the place of the rung's name.

    Args:
        rows: held-out ones, with their folds.
        chosen: of `choices`.

    Returns:
        A copy with further rows at its end: of every fold those of its rung; of `NEIGHBOUR_METRICS` also those of the
        rungs below and above.
    """
    ladder = rows[rows["surrogate"].isin([LOGIT, *JOINT]) & rows["model"].isin(list(chosen)) & rows["fold"].notna()]
    if ladder.empty:
        return rows
    conditions = {text: _condition(text) for text in ladder["condition"].unique()}
    rung = ladder["condition"].map({text: of.get("rung") for text, of in conditions.items()})
    compared = ladder["metric"].isin(NEIGHBOUR_METRICS)
    (model, models), (number, rungs) = pd.factorize(ladder["model"]), pd.factorize(rung)
    fold = ladder["fold"].to_numpy(dtype=int)
    more = []
    for name, step in ((CHOSEN, 0), *NEIGHBOURS.items()):
        wanted = np.full((len(models), fold.max() + 1), len(rungs))  # of a fold without one, a number that none has
        for place, named in enumerate(models):
            for at, of in chosen[named].beside(step).items():
                if at <= fold.max() and of in rungs:
                    wanted[place, at] = rungs.get_loc(of)
        same = wanted[model, fold] == number
        part = ladder[same if step == 0 else same & compared]
        renamed = {text: json.dumps({**of, "rung": name}, sort_keys=True) for text, of in conditions.items()}
        more.append(part.assign(condition=part["condition"].map(renamed).astype(rows["condition"].dtype)))
    found: pd.DataFrame = pd.concat([rows, *more], ignore_index=True)
    return found


def _condition(text: Any) -> dict[str, Any]:
    found: dict[str, Any] = {} if pd.isna(text) else json.loads(str(text))
    return found
