"""The rows of one model, by arm, sentence kind, preamble, k and position: what tables, answers and figures read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.once import once
from harness.core.records import Interval
from harness.core.rows import MODEL
from harness.experiments.self_reinforcement.curves import ALL, FIRST, POSITIONS
from harness.experiments.self_reinforcement.settings import KINDS
from harness.experiments.self_reinforcement.theory import largest_slope
from harness.stats.contest import ALPHA
from harness.stats.equivalence import Verdict, judge, judged_together
from harness.stats.grouped import GroupMean, group_mean
from harness.stats.significance import holm

P, LOG_P, WINS = "sentence_probability", "sentence_log_probability", "winning_rate"
SLOPE, LOG_SLOPE, MARGIN = "probability_slope", "log_probability_slope", "margin_probability_slope"
METRICS = (P, LOG_P, WINS, SLOPE, LOG_SLOPE)
AGAINST, WITHIN, UNDECIDED = "evidence against", "as a closed chain", "undecided"
NOT_MEASURED = Interval(None, None, None, 0, "not measured")
Key = tuple[str, str, str, int, int, str]
"""Metric, arm, kind, preamble, k (-1 of slopes) and position."""


@dataclass(frozen=True)
class Tested:
    """What the theory of closed chains says of one curve of the model, and what was found.

    Attributes:
        kind: of the sentences.
        first: the verdict on the slope of the probability of a repetition's first token, predicted to be 0.
        whole: the slope of the log-probability of all tokens.
        bound: the largest that any closed chain can have.
        p: two-sided, of a mean slope at the bound, corrected by Holm; None where nothing could be tested.
        word: about `whole`.
    """

    kind: str
    first: Verdict
    whole: Interval
    bound: float
    p: float | None
    word: str

    @property
    def verdict(self) -> str:
        """Of the first token, for which the prediction is exact whatever the chain."""
        return {"differs": AGAINST, "agrees": WITHIN}.get(self.first.word, UNDECIDED)


@dataclass(frozen=True)
class Part:
    """One model.

    Attributes:
        model: as in the rows.
        cells: one value per prompt with its group, by key.
        margin: of the slope of the probability.
        starts_with: how many tokens of its own every text of the model begins with.
    """

    model: str
    cells: dict[Key, pd.DataFrame]
    margin: float
    starts_with: int

    @cached_property
    def arms(self) -> list[str]:
        """The model, the surrogates in the order of the ladder with their rungs, then heads that were replaced."""
        found = list(dict.fromkeys(arm for _, arm, *_ in self.cells))
        order = [MODEL, *registry.ladder(name_of(arm) for arm in found if arm != MODEL and not in_the_loop(arm))]
        place = {name: index for index, name in enumerate(order)}
        return sorted(found, key=lambda arm: place.get(name_of(arm), len(order)))  # rungs and sets stay in their order

    @cached_property
    def kinds(self) -> list[str]:
        present = {kind for _, _, kind, *_ in self.cells}
        return [kind for kind in KINDS if kind in present]

    @cached_property
    def preambles(self) -> list[int]:
        return sorted({preamble for _, _, _, preamble, _, _ in self.cells})

    @cached_property
    def last(self) -> int:
        """The largest k."""
        return max((k for *_, k, _ in self.cells), default=0)

    @cached_property
    def length(self) -> int:
        """Tokens of a sentence."""
        return max((int(cell["n"].max()) for key, cell in self.cells.items() if key[0] == P), default=0)

    def cell(
        self, metric: str, arm: str, kind: str, preamble: int, k: int = -1, position: str = ALL
    ) -> pd.DataFrame | None:
        return self.cells.get((metric, arm, kind, preamble, k, position))

    def mean(self, metric: str, arm: str, kind: str, preamble: int, k: int = -1, position: str = ALL) -> Interval:
        """The mean over held-out prompts, with its interval over groups."""
        key = (metric, arm, kind, preamble, k, position)
        if key not in self._means:
            found = self.cells.get(key)
            made = NOT_MEASURED if found is None else group_mean(found["value"], found["group"]).interval()
            self._means[key] = made
        return self._means[key]

    @cached_property
    def _means(self) -> dict[Key, Interval]:
        return {}  # tables, answers and figures show the same means

    def curve(self, arm: str, kind: str, preamble: int) -> list[Interval]:
        """The mean probability of k = 0 .. K."""
        return [self.mean(P, arm, kind, preamble, k) for k in range(self.last + 1)]

    def measured(self, arm: str, kind: str, preamble: int) -> bool:
        return self.cell(SLOPE, arm, kind, preamble) is not None

    def prompts(self) -> int:
        """On how many held-out prompts the curves are."""
        return max((len(cell) for key, cell in self.cells.items() if key[0] == SLOPE), default=0)

    def against_model(self, metric: str, arm: str, kind: str, preamble: int) -> Interval:
        """The arm less the model, on the same sentences."""
        own, model = self.cell(metric, arm, kind, preamble), self.cell(metric, MODEL, kind, preamble)
        if own is None or model is None:
            return NOT_MEASURED
        both = own.join(model.add_suffix("_model"), how="inner")
        return group_mean(both["value"] - both["value_model"], both["group"]).interval()

    def distance(self, arm: str, kind: str, preamble: int) -> pd.DataFrame | None:
        """How far the curve of an arm is from the model's: the mean over k >= 1 of their absolute difference."""
        found: list[pd.Series] = []
        groups: pd.Series | None = None
        for k in range(1, self.last + 1):
            own, model = self.cell(P, arm, kind, preamble, k), self.cell(P, MODEL, kind, preamble, k)
            if own is None or model is None:
                return None
            found.append((own["value"] - model["value"]).abs())  # of prompts that one of them lacks there is none
            groups = own["group"]
        return pd.DataFrame({"value": sum(found[1:], found[0]) / len(found), "group": groups}).dropna()

    def mean_distance(self, arm: str, kind: str, preamble: int) -> Interval:
        found = self.distance(arm, kind, preamble)
        return NOT_MEASURED if found is None else group_mean(found["value"], found["group"]).interval()

    @cached_property
    def tested(self) -> list[Tested]:
        """The theory's prediction for curves without a preamble, kind by kind, corrected for the number of kinds."""
        if 0 not in self.preambles or self.starts_with:
            return []
        kinds = [kind for kind in self.kinds if self.cell(LOG_SLOPE, MODEL, kind, 0) is not None]
        first = []
        for kind in kinds:
            cell = self.cells[SLOPE, MODEL, kind, 0, -1, FIRST]
            first.append(judge(cell["value"], cell["group"], self.margin))
        means, bound = [self._log_slope(kind) for kind in kinds], largest_slope(self.last, self.length)
        raw = [_p_beyond(mean, bound) for mean in means]
        tested = [one for one in raw if one is not None]
        corrected = iter(holm(np.array(tested)).tolist() if tested else [])
        p = [None if one is None else next(corrected) for one in raw]
        return [
            Tested(kind, verdict, mean.interval(), bound, one, _word(mean, bound, one))
            for kind, verdict, mean, one in zip(kinds, judged_together(first), means, p, strict=True)
        ]

    def _log_slope(self, kind: str) -> GroupMean:
        cell = self.cells[LOG_SLOPE, MODEL, kind, 0, -1, ALL]
        return group_mean(cell["value"], cell["group"])


def _p_beyond(mean: GroupMean, bound: float) -> float | None:
    """Two-sided p-value of a mean at the nearer end of [-bound, bound]."""
    return None if mean.value is None else mean.p(bound if mean.value >= 0 else -bound)


def _word(mean: GroupMean, bound: float, p: float | None) -> str:
    if mean.value is None or p is None or p > ALPHA:
        return UNDECIDED
    return AGAINST if abs(mean.value) > bound else WITHIN


def name_of(arm: str) -> str:
    """The surrogate of an arm, without its rung."""
    return arm.partition(": ")[0]


def closed(arm: str) -> bool:
    """Is an arm a closed chain, which reads counts and the query alone?

    Of the closed context logit that is the rung of counts, where a ladder begins with it as the shipped ones do.
    """
    if arm == "context-logit-closed: + counts":
        return True
    known = {**registry.surrogates("vocabulary"), **registry.surrogates("next-token")}
    one = known.get(name_of(arm))
    return one is not None and not one.open and set(one.sees) <= {"counts", "query"} and "counts" in one.sees


@once
def parts(rows: pd.DataFrame) -> list[Part]:
    """Every model of the rows, in their order.

    Args:
        rows: of the experiment, from one run.
    """
    found = []
    for model, own in rows.groupby("model", sort=False):
        said = own[own["metric"] == MARGIN]
        kept = own[own["metric"].isin(METRICS) & own["value"].notna()]
        if not len(said) or not len(kept):
            continue
        starts = int(json.loads(said["condition"].iloc[0])["starts_with"])
        found.append(Part(str(model), _cells(kept), float(said["value"].iloc[0]), starts))
    return found


def _cells(rows: pd.DataFrame) -> dict[Key, pd.DataFrame]:
    by = ["metric", "surrogate", "condition"]
    cell = rows.groupby(by, sort=False, dropna=False).ngroup().to_numpy()
    order = np.lexsort((rows["prompt"].to_numpy(dtype=str), cell))
    prompt = rows["prompt"].to_numpy(dtype=object)[order]
    group = rows["group"].to_numpy(dtype=object)[order]
    value, n = (rows[name].to_numpy(dtype=np.float64)[order] for name in ("value", "n"))
    cell = cell[order]
    starts = np.flatnonzero(np.r_[True, (cell[1:] != cell[:-1]) | (prompt[1:] != prompt[:-1])])  # of each prompt
    mean = np.add.reduceat(value, starts) / np.diff(np.r_[starts, len(value)])
    edges = np.r_[np.flatnonzero(np.r_[True, np.diff(cell[starts]) != 0]), len(starts)]  # of each cell, in prompts
    names = rows[by].to_numpy(dtype=object)[order[starts[edges[:-1]]]]
    whole = pd.DataFrame(
        {"value": mean, "group": group[starts], "n": n[starts]}, index=pd.Index(prompt[starts], name="prompt")
    )
    found: dict[Key, pd.DataFrame] = {}
    for (metric, surrogate, condition), first, end in zip(names, edges[:-1], edges[1:], strict=True):
        at: dict[str, Any] = json.loads(str(condition))
        arm = _arm(str(surrogate), at)
        key = (str(metric), arm, str(at["kind"]), int(at["preamble"]), int(at.get("k", -1)), str(at["position"]))
        found[key] = whole.iloc[first:end]
    return found


def _arm(surrogate: str, at: dict[str, Any]) -> str:
    """What an arm is called: a surrogate, one with its rung, or what takes the place of some heads."""
    if "heads" in at:
        return f"{at['heads']} heads as {surrogate}" + ("" if surrogate == at["order"] else f", those of {at['order']}")
    return surrogate + (f": + {at['rung']}" if "rung" in at else "")


def in_the_loop(arm: str) -> bool:
    """Is an arm the model with heads replaced?"""
    return " heads as " in arm


def ordered_positions(part: Part) -> list[str]:
    """The positions that were measured."""
    present = {position for *_, position in part.cells}
    return [position for position in POSITIONS if position in present]
