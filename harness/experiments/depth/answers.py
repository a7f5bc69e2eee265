"""What `depth` answers: does a chain explain less of deeper models, what explains them, and is it the rounding?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Answer, Interval
from harness.core.rows import MODEL, with_factors
from harness.experiments._shared.claims import POOLED
from harness.experiments._shared.claims_words import Comparison, answer, comparisons, counted, picked
from harness.experiments.depth.names import FLOAT
from harness.experiments.depth.tables import cell, models_of
from harness.stats.contest import beyond_chance
from harness.stats.intervals import FEWEST_UNITS, too_few
from harness.stats.pooling import SEED
from harness.stats.significance import sign_flip_p

DEPTH = "Does a fitted chain explain less of deeper models?"
INSTEAD = "What explains the deepest models best?"
LEARNED = "Did the models learn what there is to learn, and nothing by heart?"
ROUNDING = "Does rounding of the weights change what chains explain?"
WORDS = {"none": "without positions", "rotary": "with rotary positions", "learned": "with learned positions"}


def answers(rows: pd.DataFrame) -> list[Answer]:
    """Depth, what is best at the end of it, training, and rounding.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    if not found:
        return [answer(DEPTH, [], [])]
    made = [*_depth(rows, found), *_instead(found), _learned(found)]
    return [*made, *_rounding(rows, found)]


def _open(n: int, question: str, said: list[str], estimate: Interval | None) -> Answer:
    """An answer, which says so where there are too few repetitions for an interval."""
    few = n < FEWEST_UNITS
    text = [f"Not answered: {too_few(n)}."] if few else []
    return Answer(question, " ".join([*text, *said]), estimate, not few)


def _explained(rows: pd.DataFrame, surrogate: str) -> pd.DataFrame:
    """Explained shares by repetition, one column per (positions, layers, weights)."""
    frame = with_factors(rows[(rows["split"] != POOLED) & rows["value"].notna()])
    of = frame[(frame["metric"] == "explained") & (frame["surrogate"] == surrogate)]
    keys = ["at_positions", "at_layers", "at_weights"]
    return of.assign(value=of["value"].astype(float)).pivot_table("value", "seed", keys, sort=False)


def _depth(rows: pd.DataFrame, found: Sequence[Comparison]) -> list[Answer]:
    """One answer per kind of positions: the curve, and its change from the first depth to the last."""
    every, made = models_of(found), []
    kinds = list(dict.fromkeys(positions for positions, _ in every))
    shares = _explained(rows, "ccmc-fit")
    depths = {kind: [layers for positions, layers in every if positions == kind] for kind in kinds}
    tested = [kind for kind in kinds if len(depths[kind]) > 1]
    p = []
    for kind in tested:
        gap = (shares[kind, depths[kind][-1], FLOAT] - shares[kind, depths[kind][0], FLOAT]).dropna()
        p.append(1.0 if gap.empty else sign_flip_p(gap, SEED))
    told = dict(zip(tested, beyond_chance(p), strict=True))
    for kind in tested:
        first, *_, last = depths[kind]
        at = [cell(found, "explained", "ccmc-fit", positions=kind, layers=n, weights=FLOAT) for n in depths[kind]]
        curve = ", ".join(f"{interval(one)} ({n})" for n, one in zip(depths[kind], at, strict=True) if one is not None)
        change = picked(found, "depth_change", surrogate="ccmc-fit", positions=kind, layers=last)
        said = [f"{WORDS[kind][0].upper()}{WORDS[kind][1:]}, ccmc-fit explains by layers: {curve}."]
        estimate = change[0].found if change else None
        if estimate is not None:
            said.append(_change(estimate, first, last, told[kind], len(tested)))
        made.append(_open(0 if estimate is None else estimate.n, DEPTH, said, estimate))
    return made


def _change(found: Interval, first: int, last: int, told: bool, tests: int) -> str:
    """The change from the first depth to the last in words."""
    what = f"from {first} to {counted(last, 'layer')} {interval(found, signed=True)}"
    if found.low is None or found.high is None:
        return f"Change {what}."
    if found.low <= 0 <= found.high:
        return f"No change was found {what}."
    if not told:
        return f"Change {what}, not beyond chance after Holm's correction for {counted(tests, 'test')}."
    return f"It explains {'less' if (found.value or 0.0) < 0 else 'more'}, {what}."


def _instead(found: Sequence[Comparison]) -> list[Answer]:
    """The surrogate with the largest explained share of the deepest models, beside ccmc-fit."""
    made = []
    for kind in dict.fromkeys(positions for positions, _ in models_of(found)):
        last = max(layers for positions, layers in models_of(found) if positions == kind)
        here = {"positions": kind, "layers": last, "weights": FLOAT}
        own = {
            str(one.surrogate): one.found for one in picked(found, "explained", **here) if one.found.value is not None
        }
        if not own:
            continue
        best = max(own, key=lambda name: own[name].value or -np.inf)
        kl = cell(found, "kl", best, **here)
        text = f"{counted(last, 'layer').capitalize()} {WORDS[kind]}: {best} explains most, {interval(own[best])}"
        text += f" (KL {interval(kl)} nats)" if kl is not None else ""
        made.append(_open(own[best].n, INSTEAD, [f"{text}."], own[best]))
    return made


def _learned(found: Sequence[Comparison]) -> Answer:
    """Tokens, losses above the best predictor, early stopping, and what was memorised."""
    losses = [one.found for one in picked(found, "loss_above_best", surrogate=MODEL, weights=FLOAT)]
    gaps = [one.found for one in picked(found, "loss_off_training", surrogate=MODEL, weights=FLOAT)]
    tokens = [one.found.value or 0.0 for one in picked(found, "training_tokens", surrogate=MODEL, weights=FLOAT)]
    stopped = [one.found.value or 0.0 for one in picked(found, "stopped_early", surrogate=MODEL, weights=FLOAT)]
    above = [one.value for one in losses if one.value is not None]
    off = [one.value for one in gaps if one.value is not None]
    said = [
        f"Held-out loss is {number(min(above))} to {number(max(above))} nats above the best predictor's.",
        f"Held-out less training loss: {number(min(off))} to {number(max(off))} nats.",
        f"{np.mean(tokens):,.0f} tokens, each seen once; held-out loss ended {100 * np.mean(stopped):.0f} % "
        "of trainings.",
    ]
    return Answer(LEARNED, " ".join(said), losses[0])


def _rounding(rows: pd.DataFrame, found: Sequence[Comparison]) -> list[Answer]:
    """The largest change of what ccmc-fit explains, over the models; none without rounded copies."""
    changes = picked(found, "rounded_change", surrogate="ccmc-fit")
    if not changes:
        return []
    shares = _explained(rows, "ccmc-fit")
    p = []
    for one in changes:
        place = one.factors["positions"], one.factors["layers"]
        gap = (shares[*place, one.factors["weights"]] - shares[*place, FLOAT]).dropna()
        p.append(1.0 if gap.empty else sign_flip_p(gap, SEED))
    told = beyond_chance(p)
    largest = max(changes, key=lambda one: abs(one.found.value or 0.0))
    where = f"{counted(int(largest.factors['layers']), 'layer')} {WORDS[str(largest.factors['positions'])]}"
    said = [
        f"To {largest.factors['weights']}: the largest change of the share that ccmc-fit explains is "
        f"{interval(largest.found, signed=True)} ({where}).",
        f"{sum(told)} of {counted(len(changes), 'model')} change beyond chance.",
    ]
    return [_open(largest.found.n, ROUNDING, said, largest.found)]
