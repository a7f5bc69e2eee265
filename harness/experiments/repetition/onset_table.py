"""Where does repetition set in as the temperature falls? The table, the answer in words, and the sweep as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from harness.core.format import interval
from harness.core.records import Answer, Cell, Column, Figure, Interval, Table
from harness.core.rows import MODEL
from harness.core.style import BLACK, series, styled
from harness.experiments._shared.drawing import panels, points
from harness.experiments._shared.leading import Leading
from harness.experiments._shared.sentences import rough, with_unit
from harness.experiments.repetition.chosen import CHOSEN, short_rung
from harness.experiments.repetition.parts import FIXED, Paired, Part, by_model, paired, source_name
from harness.experiments.repetition.sources import DECODED, LOGIT, LOGITS, Source
from harness.stats.onset import onset_interval
from harness.stats.pooling import SEED
from harness.stats.power import smallest_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn

QUESTION = "At which temperature does repetition set in?"
METRIC = "seq_rep_4"
FEWEST = 3
"""Temperatures that make a sweep, greedy among them."""
LEAST = 0.01
"""A source whose greedy text repeats less than this has no onset: half of it is within noise of zero."""
DRAWN = 6  # lines of surrogates


def temperature_of(strategy: str) -> float | None:
    """Of a strategy by its name in rows: greedy is 0; None where it cuts or penalises as well."""
    if strategy == "greedy":
        return 0.0
    name, _, value = strategy.partition("=")
    return float(value) if name == "temperature" and "," not in value else None


@dataclass(frozen=True)
class Sweep:
    """One model at several temperatures.

    Attributes:
        model: as in the rows.
        at: temperature -> its part, ascending; greedy, 0, first.
        cut: parts of strategies that cut as well, such as top-p.
    """

    model: str
    at: dict[float, Part]
    cut: list[Part]

    def sources(self) -> list[Source]:
        """Whose onset there is: surrogates by the decoded law that walked at every temperature, the model left out."""
        of_each = [set(part.sources(METRIC, part.start)) for part in self.at.values()]
        first = next(iter(self.at.values()))
        return [
            one
            for one in first.sources(METRIC, first.start)
            if one.name not in FIXED and one.law in ("", DECODED) and all(one in found for found in of_each)
        ]

    def values(self, *sources: Source) -> Paired:
        """seq_rep_4 [sources x temperatures, n] on the prompts that have all of them."""
        return paired(*(part.sample(METRIC, source) for source in sources for part in self.at.values()))

    @property
    def real(self) -> Source:
        """The model itself."""
        return next(iter(self.at.values())).fixed(MODEL)

    def repeats(self, source: Source) -> bool:
        """Is there greedy repetition that could fall to its half?"""
        greedy = next(iter(self.at.values())).interval(METRIC, source).value
        return greedy is None or greedy >= LEAST

    def onset(self, source: Source) -> Interval:
        """Where mean seq_rep_4 first falls to half of its greedy value."""
        found = self.values(source)
        if not found.n:
            return Interval(None, None, None, 0, "no prompt has all temperatures")
        if not self.repeats(source):
            return Interval(None, None, None, found.n, f"is below {LEAST:g} when greedy: there is no half to fall to")
        return onset_interval(list(self.at), found.values.T, found.groups, SEED)

    def later(self, source: Source) -> Interval:
        """How much later that is than in the model, on the same prompts."""
        found, m = self.values(source, self.real), len(self.at)
        if not found.n:
            return Interval(None, None, None, 0, "no prompt has all temperatures")
        if missing := next((one for one in map(self.onset, (source, self.real)) if one.value is None), None):
            return missing
        return onset_interval(list(self.at), found.values[:m].T, found.groups, SEED, found.values[m:].T)


def sweeps(found: Sequence[Part]) -> list[Sweep]:
    """The models with a sweep: greedy and at least two temperatures."""
    made = []
    for model, own in by_model(found).items():
        known = {temperature: part for part in own if (temperature := temperature_of(part.strategy)) is not None}
        if len(known) >= FEWEST and 0.0 in known:
            cut = [part for part in own if temperature_of(part.strategy) is None]
            made.append(Sweep(model, dict(sorted(known.items())), cut))
    return made


def onset_table(found: Sequence[Sweep]) -> Table:
    """One line per model and source."""
    lead = Leading(("model",), [(one.model,) for one in found])
    body: list[list[Cell]] = []
    for one in found:
        for source in (one.real, *one.sources()):
            own = source.name == MODEL
            greedy = next(iter(one.at.values())).interval(METRIC, source)
            name = "the model" if own else source_name(source)
            body.append(
                [*lead.cells((one.model,)), name, greedy, one.onset(source), None if own else one.later(source)]
            )
    grid = ", ".join(f"{temperature:g}" for temperature in found[0].at)
    return Table(
        "repetition.onset",
        f"{QUESTION} {lead.same}",
        [
            *lead.columns,
            Column("whose", left=True),
            Column("greedy seq_rep_4", priority=1),
            Column("onset T"),
            Column("- model's", signed=True),
        ],
        body,
        f"onset T: where mean seq_rep_4 first falls to half of its own greedy value, interpolated between T = {grid}. "
        "Walks of the decoded law. Intervals: 95 %, bootstrap over groups of prompts, all temperatures of a group "
        "together; one that ends at the highest temperature is open. –: not reached, or below "
        f"{LEAST:g} when greedy.",
    )


def onset_answers(found: Sequence[Sweep]) -> list[Answer]:
    """One answer per model: where it sets in, and where in walks of the shown rung."""
    return [_answer(one) for one in found]


def _answer(one: Sweep) -> Answer:
    own = one.onset(one.real)
    if own.value is None:
        return Answer(QUESTION, f"{one.model}: could not be answered: {METRIC} {own.missing}.", answered=False)
    text = f"{one.model}: {METRIC} falls to half of its greedy value at T = {interval(own)}."
    shown = next(iter(one.at.values())).shown
    if shown is None or shown not in one.sources():
        return Answer(QUESTION, text, own, answered=own.low is not None)
    walks, gap = one.onset(shown), one.later(shown)
    if walks.value is None or gap.value is None:
        return Answer(QUESTION, f"{text} In walks of {LOGIT} it {walks.missing}.", own, answered=own.low is not None)
    rung = "the chosen rung" if shown.rung == CHOSEN else short_rung(shown.rung)
    text += f" In walks of {LOGIT}, {rung}, at {interval(walks)}: {with_unit(gap, signed=True)} from the model."
    if gap.low is not None and gap.high is not None and gap.low <= 0 <= gap.high:
        least = smallest_difference(gap)
        could = "" if least is None else f" This run could have found one of about {rough(least)}."
        text += f" No difference was found.{could}"
    return Answer(QUESTION, text + _others(one, shown), gap, answered=gap.low is not None)


def _others(one: Sweep, shown: Source) -> str:
    """Where it sets in for the first rung of the ladder and the last one of the closed chain."""
    of: dict[str, list[Source]] = {}
    for source in one.sources():
        if source.name in LOGITS and source.rung not in ("", CHOSEN, shown.rung):
            of.setdefault(source.name, []).append(source)
    wanted = [own[0] if name == LOGIT else own[-1] for name, own in of.items()]
    found = {source_name(source): one.onset(source) for source in wanted}
    said = [
        f"{name}: {'it ' + str(at.missing) if at.value is None else 'at ' + interval(at)}" for name, at in found.items()
    ]
    return f" Walks of {'; of '.join(said)}." if said else ""


def onset_figures(found: Sequence[Sweep], named: dict[str, str]) -> list[Figure]:
    """The sweep of every model; named: model -> how files call it."""
    return [
        Figure(
            f"sweep-{named[one.model]}",
            f"Repetition of {one.model} and of walks by temperature",
            "Share of repeated 4-grams against the temperature, 0 being greedy, mean over held-out prompts with 95 % "
            "intervals; walks of the decoded law. Right of the line: strategies that cut the distribution. Ticks "
            "below: where half of the greedy value is reached.",
            partial(sweep_figure, one),
        )
        for one in found
    ]


def _lines(one: Sweep) -> list[Source]:
    """The sources that are drawn: the shown rung, then the first and last of each surrogate that repeats at all."""
    known = [source for source in one.sources() if one.repeats(source)]
    shown = [source for source in known if source == next(iter(one.at.values())).shown]
    of: dict[str, list[Source]] = {}
    for source in known:
        if source not in shown:
            of.setdefault(source.name, []).append(source)
    ends = [end for own in of.values() for end in dict.fromkeys((own[0], own[-1]))]
    return [*shown, *ends][:DRAWN]


@styled
def sweep_figure(one: Sweep) -> Drawn:
    """seq_rep_4 against the temperature; strategies that cut have places of their own at the right."""
    figure, (axis,) = panels(1, 3.4)
    places = list(one.at)
    step = (places[-1] - places[0]) / max(1, len(places) - 1)
    beyond = [places[-1] + step * (1.3 + 1.8 * k) for k in range(len(one.cut))]
    drawn = [(MODEL, one.real), *((source_name(source), source) for source in _lines(one))]
    for index, (label, source) in enumerate(drawn):
        look = {"color": BLACK} if index == 0 else {}
        aside = (index - (len(drawn) - 1) / 2) * step / 40
        means = [part.interval(METRIC, source) for part in one.at.values()]
        points(axis, [x + aside for x in places], means, index, label, linestyle="-", linewidth=1, **look)
        means = [part.interval(METRIC, source) for part in one.cut]
        points(axis, [x + aside for x in beyond], means, index, None, **look)
        at = one.onset(source).value
        if at is not None:
            colour = {"color": series(index)["color"], **look}
            axis.plot([at], [-0.04], marker="|", markersize=9, clip_on=False, **colour)
    if beyond:
        axis.axvline(places[-1] + step / 2, color="#777777", linewidth=0.8)
    cuts = [part.strategy.replace("temperature=", "T = ").replace(",", "\n").replace("_p=", "-p ") for part in one.cut]
    axis.set_xticks([*places, *beyond], [*(f"{x:g}" for x in places), *cuts])
    axis.set(xlabel="temperature", ylabel=METRIC, ylim=(-0.05, 1.0))
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
