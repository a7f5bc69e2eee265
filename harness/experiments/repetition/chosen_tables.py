"""Tables of the chosen rung: does it repeat as the model does, does it beat its rivals, and how was it chosen?"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.core.lazy import LazyRows
from harness.core.records import Cell, Column, Interval, Table
from harness.core.rows import MODEL
from harness.experiments._shared.leading import Leading, counted
from harness.experiments.repetition.choosing import RULE
from harness.experiments.repetition.chosen import ABOVE, BELOW, short_rung
from harness.experiments.repetition.margins import MARGINS
from harness.experiments.repetition.parts import DIFFERENCES, FIXED, MEANS, Paired, Part, by_model, paired, prompts_of
from harness.experiments.repetition.sources import CONSTANT, DECODED, LOGIT, NEVER, TRAINING_ENERGY
from harness.stats.contest import beyond_chance
from harness.stats.equivalence import ALPHA, judged_together
from harness.stats.grouped import group_mean
from harness.stats.pooling import Observed, Sample
from harness.stats.power import FINDABLE, smallest_difference

RIVALS = {
    NEVER: FIXED[NEVER],
    CONSTANT: FIXED[CONSTANT],
    BELOW: "the rung below",
    ABOVE: "the rung above",
}
"""What the energy score of the chosen rung is compared with -> its name."""
READ = ("choice_energy", "choice_loss", "choice_p")
"""Metrics of what the rule read, fold by fold."""


def rival(part: Part, name: str) -> Paired:
    """Energy scores of the chosen rung and of a rival, prompt by prompt."""
    other = part.rung(name) if name in (BELOW, ABOVE) else part.fixed(name)
    return paired(*(part.sample("energy_score", one) for one in (part.shown or other, other)))


def chosen_table(found: Sequence[Part]) -> Table:
    """One line per model, strategy and measure: walks of the chosen rung against the model.

    Args:
        found: parts of which every model has a chosen rung.
    """
    shown = [(part, source) for part in found if (source := part.shown) is not None]
    lead = Leading(("model", "strategy"), [(part.model, part.strategy) for part, _ in shown])

    def body() -> list[list[Cell]]:
        places = [(part, source, measure) for part, source in shown for measure in MARGINS]
        every = judged_together([part.verdict(measure, source) for part, source, measure in places])
        made: list[list[Cell]] = []
        for (part, source, measure), one in zip(places, every, strict=True):
            first = [*lead.cells((part.model, part.strategy)), measure]
            means = [part.sample(measure, of).value for of in (source, part.fixed(MODEL))]
            tested = one.interval.value is not None
            made.append([*first, *means, one.interval, one.margin, one.word if tested else None, one.findable])
        return made

    return Table(
        "repetition.chosen",
        f"Does the chosen rung of {LOGIT} repeat as the model does? {lead.same}",
        [
            *lead.columns,
            Column("measure", left=True),
            Column("walks", priority=2),
            Column("model's", priority=3),
            Column("walks - model", signed=True),
            Column("margin", priority=1),
            Column("verdict", left=True),
            Column("findable", priority=4),
        ],
        LazyRows(body),
        f"{prompts_of(found)}; walks of the {DECODED} law. {chosen_words(found)} verdict: agrees within the margin, "
        "differs, or undecided, at 5 % after Holm's correction over the table. loop_onset and loop_period: tokens, of "
        f"prompts where both a walk and the model end in a loop. {DIFFERENCES} {FINDABLE}.",
    )


def chosen_words(found: Sequence[Part]) -> str:
    """The rule, and which rungs it chose."""
    of = {model: own[0].choice for model, own in by_model(found).items()}
    said = {model: one for model, one in of.items() if one is not None}
    names = [f"{model}: {one.words}" if len(said) > 1 else one.words for model, one in said.items()]
    low, high = min(one.prompts[0] for one in said.values()), max(one.prompts[1] for one in said.values())
    return f"Rung of the ladder: {RULE}. By {counted([low, high], 'training prompt')} in each fold: {'; '.join(names)}."


def rivals_table(found: Sequence[Part]) -> Table:
    """One line per model, strategy and rival: is the energy score of the chosen rung less?

    Args:
        found: parts of which every model has a chosen rung.
    """
    places = [(part, name, both) for part in found for name in RIVALS if (both := rival(part, name)).n]
    lead = Leading(("model", "strategy"), [(part.model, part.strategy) for part in found])

    def body() -> list[list[Cell]]:
        means = [both.mean() for _, _, both in places]
        clear = beyond_chance([mean.p() for mean in means])
        made: list[list[Cell]] = []
        for (part, name, both), mean, beyond in zip(places, means, clear, strict=True):
            own, other = both.values.mean(axis=1).tolist()
            gap = mean.interval()
            word = "undecided" if not beyond else "better" if (gap.value or 0.0) < 0 else "worse"
            first = [*lead.cells((part.model, part.strategy)), RIVALS[name]]
            made.append([*first, own, other, gap, word, smallest_difference(gap)])
        return made

    return Table(
        "repetition.rivals",
        f"Is the energy score of the chosen rung of {LOGIT} better? {lead.same}",
        [
            *lead.columns,
            Column("against", left=True),
            Column("chosen", priority=1),
            Column("other", priority=2),
            Column("chosen - other", signed=True),
            Column("verdict", left=True),
            Column("findable", priority=3),
        ],
        LazyRows(body),
        f"{prompts_of(found)}. Less is better. verdict: at 5 % after Holm's correction over the table. The rungs below "
        "and above are those of each fold's choice; prompts of a fold that chose the first or last rung have none. "
        f"{DIFFERENCES} {FINDABLE}.",
    )


def choice_table(rows: pd.DataFrame, found: Sequence[Part]) -> Table:
    """One line per model and rung: how often it was chosen, by what, and how it fares on judged prompts.

    Args:
        rows: of the experiment, from one run.
        found: parts of which every model has a chosen rung.
    """
    choices = {model: one for model, own in by_model(found).items() if (one := own[0].choice) is not None}
    lines = [(model, by_model(found)[model], rung) for model, one in choices.items() for rung in one.rungs]
    lead = Leading(("model",), [(model,) for model, _, _ in lines])
    facts = _facts(rows)
    seen = training_scores(rows)

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        for model, own, rung in lines:
            energy, loss, p = (facts.get((model, rung, name), []) for name in READ)
            above = sum(1 for one in p if one <= ALPHA)
            chosen = choices[model].counts.get(rung, 0)
            made.append([
                *lead.cells((model,)), short_rung(rung), chosen, float(np.mean(energy)), above, float(np.mean(loss)),
                _held_out(own, rung), _seen_less_unseen(seen, own, rung),
            ])  # fmt: skip
        return made

    return Table(
        "repetition.choice",
        f"How the rung of {LOGIT} was chosen: {lead.same}",
        [
            *lead.columns,
            Column("rung", left=True),
            Column("chosen", "folds"),
            Column("energy, training"),
            Column("above it", "folds", priority=2),
            Column("log loss", "nats", priority=3),
            Column("energy, judged", priority=1),
            Column("seen - judged", signed=True, priority=4),
        ],
        LazyRows(body),
        f"{chosen_words(found)} energy, log loss: summed over strategies, means over folds. above it: folds in "
        "which a rung is significantly above the chosen one. energy, judged: of the same rung on held-out prompts, "
        "which chose nothing. seen - judged: what the energy score of a prompt gains from fits that saw its text, of "
        f"the prompts that were both walked from in training and judged. {MEANS} {DIFFERENCES}",
    )


def _facts(rows: pd.DataFrame) -> dict[tuple[str, str, str], list[float]]:
    """(model, rung, metric) -> values of the folds, of what the rule read."""
    found: dict[tuple[str, str, str], list[float]] = {}
    own = rows[rows["metric"].isin(READ) & rows["value"].notna()]
    for model, text, metric, value in zip(own["model"], own["condition"], own["metric"], own["value"], strict=True):
        found.setdefault((str(model), str(json.loads(text)["rung"]), str(metric)), []).append(float(value))
    return found


def training_scores(rows: pd.DataFrame) -> dict[tuple[str, str, str], Sample]:
    """(model, strategy, rung) -> energy scores of training prompts, means over the folds that walked from them."""
    own = rows[rows["metric"] == TRAINING_ENERGY]
    if own.empty:
        return {}
    cells = Observed(own).cells(("model", "strategy", "condition.rung"))
    return {(str(model), str(strategy), str(rung)): sample for (model, strategy, rung), sample in cells}


def _held_out(own: Sequence[Part], rung: str) -> Interval:
    """Energy score of a rung on judged prompts, summed over strategies."""
    every = paired(*(part.sample("energy_score", part.rung(rung)) for part in own))
    return group_mean(every.values.sum(axis=0), every.groups).interval()


def _seen_less_unseen(seen: dict[tuple[str, str, str], Sample], own: Sequence[Part], rung: str) -> Interval | None:
    """Energy score by fits that saw a prompt less that by the fit that did not, summed over strategies."""
    samples = [seen.get((part.model, part.strategy, rung)) for part in own]
    if any(one is None for one in samples):
        return None
    judged = [part.sample("energy_score", part.rung(rung)) for part in own]
    every = paired(*(one for one in samples if one is not None), *judged)
    gains = every.values[: len(own)].sum(axis=0) - every.values[len(own) :].sum(axis=0)
    return group_mean(gains, every.groups).interval()
