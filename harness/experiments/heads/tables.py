"""Tables about single heads: ranked by what is explained, named by what they look at, and which surrogate is best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Interval
from harness.core.rows import frames
from harness.experiments._shared.tables import Table, _by, _ladder, _mean, _pick
from harness.measures.head_kinds import CONTENT, KINDS, PATTERNS, SINK, THRESHOLD, kind_of
from harness.stats.intervals import median_interval

FIRST, LAST = 15, 5  # heads of a ranking that are shown, of the best and of the worst


@dataclass(frozen=True)
class Head:
    """One head of one model and strategy.

    Attributes:
        layer, head: which.
        kind: what it looks at; None where the run has no scores.
        scores: of `PATTERNS`, `content_score` and `sink_share`, those that are there.
        explained: by surrogate.
    """

    layer: int
    head: int
    kind: str | None
    scores: dict[str, Interval]
    explained: dict[str, Interval]

    @property
    def name(self) -> str:
        """As options of the command line write it: layer.head."""
        return f"{self.layer}.{self.head}"

    @property
    def best(self) -> str | None:
        """The surrogate that explains most; controls are none."""
        known = {n: f.value for n, f in self.explained.items() if f.value is not None and n not in frames()}
        return max(known, key=lambda n: known[n]) if known else None


def _own(row: pd.Series) -> Interval:
    """The interval that a row carries."""
    value, low, high = (None if pd.isna(row[name]) else float(row[name]) for name in ("value", "low", "high"))
    return Interval(value, low, high, 0 if pd.isna(row["n"]) else int(row["n"]))


def heads_of(rows: pd.DataFrame, model: str, strategy: str) -> list[Head]:
    """The heads of one model and strategy, in their order.

    Args:
        rows: of a run.
        model, strategy: which.
    """
    part = _pick(rows, experiment="heads", model=model, strategy=strategy, split="held_out")
    part = part[part["head"].notna()]
    found = []
    for place, own in part.groupby(["layer", "head"], sort=True):
        layer, head = (int(str(number)) for number in place)
        explained = own[own["metric"] == "explained"].drop_duplicates("surrogate")
        by_name = {str(row["surrogate"]): _own(row) for _, row in explained.iterrows()}
        scores = {}
        for metric in ("sink_share", *PATTERNS):
            of_metric = own[(own["metric"] == metric) & (own["surrogate"] == "model")]
            if len(of_metric):
                scores[metric] = _mean(of_metric)
        content = own[own["metric"] == "content_score"]
        if len(content):
            scores["content_score"] = _own(content.iloc[0])
        values = {name: f.value for name, f in scores.items() if f.value is not None}
        kind = kind_of(values) if set(PATTERNS) & set(values) else None
        ordered = {name: by_name[name] for name in _ladder(explained)}
        found.append(Head(layer, head, kind, scores, ordered))
    return found


def head_tables(rows: pd.DataFrame) -> list[Table]:
    """Every table about single heads of a run: the ranking and, where heads have scores, the kinds of heads."""
    part = _pick(rows, experiment="heads")
    tables = []
    for model in _by(part, "model"):
        for strategy in _by(_pick(part, model=model, split="held_out"), "strategy"):
            heads = heads_of(part, model, strategy)
            if not any(head.best for head in heads):
                continue
            tables.append(ranking(heads, f"Heads of {model}, {strategy}, ranked by explained"))
            if any(head.kind for head in heads):
                counts = _pick(part, model=model, strategy=strategy, surrogate="counts")
                tables.append(by_kind(heads, counts, f"Heads of {model}, {strategy}: which surrogate is best where"))
    return tables


def ranking(heads: list[Head], title: str) -> Table:
    """The heads that their best surrogate explains most and least."""

    def value(head: Head) -> float:
        found = head.explained[head.best].value if head.best else None
        return -np.inf if found is None else found

    order = sorted(heads, key=lambda head: (-value(head), head.layer, head.head))
    shown = list(enumerate(order, start=1))
    if len(order) > FIRST + LAST:
        shown = shown[:FIRST] + shown[-LAST:]
    columns = [name for name in ("sink_share", *PATTERNS, "content_score") if any(name in h.scores for h in heads)]
    body = []
    for place, head in shown:
        second = sorted((f.value for f in head.explained.values() if f.value is not None), reverse=True)[1:2]
        best = head.best
        body.append(
            [
                str(place),
                head.name,
                head.kind or "–",
                best or "–",
                interval(head.explained[best]) if best else "–",
                number(second[0]) if second else "–",
                *(interval(head.scores[name]) if name in head.scores else "–" for name in columns),
            ]
        )
    header = ["rank", "head", "kind", "best surrogate", "explained", "of the runner-up", *columns]
    left = f"; ranks {FIRST + 1} to {len(order) - LAST} are left out" if len(shown) < len(order) else ""
    return Table(
        title,
        header,
        body,
        f"{len(order)} heads, each by the surrogate that explains most of it{left}. The best of several is a little "
        "flattered by the choice. Heads are written layer.head. Intervals: 95 %, bootstrap over held-out texts.",
    )


def by_kind(heads: list[Head], counts: pd.DataFrame, title: str) -> Table:
    """What each surrogate explains of the heads of each kind, median over heads, and how often it is best."""
    names = list(dict.fromkeys(n for head in heads for n in head.explained))
    body = []
    for kind in KINDS:
        own = [head for head in heads if head.kind == kind]
        if not own:
            continue
        cells = []
        for name in names:
            values = [v for head in own if name in head.explained and (v := head.explained[name].value) is not None]
            wins = sum(head.best == name for head in own)
            cells.append(f"{interval(median_interval(values))}\nbest {wins} of {len(own)}")
        body.append([kind, str(len(own)), *cells])
    even = ", ".join(
        f"{name} {number(_mean(_pick(counts, metric=name)).value)}"
        for name in PATTERNS
        if len(_pick(counts, metric=name))
    )
    return Table(
        title,
        ["kind", "heads", *names],
        body,
        "explained, median over the heads of a kind, and how many of them the surrogate explains best. Kinds: "
        "previous-token, induction and duplicate-token heads give at least "
        f"{THRESHOLD:g} of their attention to that pattern (even attention would give: {even}), sink heads at least "
        f"{SINK:g} to the first position; of the others, attention differs from text to text in content heads "
        f"(content_score at least {CONTENT:g}) and depends on positions in position heads. Definitions and sources: "
        "harness/measures/head_patterns.py. Intervals: 95 %, exact over heads.",
    )
