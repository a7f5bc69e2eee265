"""What a run of `ccmc explain` says about a model in four sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.core.format import interval, percent
from harness.core.rows import MODEL
from harness.experiments.heads import parts as heads
from harness.experiments.in_the_loop import parts as loop
from harness.experiments.repetition import onset_table
from harness.experiments.repetition.parts import parts as repetition_parts
from harness.measures.loops import find_loop
from harness.stats.grouped import group_mean

NATS = 0.05
"""A loss per token that hardly shows."""
SHOWN = 60
"""Signs of a loop that are shown."""
STRATEGY = "temperature=1"
"""Texts on which heads are judged: those that decoding leaves as they are."""


def sentences(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[str]:
    """What share of attention is a chain, how many heads can be one, where repetition sets in, and what a loop is.

    Args:
        rows, trajectories: of a run of heads, in-the-loop and repetition; what is missing is not said.
    """
    said = [_heads(rows), _replaced(rows), _onset(rows), _loops(trajectories)]
    return [one for one in said if one]


def _heads(rows: pd.DataFrame) -> str:
    own = rows[rows["experiment"] == "heads"]
    found = [one for one in (heads.parts(own) if len(own) else []) if one.strategy == STRATEGY]
    shares = [(name, part.sample("explained", name)) for part in found for name in part.ranked[:1]]
    return " ".join(
        f"Attention: its heads are {percent(sample.interval())} chains: so much of it {name} explains."
        for name, sample in shares
    )


def _replaced(rows: pd.DataFrame) -> str:
    own = rows[rows["experiment"] == "in-the-loop"]
    found = loop.parts(own) if len(own) else []
    part = next((one for one in found if one.strategy == STRATEGY), None)
    if part is None or not part.leaders:
        return ""
    sets = part.best(part.leaders[0])
    cheap = [(one, part.mean(loop.LOST, one.order, one.condition)) for one in sets]
    fitting = [(one, lost) for one, lost in cheap if lost.value is not None and lost.value <= NATS]
    total = max((one.heads for one in sets), default=0)
    if not fitting:
        least = cheap[0] if cheap else None
        known = "" if least is None else f": {least[0].heads} cost {interval(least[1])}"
        return f"Heads: none of the sizes tried can be replaced by chains at {NATS:g} nats per token{known}."
    one, lost = max(fitting, key=lambda pair: pair[0].heads)
    return (
        f"Heads: {one.heads} of {total} outside layer 0 that were read can be replaced by chains at {NATS:g} "
        f"nats per token (they cost {interval(lost)})."
    )


def _onset(rows: pd.DataFrame) -> str:
    own = rows[rows["experiment"] == "repetition"]
    swept = onset_table.sweeps(repetition_parts(own)) if len(own) else []
    if not swept:
        return ""
    one = swept[0]
    found, greedy = one.onset(one.real), next(iter(one.at.values())).interval(onset_table.METRIC, one.real)
    if found.value is None:
        return f"Repetition: seq_rep_4 is {interval(greedy)} when greedy, and {found.missing}."
    return (
        f"Repetition: it starts to loop at T <= {interval(found)}, where seq_rep_4 reaches half of its greedy value, "
        f"{interval(greedy)}."
    )


def _loops(trajectories: pd.DataFrame) -> str:
    """How greedy loops are, with the end of a text as an example; signs are made visible where it is shown."""
    if trajectories.empty:
        return ""
    own = trajectories[
        (trajectories["experiment"] == "continuations")
        & (trajectories["strategy"] == "greedy")
        & (trajectories["source"] == MODEL)
    ].drop_duplicates("prompt")
    found = [find_loop(np.asarray(tokens)) for tokens in own["continuation"]]
    looping = [(one, text) for one, text in zip(found, own["text"], strict=True) if one is not None]
    if not looping:
        return f"Loops: none in {len(found)} greedy continuations."
    groups = own["group"].fillna(own["prompt"]).to_numpy()
    share = group_mean([float(one is not None) for one in found], groups).interval()
    period = float(np.median([one.period for one, _ in looping]))
    onset = float(np.median([one.onset for one, _ in looping]))
    _, text = min(looping, key=lambda pair: pair[0].onset)
    return (
        f"Loops: {percent(share)} of {len(found)} greedy continuations end in one, after {onset:g} tokens and with a "
        f"period of {period:g} in the median; the earliest ends so: {str(text)[-SHOWN:]!r}."
    )
