"""Tables of the experiment `one-layer`: equivalence, training, risk against theory, and who wins."""

from __future__ import annotations

import pandas as pd

from harness.core.records import Cell, Column, Table
from harness.core.rows import MODEL
from harness.experiments._shared.leading import counted
from harness.experiments.one_layer.parts import LABELS, WEIGHTS, Factors, Setting, settings

HEADLINE_ROWS = 12
BOOTSTRAP = "Intervals: 95 %, bootstrap over repetitions."
OVER = {"excess_risk": "teacher", "excess_risk_over_model": "trained model"}


def tables(rows: pd.DataFrame) -> list[Table]:
    """All tables of the experiment, the headline first.

    Args:
        rows: of the experiment, from one run.
    """
    found = settings(rows)
    if not found:
        return []
    made = [_risk(found, headline=True), _equivalence(found)]
    every = _risk(found, headline=False)
    if len(every.rows) > len(made[0].rows):
        made.append(every)
    if any(one.compared for one in found):
        made.append(_winners([one for one in found if one.compared]))
    return made


def _about(found: list[Setting], factors: Factors) -> str:
    """What does not vary, and the number of repetitions."""
    repetitions = counted([one.repetitions for one in found], "repetition")
    return f"{factors.same}. {repetitions}, each with its own teacher, data and embeddings."


def _risk(found: list[Setting], headline: bool) -> Table:
    """Excess risks beside their predictions; the headline holds at most twelve lines, most of them of a fit."""
    factors = Factors(found)
    lines = [(one, metric, name) for one in found for metric, name in one.risks]
    every = len(lines)
    if headline:
        if every > HEADLINE_ROWS:
            lines = [line for line in lines if line[1] == "excess_risk" and line[2] != WEIGHTS]
        lines = lines[:HEADLINE_ROWS]
    body: list[list[Cell]] = [
        [
            *factors.cells(one),
            LABELS.get(name, name),
            OVER[metric],
            one.interval(metric, name),
            one.predicted(metric, name),
            one.ratio(metric, name),
            one.verdict(metric, name),
        ]
        for one, metric, name in lines
    ]
    more = f" {len(body)} of {every} lines; all are in one-layer.risk." if len(body) < every else ""
    return Table(
        "one-layer.summary" if headline else "one-layer.risk",
        "One-layer attention model: excess risk, measured and predicted",
        [
            *(Column(name) for name in factors.names),
            Column("of", left=True),
            Column("over", left=True, priority=2),
            Column("excess risk", "nats"),
            Column("predicted", "nats"),
            Column("ratio", priority=1),
            Column("verdict", left=True),
        ],
        body,
        f"{_about(found, factors)} Risk: KL per token on held-out prompts. Predicted: K(K-1)/(2n); twice that for the "
        "fit against the teacher, as its data are n samples of the trained model. The prediction agrees where it is "
        f"inside the interval. {BOOTSTRAP}{more}",
        headline=headline,
    )


def _equivalence(found: list[Setting]) -> Table:
    """How far training stayed from its optimum, and the model from the chain read off its weights."""
    factors = Factors(found)
    body: list[list[Cell]] = []
    for one in found:
        verdicts = one.of("equivalence_error", WEIGHTS)["verdict"].dropna()
        claim = next((text for text in verdicts.unique() if text != "holds"), "holds" if len(verdicts) else None)
        gap, error = one.largest("training_gap", MODEL), one.largest("equivalence_error", WEIGHTS)
        lost = one.sample("lost_mass", MODEL).value
        body.append([*factors.cells(one), one.repetitions, gap, error, lost, claim])
    return Table(
        "one-layer.equivalence",
        "One-layer attention model: training, and the chain read off the weights",
        [
            *(Column(name) for name in factors.names),
            Column("repetitions", priority=1),
            Column("training gap", "nats"),
            Column("equivalence error"),
            Column("lost mass", priority=2),
            Column("equivalence", left=True),
        ],
        body,
        f"{_about(found, factors)} Largest of the repetitions. Training gap: per observation, between the trained "
        "model and the maximum likelihood of its data. Equivalence error: difference of a next-token probability "
        "between the trained model and the chain read off its weights (float64). Lost mass: probability outside the "
        "context or below 0, mean.",
    )


def _winners(found: list[Setting]) -> Table:
    """Whose continuations have the winners of the trained model's."""
    factors = Factors(found)
    body: list[list[Cell]] = []
    for one in found:
        body.append([*factors.cells(one), LABELS[MODEL], None, one.sample("winner_size", MODEL).value, None])
        for name in one.compared:
            overlap, area = one.interval("winner_jaccard", name), one.interval("dominance_area", name)
            size = one.sample("winner_size", name).value
            body.append([*factors.cells(one), LABELS.get(name, name), overlap, size, area])
    prompts = [one.rows["prompt"].dropna().nunique() for one in found]
    return Table(
        "one-layer.winners",
        "One-layer attention model: which tokens win",
        [
            *(Column(name) for name in factors.names),
            Column("surrogate", left=True),
            Column("winner_jaccard"),
            Column("winners", "tokens", priority=1),
            Column("dominance_area", priority=2),
        ],
        body,
        f"{_about(found, factors)} {counted(prompts, 'prompt')}, continued by model and surrogate; pairs of seeds are "
        f"averaged within a prompt, prompts within a repetition. {BOOTSTRAP}",
    )
