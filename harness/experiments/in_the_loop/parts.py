"""The rows of one model and strategy, by set of heads and arm: what tables, answers and figures read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.once import once
from harness.core.records import Interval
from harness.core.rows import MODEL, RESEEDED
from harness.experiments._shared.loop_rules import CONTROLS, REAL
from harness.stats.equivalence import Verdict, judge
from harness.stats.grouped import group_mean
from harness.stats.pooling import SEED
from harness.stats.recovered import recovered_interval

LOST = "nats_lost"
LOSSES = (LOST, "nats_lost_written", "next_token_kl", "same_top_token")
ALONE = ("kl_alone", "nats_lost_alone")
REPEATED = "seq_rep_4"
WRITTEN = (REPEATED, "loop_share", "winner_size", "winner_jaccard")
MARGIN = "margin_seq_rep_4"
NO_ROOM = "the null loses nothing beyond chance, so there is no room to recover"
Key = tuple[str, str, str]
"""Metric, arm and condition."""


@dataclass(frozen=True)
class SetOf:
    """A set of heads, as conditions of rows name it.

    Attributes:
        factors: of the condition.
        condition: the same as JSON.
    """

    factors: dict[str, Any]
    condition: str

    @property
    def heads(self) -> int:
        return int(self.factors["heads"])

    @property
    def order(self) -> str:
        return str(self.factors["order"])

    @property
    def family(self) -> str:
        return str(self.factors["set"])

    @property
    def without(self) -> bool:
        """Is layer 0 left out?"""
        return bool(self.factors["layer_0"] == "out")

    @property
    def real(self) -> bool:
        """Is the first position the running head's own?"""
        return self.factors.get("first_position") == REAL

    @property
    def name(self) -> str:
        """What the heads have in common, such as "best 10 %"."""
        f = self.factors
        if self.family == "share":
            return f"best {100 * f['share']:g} %"
        if self.family == "alone":
            return f"least alone {100 * f['share']:g} %"
        if self.family == "random":
            return f"random {100 * f['share']:g} %, draw {int(f['draw']) + 1}"
        if self.family == "kind":
            return str(f["kind"])
        return f"layer {f['layer']}" if self.family == "layer" else f"greedy {self.heads}"


@dataclass(frozen=True)
class Part:
    """One model and strategy.

    Attributes:
        model, strategy: as in the rows.
        sets: condition -> set, in the order of the rows.
        held_out, train: (metric, arm, condition) -> one value per prompt, a mean over seeds, with its group.
        seeds: (metric, arm, condition) -> one value per prompt and seed, of continuations.
        layers: condition -> layer -> heads of the set in it.
        alone: metric, layer and head -> one value per held-out prompt, of heads replaced alone.
        margin: of seq_rep_4; None where nothing was written.
    """

    model: str
    strategy: str
    sets: dict[str, SetOf]
    held_out: dict[Key, pd.DataFrame]
    train: dict[Key, pd.DataFrame]
    seeds: dict[Key, pd.DataFrame]
    layers: dict[str, dict[int, int]]
    alone: dict[tuple[str, int, int], pd.DataFrame]
    margin: float | None

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.strategy

    @property
    def what(self) -> str:
        """Model and strategy, for a sentence."""
        return f"{self.model}, {self.strategy}"

    @cached_property
    def leaders(self) -> list[str]:
        """The surrogates whose sets have other arms too; all orders where there are none."""
        own = {one.order for (metric, arm, c), _ in self.train.items() if metric == LOST and (one := self.sets.get(c))}
        return registry.ladder(own or {one.order for one in self.sets.values()})

    def arms(self, condition: str) -> list[str]:
        """The arms that were measured on a set: the leader, then the ladder, then controls."""
        found = {arm for (metric, arm, at) in self.held_out if metric == LOST and at == condition}
        order = self.sets[condition].order
        ranked = [order, *(name for name in registry.ladder(found - set(CONTROLS)) if name != order), *CONTROLS]
        return [name for name in ranked if name in found]

    def chosen(self, order: str, family: str = "share", without: bool = True, real: bool = False) -> list[SetOf]:
        """The sets of one order and family."""
        return [
            one
            for one in self.sets.values()
            if (one.order, one.family, one.without, one.real) == (order, family, without, real)
            and any(metric == LOST and at == one.condition for metric, _, at in self.held_out)
        ]

    def best(self, order: str, without: bool = True) -> list[SetOf]:
        """The sets that the headline is about: by KL of rows, or where these were not made by harm done alone."""
        return self.chosen(order, without=without) or self.chosen(order, "alone", without)

    def mean(self, metric: str, arm: str, condition: str) -> Interval:
        """The mean over held-out prompts, with its interval over groups."""
        found = self.held_out.get((metric, arm, condition))
        if found is None:
            return Interval(None, None, None, 0, "not measured")
        return group_mean(found["value"], found["group"]).interval()

    def null(self, condition: str) -> str | None:
        """The null that loses least on training texts."""
        order = self.sets[condition].order
        means = {
            arm: float(found["value"].mean())
            for (metric, arm, at), found in self.train.items()
            if (metric, at) == (LOST, condition) and arm != order
        }
        return min(registry.ladder(means), key=lambda arm: means[arm], default=None)

    def of_head(self, metric: str, layer: int, head: int) -> Interval:
        """The mean over held-out prompts of what a head replaced alone does."""
        found = self.alone.get((metric, layer, head))
        if found is None:
            return Interval(None, None, None, 0, "not measured")
        return group_mean(found["value"], found["group"]).interval()

    def recovered(self, condition: str) -> Interval:
        """1 - nats lost with the leader over nats lost with the best null, of the same heads and texts."""
        null, order = self.null(condition), self.sets[condition].order
        own = self.held_out.get((LOST, order, condition))
        other = None if null is None else self.held_out.get((LOST, null, condition))
        if own is None or other is None:
            return Interval(None, None, None, 0, "no null was measured on these heads")
        both = own.join(other.add_suffix("_null"), how="inner")
        room = group_mean(both["value_null"], both["group"]).interval()
        if room.low is None or room.low <= 0:
            return Interval(None, None, None, room.n, room.missing or NO_ROOM)
        by_group = both.groupby("group")[["value", "value_null"]].sum() / len(both) * both["group"].nunique()
        return recovered_interval(by_group["value_null"] - by_group["value"], by_group["value_null"], SEED)

    @cached_property
    def written(self) -> list[tuple[str, SetOf]]:
        """Arms and sets with which continuations were written."""
        found = [(arm, self.sets[at]) for (metric, arm, at) in self.seeds if metric == REPEATED and at in self.sets]
        return sorted(found, key=lambda pair: (pair[1].order, pair[1].family == "random", pair[1].heads))

    def change(self, arm: str, condition: str) -> Verdict | None:
        """The change of seq_rep_4 against the model, paired by prompt and seed; None where nothing was written."""
        own, model = self.seeds.get((REPEATED, arm, condition)), self._of_model(REPEATED)
        if own is None or model is None or self.margin is None:
            return None
        both = own.join(model.add_suffix("_model"), how="inner")
        return _verdict(both["value"] - both["value_model"], both, self.margin)

    def reseeded(self) -> Verdict | None:
        """The same for the model's own seeds, each against the next one; None where there is one only."""
        model = self._of_model(REPEATED)
        if model is None or self.margin is None:
            return None
        seeds = sorted(set(model.index.get_level_values("seed")))
        if len(seeds) < 2:
            return None
        table = model["value"].unstack("seed")
        # the last pair of three seeds or more is implied by the others; of two, one pair is all there is
        pairs = [table[later] - table[earlier] for earlier, later in pairwise(seeds)]
        groups = model["group"].groupby("prompt").first()
        whole = pd.concat(pairs).dropna()
        return _verdict(
            whole, pd.DataFrame({"group": groups.reindex(whole.index).to_numpy()}, whole.index), self.margin
        )

    def _of_model(self, metric: str) -> pd.DataFrame | None:
        found = [values for (name, arm, _), values in self.seeds.items() if (name, arm) == (metric, MODEL)]
        return found[0] if found else None

    def of_model(self, metric: str) -> Interval:
        """A measure of the model's own continuations; of agreement, with its own next seed."""
        arm = RESEEDED if metric == "winner_jaccard" else MODEL
        found = [values for (name, source, _), values in self.held_out.items() if (name, source) == (metric, arm)]
        if not found:
            return Interval(
                None, None, None, 0, "the model has one continuation" if arm == RESEEDED else "not measured"
            )
        return group_mean(found[0]["value"], found[0]["group"]).interval()


def _verdict(values: pd.Series, rows: pd.DataFrame, margin: float) -> Verdict:
    """Of differences by prompt (and seed): seeds are averaged first."""
    level = values.index.get_level_values("prompt") if values.index.nlevels > 1 else values.index
    by_prompt = values.groupby(level).mean()
    groups = pd.Series(rows["group"].to_numpy(), index=level).groupby(level=0).first()
    return judge(by_prompt.to_numpy(), groups.reindex(by_prompt.index).to_numpy(), margin)


def smallest_margin(verdict: Verdict) -> float | None:
    """The smallest margin within which a difference is shown to be 0, at 5 %."""
    ends = (verdict.inner.low, verdict.inner.high)
    return None if ends[0] is None or ends[1] is None else max(abs(ends[0]), abs(ends[1]))


@once
def parts(rows: pd.DataFrame) -> list[Part]:
    """Every model and strategy of the rows, in their order.

    Args:
        rows: of the experiment, from one run.
    """
    rows = rows.copy()
    rows["condition"] = rows["condition"].fillna("{}").map(_plain)
    rows["group"] = rows["group"].fillna(rows["prompt"])
    layered = rows[rows["metric"] == "heads_in_layer"]
    found = []
    for (model, strategy), own in rows[rows["strategy"].notna()].groupby(["model", "strategy"], sort=False):
        of_model = layered[layered["model"] == model]
        layers = {
            str(condition): dict(zip(one["layer"].astype(int), one["value"].astype(int), strict=True))
            for condition, one in of_model.drop_duplicates(["condition", "layer"]).groupby("condition")
        }
        sets = {text: made for text in dict.fromkeys(own["condition"]) if (made := _set_of(text))}
        margins = rows[(rows["metric"] == MARGIN) & (rows["model"] == model)]["value"]
        kept = own[own["value"].notna()]
        losses, written = kept[kept["metric"].isin(LOSSES)], kept[kept["metric"].isin(WRITTEN)]
        held_out = losses[losses["split"] == "held_out"]
        found.append(
            Part(
                str(model),
                str(strategy),
                sets,
                _by_prompt(pd.concat([held_out, written])),
                _by_prompt(losses[losses["split"] == "train"]),
                _cells(written, ["prompt", "seed"]),
                layers,
                _alone(kept),
                float(margins.iloc[0]) if len(margins) else None,
            )
        )
    return found


def _plain(text: str) -> str:
    """A condition without the factor that says how continuations end: losses on texts do not depend on it."""
    return json.dumps({name: value for name, value in json.loads(text).items() if name != "ignore_eos"}, sort_keys=True)


def _set_of(text: str) -> SetOf | None:
    factors = json.loads(text)
    return SetOf(factors, text) if "set" in factors else None


def _alone(rows: pd.DataFrame) -> dict[tuple[str, int, int], pd.DataFrame]:
    own = rows[rows["metric"].isin(ALONE) & (rows["split"] == "held_out")].astype({"layer": int, "head": int})
    found = _tables(own, ["metric", "layer", "head"], ["prompt"])
    named = {(str(metric), int(str(layer)), int(str(head))): one for (metric, layer, head), one in found}
    return {place: named[place] for place in sorted(named)}


def _by_prompt(rows: pd.DataFrame) -> dict[Key, pd.DataFrame]:
    return _cells(rows, ["prompt"])


def _cells(rows: pd.DataFrame, by: list[str]) -> dict[Key, pd.DataFrame]:
    """(metric, arm, condition) -> value and group by prompt, or by prompt and seed."""
    found = _tables(rows, ["metric", "surrogate", "condition"], by)
    return {(str(metric), str(arm), str(condition)): table for (metric, arm, condition), table in found}


def _tables(rows: pd.DataFrame, of: list[str], by: list[str]) -> Iterator[tuple[tuple[object, ...], pd.DataFrame]]:
    """The mean value and the group by the columns `by`, for each combination of `of`, in the order of the rows.

    All are made in one pass and cut apart: a run has thousands of heads and sets.
    """
    whole = rows.groupby([*of, *by], sort=True).agg(value=("value", "mean"), group=("group", "first"))
    whole = whole.astype({"value": np.float64}).reset_index(level=of)
    own, tables = whole.groupby(of, sort=True).indices, whole[["value", "group"]]
    for key in rows[of].dropna().drop_duplicates().itertuples(index=False, name=None):
        places = own.get(key, np.zeros(0, dtype=np.int64))
        yield key, tables.iloc[places[0] : places[-1] + 1] if len(places) else tables.iloc[:0]
