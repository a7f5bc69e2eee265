"""The table of the count ablation: repetition and loss under every condition, and penalties at the same loss."""

from __future__ import annotations

import json
from itertools import pairwise

import pandas as pd

from harness.core.format import interval
from harness.core.records import Interval
from harness.experiments._shared.tables import SEED, Table, _by, _mean, _per_prompt, _pick
from harness.stats.intervals import paired_difference

NONE = json.dumps({"ablation": "none"})
MEASURES = ("seq_rep_4", "loop_share", "winner_size", "loss_prose", "loss_model_text")


def change(part: pd.DataFrame, condition: str, metric: str) -> Interval:
    """Mean of condition - nothing done, paired by prompt."""
    a = _per_prompt(_pick(part, condition=condition, metric=metric))
    b = _per_prompt(_pick(part, condition=NONE, metric=metric))
    common = a.index.intersection(b.index)
    if len(common) == 0:
        return Interval(None, None, None, 0, "no prompt where both are defined")
    return paired_difference(a.loc[common].to_numpy(dtype=float), b.loc[common].to_numpy(dtype=float), SEED)


def loss_change(part: pd.DataFrame, condition: str, metric: str) -> str:
    """The change of a loss; where it is infinite for some texts, how many: a mean of the others would flatter."""
    texts = _pick(part, condition=condition, metric=metric)
    infinite = int(texts["value"].isna().sum())
    if infinite:
        return f"infinite in {infinite} of {len(texts)}"
    return interval(change(part, condition, metric), signed=True)


def name(condition: str) -> str:
    """A condition in words."""
    factors = json.loads(condition)
    if "ablation" not in factors:
        key, value = next(iter(factors.items()))
        return f"{key} {value:g}"
    if factors["ablation"] == "none":
        return "nothing"
    where = {"all": "all heads", "first-half": "first half of the layers", "second-half": "second half of the layers"}
    place = where.get(factors["ablation"], factors["ablation"].replace("-", " "))
    draw = f", draw {factors['draw'] + 1}" if "draw" in factors else ""
    return f"count x {factors['strength']:g}, {place}{draw}"


def less_penalty(part: pd.DataFrame, condition: str, metric: str) -> Interval:
    """Mean of condition - repetition_penalty where that costs as much on prose, paired by prompt.

    Between the two penalties (or none) whose losses enclose that of the condition, each prompt's measure is
    interpolated with the share that the mean losses give; beyond the penalties that were measured there is no answer.
    """
    wanted = change(part, condition, "loss_prose").value
    penalties = [other for other in _by(part, "condition") if "repetition_penalty" in json.loads(other)]
    losses = {NONE: 0.0, **{other: change(part, other, "loss_prose").value for other in penalties}}
    known = sorted((loss, other) for other, loss in losses.items() if loss is not None)
    enclosing = [
        (low, high) for low, high in pairwise(known) if wanted is not None and low[0] <= wanted <= high[0] > low[0]
    ]
    if wanted is None or not enclosing:
        return Interval(None, None, None, 0, "no penalty that was measured costs as much")
    (low, cheaper), (high, dearer) = enclosing[0]
    share = (wanted - low) / (high - low)
    own, a, b = (_per_prompt(_pick(part, condition=c, metric=metric)) for c in (condition, cheaper, dearer))
    common = own.index.intersection(a.index).intersection(b.index)
    if len(common) == 0:
        return Interval(None, None, None, 0, "no prompt where all are defined")
    matched = (1 - share) * a.loc[common].to_numpy(dtype=float) + share * b.loc[common].to_numpy(dtype=float)
    return paired_difference(own.loc[common].to_numpy(dtype=float), matched, SEED)


def contrast(part: pd.DataFrame, one: str, other: str, metric: str) -> Interval:
    """Mean of one part of the model less another that lost the count, paired by prompt; draws are averaged.

    Args:
        part: rows of one model.
        one: `ablation` of the conditions, such as `best-heads`.
        other: of those that it is compared with.
        metric: a measure or a loss.
    """
    chosen = _pick(part, metric=metric)
    chosen = chosen[chosen["value"].notna()]
    done = chosen["condition"].map(lambda condition: json.loads(condition).get("ablation"))
    a, b = (chosen[done == which].groupby("prompt")["value"].mean().astype(float) for which in (one, other))
    common = a.index.intersection(b.index)
    if len(common) == 0:
        return Interval(None, None, None, 0, "no prompt where both are defined")
    return paired_difference(a.loc[common].to_numpy(), b.loc[common].to_numpy(), SEED)


def _place_table(part: pd.DataFrame, model: str) -> Table:
    """Does it matter where the count is taken away?"""
    body = []
    for one, other in (("first-half", "second-half"), ("best-heads", "random-heads")):
        cells = [interval(contrast(part, one, other, metric), signed=True) for metric in MEASURES]
        body.append([f"{one.replace('-', ' ')} less {other.replace('-', ' ')}", *cells])
    return Table(
        f"Where does {model} need the count? One part of it without, less another",
        ["without the count", "seq_rep_4", "loop_share", "winner_size", "loss on prose", "loss on its text"],
        body,
        "Halves of the layers; as many heads whose chains predict the training texts best as random ones, whose draws "
        "are averaged. Paired by prompt or text; intervals: 95 %, bootstrap over them.",
    )


def ablation_tables(rows: pd.DataFrame) -> list[Table]:
    """Two tables per model; none where the experiment was not done."""
    rows = _pick(rows, experiment="count-ablation", split="held_out")
    tables = []
    for model in _by(rows, "model"):
        part = _pick(rows, model=model)
        body = []
        for condition in _by(part, "condition"):
            chosen = _pick(part, condition=condition)
            cells = [interval(_mean(_pick(chosen, metric=m))) for m in MEASURES[:3]]
            if condition == NONE:
                cells.insert(1, "–")
                losses = [interval(_mean(_pick(chosen, metric=m))) for m in MEASURES[3:]]
                body.append([name(condition), *cells, *losses, "–"])
                continue
            cells.insert(1, interval(change(part, condition, "seq_rep_4"), signed=True))
            cells += [loss_change(part, condition, m) for m in MEASURES[3:]]
            ablated = "ablation" in json.loads(condition)
            cells.append(interval(less_penalty(part, condition, "seq_rep_4"), signed=True) if ablated else "–")
            body.append([name(condition), *cells])
        prompts = _pick(part, metric="seq_rep_4")["prompt"].nunique()
        prose = _pick(part, metric="loss_prose")["prompt"].nunique()
        tables.append(
            Table(
                f"Does the count cause the repetition of {model}? Greedy decoding without it",
                [
                    "taken away", "seq_rep_4", "change", "loop_share", "winner_size", "loss on prose",
                    "loss on its text", "seq_rep_4 less that of repetition_penalty at the same loss",
                ],
                body,
                "count x s: s log(count of a token so far) is taken from the attention scores of its positions. "
                f"{prompts} held-out prompts; loss: nats per token, of {prose} texts of prose and of the model's own "
                "continuations at temperature 1; below the first row losses are changes, paired by text; infinite "
                "where a penalty forbids a written token. Last column: paired by prompt, interpolated between the "
                "penalties that were measured to the same loss on prose, – beyond them. Intervals: 95 %, "
                "bootstrap over prompts or texts.",
            )
        )  # fmt: skip
        tables.append(_place_table(part, model))
    return tables
