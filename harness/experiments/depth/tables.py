"""Tables of `depth`: the family model by model, what rounding changes, and every measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from harness.core.records import Cell, Column, Interval, Table
from harness.core.rows import MODEL, RESEEDED
from harness.experiments._shared.claims_words import Comparison, claims_tables, comparisons, picked
from harness.experiments.depth.names import FLOAT

CELLS = (
    ("above the best", "nats", "loss_above_best", MODEL, 0),
    ("memorised", "nats", "loss_off_training", MODEL, 3),
    ("KL of counts", "nats", "kl", "counts", 2),
    ("KL of ccmc-fit", "nats", "kl", "ccmc-fit", 0),
    ("explained, ccmc-fit", "", "explained", "ccmc-fit", 0),
    ("explained, in-context-bigram", "", "explained", "in-context-bigram", 1),
    ("repeats, model", "", "seq_rep_4", MODEL, 2),
    ("repeats, ccmc-fit", "", "seq_rep_4", "ccmc-fit", 2),
    ("winners, ccmc-fit", "", "winner_jaccard", "ccmc-fit", 4),
    ("winners, ceiling", "", "winner_jaccard", RESEEDED, 4),
)
"""Column, unit, metric, surrogate and priority of the table with one line per model."""
ABOUT = (
    "Models of one family, trained on the same sequences, each of a chain of its own near one mean chain; means over "
    "repetitions with 95 % intervals. above the best: held-out loss less that of the best predictor, which knows how "
    "sequences are drawn. memorised: held-out loss less training loss, of sequences that were seen once. KL: from the "
    "model's next-token distribution, restricted to the context, to the surrogate's, on held-out sequences. explained: "
    "share of KL(counts). repeats: share of repeated 4-grams in continuations. winners: overlap of winner sets with "
    "the model's; ceiling: its other seed."
)


def cell(found: Sequence[Comparison], metric: str, surrogate: str, **place: object) -> Interval | None:
    """One measurement of a model; None where there is none."""
    return next((one.found for one in picked(found, metric, surrogate=surrogate, **place)), None)


def models_of(found: Sequence[Comparison]) -> list[tuple[str, int]]:
    """(positions, layers) of the family, in the order of the rows."""
    return list(dict.fromkeys((str(one.factors["positions"]), int(one.factors["layers"])) for one in found))


def tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of the experiment, the headline first.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    if not found:
        return []
    made = [_models(found)]
    if any(one.metric == "rounded_change" for one in found):
        made.append(_rounding(found))
    return [*made, *(replace(table, headline=False) for table in claims_tables(rows, {})[1:])]


def _models(found: Sequence[Comparison]) -> Table:
    body: list[list[Cell]] = []
    for positions, layers in models_of(found):
        place = {"positions": positions, "layers": layers, "weights": FLOAT}
        body.append([positions, layers, *(cell(found, metric, name, **place) for _, _, metric, name, _ in CELLS)])
    columns = [Column("positions", left=True), Column("layers")]
    columns += [Column(name, unit, priority=priority) for name, unit, _, _, priority in CELLS]
    return Table("depth.models", "depth: a chain against models of more layers", columns, body, ABOUT, headline=True)


def _rounding(found: Sequence[Comparison]) -> Table:
    body: list[list[Cell]] = []
    changes = [one for one in found if one.metric == "rounded_change" and one.surrogate != "counts"]
    for one in changes:
        place = {name: one.factors[name] for name in ("positions", "layers")}
        losses = [
            cell(found, "held_out_loss", MODEL, **place, weights=weights) for weights in (FLOAT, one.factors["weights"])
        ]
        of_model = cell(found, "explained", str(one.surrogate), **place, weights=FLOAT)
        body.append([place["positions"], place["layers"], str(one.surrogate), of_model, one.found, *losses])
    columns = [
        Column("positions", left=True),
        Column("layers"),
        Column("surrogate", left=True),
        Column("explained"),
        Column("change by rounding", signed=True),
        Column("held-out loss", "nats", priority=1),
        Column("rounded", "nats", priority=1),
    ]
    weights = changes[0].factors["weights"] if changes else ""
    caption = (
        f"Copies of the models whose matrices are rounded to {weights}, in blocks of 32 with a scale and an offset, as "
        "weights of language models are; surrogates are fitted anew to them. Changes are paired by repetition, with "
        "95 % intervals."
    )
    return Table("depth.rounding", "depth: what rounding of the weights changes", columns, body, caption)
