"""What forecasts along the model's own text are worth: Brier scores, how well they are calibrated, and skill."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harness.core.lazy import LazyRows
from harness.core.once import among, once
from harness.core.records import Answer, Cell, Column, Interval, Table
from harness.core.rows import MODEL, is_infinite
from harness.experiments._shared.leading import Leading
from harness.experiments._shared.sentences import with_unit
from harness.experiments.repetition.chosen import choices, with_chosen
from harness.experiments.repetition.parts import CALIBRATION, Part, one_law_note, paired, prompts_of, source_name
from harness.experiments.repetition.sources import BASE_RATE, BINS, LOGIT, POSITION, Source
from harness.stats.hazards import murphy, murphy_intervals
from harness.stats.intervals import Floats
from harness.stats.proper import skill

EVENTS = {
    "brier_reuse": "re-use",
    "brier_which": "which token",
    "brier_loop": "loop starts",
    "brier_leave": "loop is left",
}
"""Metric -> the event in tables."""
QUESTION = "Are the forecasts of re-use calibrated?"
CLOSE = 0.05  # a typical distance of forecast and share that would not matter
Sums = Mapping[tuple[str, str, Source], Floats]


@once
def calibrations(rows: pd.DataFrame) -> Sums:
    """(model, strategy, source) -> [groups, 3, bins] number of steps, sum of their forecasts, and number of events.

    Args:
        rows: of the experiment, from one run.
    """
    bins = rows[among(rows, "metric", *CALIBRATION)]
    bins = with_chosen(bins, choices(rows))
    bins = bins.assign(mass=bins["n"].astype(float) * bins["value"].astype(float), n=bins["n"].astype(float))
    keys = ["model", "strategy", "surrogate", "condition", "group", "metric"]
    added = bins.groupby(keys, sort=False)[["mass", "n"]].sum().reset_index()
    factors = {text: json.loads(text) for text in added["condition"].unique()}
    for name, usual in (("law", ""), ("rung", ""), ("bin", None)):
        added[name] = added["condition"].map({text: at.get(name, usual) for text, at in factors.items()})
    found: dict[tuple[str, str, Source], Floats] = {}
    for key, own in added.groupby(["model", "strategy", "surrogate", "law", "rung"], sort=False):
        model, strategy, surrogate, law, rung = map(str, key)
        groups, group = np.unique(own["group"].to_numpy(dtype=object), return_inverse=True)
        part = 1 + own["metric"].map(CALIBRATION.index).to_numpy(dtype=int)
        place, first = own["bin"].to_numpy(dtype=int), part == 1
        sums = np.zeros((len(groups), 3, BINS))
        np.add.at(sums, (group, part, place), own["mass"].to_numpy())
        np.add.at(sums, (group[first], 0, place[first]), own["n"].to_numpy()[first])
        found[model, strategy, Source(surrogate, law, rung)] = sums
    return found


def reliability(sums: Floats | None) -> Interval | None:
    """Mean squared distance of forecast and share over bins, weighed by their steps; None without any.

    Args:
        sums: [groups, 3, bins] as `calibrations` gives them; the interval resamples groups.
    """
    return None if sums is None else murphy_intervals(sums, parts=[0])[0]


def hazards_table(found: Sequence[Part], sums: Sums) -> Table:
    """One line per event and source, sources of one law beside each other."""
    places = [(p, metric, source) for p in found for metric in EVENTS for source in _sources(p, metric)]
    keys = [(part.model, part.strategy, EVENTS[metric], source.law or "–") for part, metric, source in places]
    lead = Leading(("model", "strategy", "event", "law"), keys)

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        for key, (part, metric, source) in zip(keys, places, strict=True):
            of_bins = sums.get((part.model, part.strategy, source)) if metric == "brier_reuse" else None
            nats = _nats(part, source) if metric == "brier_reuse" else None
            gains = [_skill(part, metric, source, name) for name in (BASE_RATE, POSITION)]
            first = [*lead.cells(key), source_name(source), part.interval(metric, source)]
            made.append([*first, reliability(of_bins), *gains, nats])
        return made

    return Table(
        "repetition.hazards",
        f"Forecasts along the model's own text: {lead.same}",
        [
            *lead.columns,
            Column("source", left=True),
            Column("Brier"),
            Column("reliability", priority=3),
            Column("over base rate", signed=True, priority=2),
            Column("over position", signed=True, priority=1),
            Column("log score", "nats", priority=4),
        ],
        LazyRows(body),
        f"{prompts_of(found)}.{one_law_note(found)} Brier: less is better; mean over prompts. re-use: the "
        "next token is in the context. "
        "which token: of the types of the context, given re-use, 0 to 2. loop starts, loop is left: within 16 tokens, "
        "period up to 32, at every eighth step outside or inside one, forecast from short rollouts. reliability: mean "
        f"squared distance of forecast and share over {BINS} bins of all steps; 0 is calibrated, and chance makes it "
        f"larger. over base rate, over position: skill, 1 - Brier / Brier of {BASE_RATE} (for which token: all types "
        f"of the context alike) or of {POSITION}, a logistic model; both are fitted to training texts. 95 % intervals "
        "over groups, skill by Fieller's method.",
    )


def _sources(part: Part, metric: str) -> list[Source]:
    """Whose forecasts there are: by law the model and the surrogates, then the references."""
    own = [source for name, source in part.samples if name == metric and source.name == MODEL]
    others = part.sources(metric)
    laws = list(dict.fromkeys(source.law for source in (*own, *others)))
    order = sorted(laws, key=lambda law: (law == "", law))
    return [source for law in order for source in (*own, *others) if source.law == law]


def _nats(part: Part, source: Source) -> Cell:
    """The log score of re-use; a word where it is infinite on a prompt."""
    sample = part.sample("log_reuse", source)
    return "infinite" if sample.missing and is_infinite(sample.reason) else sample.interval()


def _skill(part: Part, metric: str, source: Source, reference: str) -> Interval | None:
    """Skill against a reference; None of the references themselves, and where there is no reference."""
    known = part.sample(metric, Source(reference))
    if source.name == reference or not known.rows:
        return None
    both = paired(part.sample(metric, source), known)
    return skill(both.values[0], both.values[1], both.groups) if both.n else None


def calibrated(part: Part, sums: Sums) -> Answer:
    """The answer for the chosen rung, or the last one where none was chosen.

    It is "yes" where the interval of the root of the reliability ends at .05 or below, since chance only makes it
    larger, and "no" where it begins above that even less what chance makes of calibrated forecasts if every group is
    worth only one step.

    Args:
        part: a model and strategy with forecasts.
        sums: of `calibrations`.
    """
    if part.shown is None:
        return Answer(QUESTION, f"{part.what}: could not be answered: {LOGIT} was not fitted.", answered=False)
    source = Source(LOGIT, part.law, part.shown.rung)
    own = sums.get((part.model, part.strategy, source))
    if own is None:
        return Answer(QUESTION, f"{part.what}: could not be answered: nothing was forecast.", answered=False)
    whole = own.sum(axis=0)
    relied, uncertain = murphy_intervals(own)[0], float(murphy(whole[None])[0, 2])
    value = relied.value or 0.0
    low, high = (value if end is None else end for end in (relied.low, relied.high))
    used = np.flatnonzero(whole[0])
    chance = len(used) * uncertain / len(own)
    word = "yes" if high**0.5 <= CLOSE else "no" if low - chance > CLOSE**2 else "not decided"
    root = [None if end is None else end**0.5 for end in (relied.low, relied.high)]
    gap = Interval(value**0.5, root[0], root[1], len(own), relied.missing)
    mean, share = (whole[place].sum() / whole[0].sum() for place in (1, 2))
    text = (
        f"{part.what}: {word}. Forecasts of {LOGIT}, {part.shown_rung} ({part.law} law), that the next "
        f"token is in the context and how often it is lie {with_unit(gap)} apart (root mean square over {len(used)} "
        f"bins; within {CLOSE:g} counts as calibrated); on average they say {mean:.3f}, and it is {share:.3f}."
    )
    over = _skill(part, "brier_reuse", source, POSITION)
    if over is not None and over.value is not None:
        text += f" Their Brier skill over a model of position alone is {with_unit(over, signed=True)}."
    return Answer(QUESTION, text, gap, answered=word != "not decided")
