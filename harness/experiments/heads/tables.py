"""Tables of the experiment `heads`: what each surrogate explains of attention, over all heads and head by head."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.once import among
from harness.core.records import Cell, Column, Table
from harness.core.rows import MODEL
from harness.experiments._shared.leading import Leading, counted
from harness.experiments._shared.parts import leading
from harness.experiments.heads.parts import COUNTS, Part, p_of_leads, parts
from harness.experiments.heads.shrinkage import shrinkages
from harness.experiments.heads.single_heads import SCORES, Head, every_head
from harness.measures.head_kinds import CONTENT, KINDS, PATTERNS, SINK, THRESHOLD
from harness.stats.contest import clear
from harness.stats.pooling import Observed
from harness.stats.power import FINDABLE, smallest_difference

FIRST, LAST = 15, 5  # heads of a ranking that are shown, of the best and of the worst
HEADLINE_ROWS = 12
LABELS = {
    "sink_share": "sink",
    "previous_token_score": "previous",
    "induction_score": "induction",
    "duplicate_token_score": "duplicate",
    "content_score": "content",
}
BOOTSTRAP = "Intervals: 95 %, bootstrap over prompts"
EXPLAINED = "explained: 1 - KL / KL(counts), over all heads and queries; below 0 is worse than counts"


def tables(rows: pd.DataFrame) -> list[Table]:
    """All tables of the experiment, the headline first.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    if not found:
        return []
    made = [_summary(found), _explained(found), _texts(found), _by_layer(rows, found)]
    return [*made, *head_tables(rows), *shrinkage_tables(rows)]


def head_tables(rows: pd.DataFrame) -> list[Table]:
    """The tables about single heads: the ranking and, where heads have scores, the kinds of heads.

    Args:
        rows: of a run.
    """
    own = among(rows, "experiment", "heads")
    rows = rows if own.all() else rows[own]  # what was read off the same frame before is not read again
    found, heads = parts(rows), every_head(rows)
    every = [head for of in heads.values() for head in of]
    if not any(head.best for head in every):
        return []
    kinds = [_by_kind(rows, found, heads)] if any(head.kind for head in every) else []
    return [ranking(found, heads), *kinds]


def _about(found: list[Part]) -> str:
    """How many heads and prompts the figures are about."""
    heads = counted([part.heads for part in found], "head")
    return f"{heads}, {counted([part.prompts for part in found], 'held-out prompt')}"


def _shown(found: list[Part]) -> list[tuple[Part, list[str]]]:
    """The surrogates of each part for a table of at most twelve rows: all, or the best and counts."""
    if sum(len(part.surrogates) for part in found) <= HEADLINE_ROWS:
        return [(part, part.surrogates) for part in found]
    room = max(HEADLINE_ROWS // len(found), 1)
    made = []
    for part in found[:HEADLINE_ROWS]:
        best = part.ranked[: room - 1 if room > 1 else 1]
        frame = [COUNTS] if room > 1 and COUNTS in part.surrogates else []
        made.append((part, registry.ladder({*best, *frame})))
    return made


def _summary(found: list[Part]) -> Table:
    """The explained share of the main surrogates."""
    lead, shown = leading(found), _shown(found)
    body: list[list[Cell]] = []
    marked = set()
    wins = dict(zip((p.key for p in found), clear([p_of_leads(p) if p.ranked else [] for p in found]), strict=True))
    for part, names in shown:
        for name in names:
            if wins[part.key] and name in part.ranked[:1]:
                marked.add((len(body), len(lead.columns) + 1))
            median = 0.0 if name == COUNTS else part.medians.get(name)
            kl, top = part.sample("kl", name).value, part.sample("top_token", name).value
            body.append([*lead.cells(part.key), name, part.interval("explained", name), median, kl, top])
    every = sum(len(part.surrogates) for part in found)
    more = f" {len(body)} of {every} lines; all are in heads.explained." if len(body) < every else ""
    return Table(
        "heads.summary",
        f"How much of the attention of {lead.same} does each surrogate explain?",
        [
            *lead.columns,
            Column("surrogate", left=True),
            Column("explained", "share"),
            Column("median head", "share", priority=1),
            Column("kl", "nats", priority=2),
            Column("top token", "share", priority=3),
        ],
        body,
        f"{_about(found)}. {EXPLAINED}. The first position is taken out of every row. {BOOTSTRAP}, of "
        f"the median head too: all heads were read.{more}",
        headline=True,
        marked=frozenset(marked),
        mark="explains more than every other, p <= .05 after Holm's correction; controls are not ranked",
    )


def _explained(found: list[Part]) -> Table:
    """Every surrogate with all its figures."""
    lead = leading(found)
    measures = ("kl", "top_token", "total_variation")
    body: list[list[Cell]] = [
        [
            *lead.cells(part.key),
            name,
            part.interval("explained", name),
            0.0 if name == COUNTS else part.medians.get(name),
            *(part.interval(measure, name) for measure in measures),
        ]
        for part in found
        for name in part.surrogates
    ]
    return Table(
        "heads.explained",
        f"Surrogates of the heads of {lead.same}, on held-out texts",
        [
            *lead.columns,
            Column("surrogate", left=True),
            Column("explained", "share"),
            Column("median head", "share", priority=1),
            Column("kl", "nats", priority=2),
            Column("top token", "share", priority=3),
            Column("total variation", priority=4),
        ],
        body,
        f"{_about(found)}. {EXPLAINED}. The first position is taken out of every row. {BOOTSTRAP}, of "
        "the median head too: all heads were read.",
    )


def _texts(found: list[Part]) -> Table:
    """The texts and queries that the figures were measured on."""
    lead = leading(found)
    body: list[list[Cell]] = [
        [*lead.cells(p.key), p.heads, p.prompts, p.interval("sink_share", MODEL), p.interval("unseen_share", MODEL)]
        for p in found
    ]
    return Table(
        "heads.texts",
        f"What the heads of {lead.same} were scored on",
        [
            *lead.columns,
            Column("heads"),
            Column("prompts"),
            Column("sink", "share"),
            Column("unseen", "share", priority=1),
        ],
        body,
        "prompts: held out. sink: attention on the first position, which is then taken out. unseen: queries whose "
        f"token has no static input from the training texts. {BOOTSTRAP}.",
    )


def _by_layer(rows: pd.DataFrame, found: list[Part]) -> Table:
    """What each surrogate explains of every layer, all strategies together; the best surrogates are kept longest."""
    order = list(dict.fromkeys(name for part in found for name in part.ranked))
    names = [name for name in registry.ladder({n for part in found for n in part.surrogates}) if name != COUNTS]
    rank = {name: order.index(name) if name in order else len(order) + names.index(name) for name in names}
    models = list(dict.fromkeys(part.model for part in found))
    lead = Leading(("model",), [(model,) for model in models])
    held_out = among(rows, "split", "held_out") & among(rows, "metric", "kl", "explained", "sink_share")
    seen = Observed(rows[held_out & rows["strategy"].notna() & rows["layer"].notna()])
    figures = dict(seen.cells(("model", "layer", "metric", "surrogate")))
    layers = dict.fromkeys((str(key[0]), int(str(key[1]))) for key in figures)
    body: list[list[Cell]] = []
    for model, layer in sorted(layers, key=lambda place: (models.index(place[0]), place[1])):
        kl, sink = (figures.get((model, layer, *what)) for what in (("kl", COUNTS), ("sink_share", MODEL)))
        cells: list[Cell] = [None if one is None else one.value for one in (kl, sink)]
        for name in names:
            sample = figures.get((model, layer, "explained", name))
            cells.append(None if sample is None else sample.interval())
        body.append([*lead.cells((model,)), layer, *cells])
    return Table(
        "heads.by-layer",
        f"What surrogates explain of each layer of {lead.same}",
        [
            *lead.columns,
            Column("layer"),
            Column("kl of counts", "nats", priority=1),
            Column("sink", "share", priority=1),
            *(Column(name, priority=2 + rank[name] if rank[name] else 0) for name in names),
        ],
        body,
        f"Shares explained, all strategies together: 1 - KL / KL(counts) over the heads of the layer. {BOOTSTRAP}.",
    )


def ranking(found: list[Part], heads: dict[tuple[str, str], list[Head]]) -> Table:
    """The heads that their best surrogate explains most and least.

    Args:
        found: models and strategies.
        heads: of each.
    """
    lead = leading(found)
    scores = [name for name in SCORES if any(name in head.scores for of in heads.values() for head in of)]
    body: list[list[Cell]] = []
    left = 0
    for part in found:
        value = {head.name: -np.inf if head.most.value is None else head.most.value for head in heads[part.key]}
        order = sorted(heads[part.key], key=lambda head: (-value[head.name], head.layer, head.head))
        shown = list(enumerate(order, start=1))
        if len(order) > FIRST + LAST:
            shown = shown[:FIRST] + shown[-LAST:]
        left = max(left, len(order) - len(shown))
        for place, head in shown:
            best, second = [*head.ranked[:2], None, None][:2]
            share = None if second is None else head.explained[second].value
            most = None if best is None else head.most
            known = [head.score(name) for name in scores]
            body.append([*lead.cells(part.key), place, head.name, head.kind, best, most, second, share, *known])
    gone = f"; up to {left} heads in the middle are left out" if left else ""
    return Table(
        "heads.ranking",
        f"Heads of {lead.same}, by what their best surrogate explains",
        [
            *lead.columns,
            Column("rank"),
            Column("head", left=True),
            Column("kind", left=True, priority=1),
            Column("best", left=True),
            Column("explained", "share"),
            Column("second", left=True, priority=2),
            Column("by second", "share", priority=2),
            *(Column(LABELS[name], "share", priority=3 + place) for place, name in enumerate(scores)),
        ],
        body,
        f"{_about(found)}{gone}. Heads are written layer.head. The best of several surrogates is a little flattered by "
        "the choice; controls are not ranked. Last columns: attention on the first position (sink) and scores of "
        f"patterns. {BOOTSTRAP}.",
    )


def _by_kind(rows: pd.DataFrame, found: list[Part], heads: dict[tuple[str, str], list[Head]]) -> Table:
    """What each surrogate explains of the heads of each kind, median over heads, and how often it is best."""
    lead = leading(found)
    body: list[list[Cell]] = []
    for part in found:
        names = [name for name in part.surrogates if name != COUNTS]
        for kind in KINDS:
            own = [head for head in heads[part.key] if head.kind == kind]
            for name in names if own else ():
                median = part.median_of((name, head.layer, head.head) for head in own)
                best = None if name in registry.controls() else sum(head.best == name for head in own)
                body.append([*lead.cells(part.key), kind, len(own), name, median, best])
    return Table(
        "heads.by-kind",
        f"What surrogates explain of each kind of heads of {lead.same}",
        [
            *lead.columns,
            Column("kind", left=True),
            Column("heads"),
            Column("surrogate", left=True),
            Column("median head", "share"),
            Column("best in", "heads", priority=1),
        ],
        body,
        "previous-token, induction and duplicate-token heads give at least "
        f"{THRESHOLD:g} of their attention to that pattern (even attention would give{_even(rows)}), sink heads at "
        f"least {SINK:g} to the first position; of the others, attention differs from text to text in content heads "
        f"(content_score at least {CONTENT:g}) and depends on positions in position heads. Definitions and sources: "
        f"harness/measures/head_patterns.py. Controls are never best. {BOOTSTRAP}, of the median head too.",
    )


def _even(rows: pd.DataFrame) -> str:
    """The scores of patterns where attention is in proportion to counts, for a caption."""
    even = rows[among(rows, "surrogate", COUNTS) & among(rows, "metric", *PATTERNS)]
    found = {str(key[0]): sample.value for key, sample in Observed(even).cells(("metric",))}
    return ",".join(f" {PATTERNS[name]} {value:.2g}" for name in PATTERNS if (value := found.get(name)) is not None)


def shrinkage_tables(rows: pd.DataFrame) -> list[Table]:
    """One table about the fits of all models; none where no fit was run beside what it is shrunk to."""
    models = [str(model) for model in rows["model"].dropna().unique()]
    lead = Leading(("model",), [(model,) for model in models])
    body: list[list[Cell]] = []
    for model in models:
        for fit, s in shrinkages(rows)[model].items():
            counts: list[Cell] = [s.heads, s.worse, s.significant]
            worst = f"{s.head[0]}.{s.head[1]}"
            found: list[Cell] = [worst, s.difference, smallest_difference(s.difference), s.verdict]
            body.append([*lead.cells((model,)), fit, s.prior, *counts, *found])
    if not body:
        return []
    return [
        Table(
            "heads.shrinkage",
            f"Heads of {lead.same}: is any fit worse than what it is shrunk to?",
            [
                *lead.columns,
                Column("fit", left=True),
                Column("shrunk to", left=True),
                Column("heads", priority=1),
                Column("worse"),
                Column("beyond chance"),
                Column("worst head", left=True, priority=2),
                Column("fit - prior there", "nats", priority=2, signed=True),
                Column("findable", "nats", priority=3),
                Column("verdict", left=True),
            ],
            body,
            "KL on held-out prompts, all strategies together. worse: heads whose mean KL is larger with the fit. "
            "Beyond chance: a sign-flip test over prompts, p <= .05 after Holm's correction for all heads. The "
            f"interval of the worst head: 95 %, bootstrap over prompts, not corrected. {FINDABLE}.",
        )
    ]
