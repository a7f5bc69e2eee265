"""Tables of `theory-gap`: surrogates beyond the theory, the ladder model by model, verdicts, and every measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from harness.core import registry
from harness.core.records import Cell, Column, Interval, Table
from harness.core.rows import MODEL, RESEEDED, SHUFFLED
from harness.experiments._shared.claims_words import Comparison, claims_tables, comparisons
from harness.experiments._shared.parts import FRAME
from harness.experiments.theory_gap.ladder import BeyondTheory, is_open
from harness.stats.contest import clear

LABELS: dict[str, str] = {}
"""The claims name the models that they are about, so they stay as they are."""
NEW = "new_tokens"
CELLS = (
    ("explained, ccmc-weights", "explained", "ccmc-weights", 1),
    ("explained, ccmc-fit", "explained", "ccmc-fit", 0),
    ("explained, bigram-restricted", "explained", "bigram-restricted", 1),
    ("explained, in-context-bigram", "explained", "in-context-bigram", 3),
    ("winners, ccmc-fit", "winner_jaccard", "ccmc-fit", 0),
    ("winners, ccmc-open", "winner_jaccard", "ccmc-open", 3),
    ("winners, ceiling", "winner_jaccard", RESEEDED, 2),
    ("winners, floor", "winner_jaccard", SHUFFLED, 2),
    ("repeats, ccmc-fit", "rep_32", "ccmc-fit", 4),
    ("repeats, model", "rep_32", MODEL, 4),
    ("new, ccmc-open", NEW, "ccmc-open", 4),
    ("new, model", NEW, MODEL, 4),
)
"""Column, metric, surrogate and priority of the table with one line per model."""


def tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of the experiment, the headline first.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    if not found:
        return []
    claims = [replace(table, headline=False) for table in claims_tables(rows, LABELS)]
    return [surrogates(rows), models(found), *claims]


def surrogates(rows: pd.DataFrame) -> Table:
    """What each surrogate explains and whom it lets win, over the models beyond the tied one."""
    beyond = BeyondTheory(rows)
    ordered = registry.ladder(name for name in beyond.names() if name != MODEL and name not in FRAME)
    names = [*(name for name in FRAME if name in beyond.names()), *ordered]
    new = [data for data in beyond.data[-1:] if len(beyond.values(data, NEW, MODEL))]
    shown = [(data, "explained") for data in beyond.data] + [(data, "winner_jaccard") for data in beyond.data[-1:]]
    shown += [(data, NEW) for data in new]
    words = {"explained": "explained", "winner_jaccard": "winners", NEW: "new", "ccmc": "chain paths", "text": "text"}
    columns = [Column("surrogate", left=True), Column("models", priority=1), Column("context", left=True)]
    columns += [Column(f"{words[metric]}, {words.get(data, data)}") for data, metric in shown]
    names = [*([MODEL] if new else []), *names]
    body: list[list[Cell]] = []
    for name in names:
        cells = [beyond.found(data, metric, name) for data, metric in shown]
        models = None if name == MODEL else beyond.models_with(name)
        figures: list[Cell] = [None if one.value is None else one for one in cells[: len(shown) - len(new)]]
        figures += [one.value for one in cells[len(shown) - len(new) :]]
        body.append([FRAME.get(name, name), models, _law(name), *figures])
    wins = clear([beyond.leads(data, metric) if metric == "explained" else [] for data, metric in shown])
    marked = {
        (names.index(name), 3 + column)
        for column, (data, metric) in enumerate(shown)
        if wins[column]
        for name in beyond.best(data, metric)
    }
    caption = (
        f"Means over the {len(beyond.models)} models beyond the tied one, which alone the theory is about, with 95 % "
        "intervals, bootstrap over repetitions. Explained: share of KL(counts) on held-out sequences, at most 1; both "
        "sides are restricted to the context. Winners: overlap (Jaccard) of the winner sets of rollouts with the "
        "model's; the model with another seed is the ceiling, on other prompts the floor. Context: closed "
        "surrogates never write a token that the context does not hold, open ones may, as these models may. "
        + ("New: share of such tokens in rollouts (T = 1); 0 where closed. " if new else "")
        + "ccmc-weights: models of one layer and head without positions."
    )
    title = "theory-gap: surrogates of models that break the theory's assumptions"
    return Table(
        "theory-gap.surrogates",
        title,
        columns,
        body,
        caption,
        True,
        frozenset(marked),
        "explains more of all models than every other, p <= .05 after Holm's correction",
    )


def _law(name: str) -> str | None:
    """Whether a surrogate is open or closed, in words; the model and its continuations are neither."""
    found = None if name == MODEL or name in FRAME else is_open(name)
    return None if found is None else "open" if found else "closed"


def models(found: Sequence[Comparison]) -> Table:
    """The ladder of models, one line each, for both kinds of data."""
    cells: dict[tuple[str, str, str, str], Interval] = {}
    for one in found:
        if one.surrogate is not None and one.found.value is not None:
            place = str(one.factors["data"]), str(one.factors["rung"]), one.metric, one.surrogate
            cells[place] = one.found
    later = {cell[1:3] for cell in CELLS if NEW in cell or "ccmc-open" in cell}  # rows of older runs have none of these
    absent = later - {(metric, surrogate) for _, _, metric, surrogate in cells}
    shown = [cell for cell in CELLS if cell[1:3] not in absent]
    rungs = list(dict.fromkeys((str(one.factors["data"]), str(one.factors["rung"])) for one in found))
    body = [[*rung, *(cells.get((*rung, metric, surrogate)) for _, metric, surrogate, _ in shown)] for rung in rungs]
    columns = [Column("data", left=True), Column("model", left=True)]
    columns += [Column(name, priority=priority) for name, _, _, priority in shown]
    caption = (
        "Models trained on the same sequences, each a step further from the assumptions; means over repetitions with "
        "95 % intervals. Explained: share of KL(counts) on held-out sequences. Winners: overlap of the winner sets of "
        "rollouts with the model's; ceiling: the model with another seed; floor: the model on other prompts. Repeats: "
        "share of tokens among the 32 before. ccmc-weights, ccmc-fit, bigram-restricted and in-context-bigram are "
        "closed: they never leave the context, and neither does the tied model, by construction; the others can. "
        + ("ccmc-open may. New: share of tokens of rollouts that the context did not hold. " if later - absent else "")
        + "–: no single chain is in the weights."
    )
    return Table("theory-gap.models", "theory-gap: where the theory stops", columns, body, caption)
