"""Figures of the experiment `repetition`: the ladder in nats, how much its walks repeat, and walks that start later."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.core.records import Figure, Interval
from harness.core.rows import MODEL, RESEEDED, SHUFFLED
from harness.core.style import BLACK, WIDTH, series, styled
from harness.experiments._shared.drawing import figure_of, panels, points, short
from harness.experiments._shared.naming import labels
from harness.experiments.repetition.chosen import short_rung
from harness.experiments.repetition.hazard_tables import Sums, calibrations
from harness.experiments.repetition.onset_table import onset_figures, sweeps
from harness.experiments.repetition.parts import FIXED, Part, by_model, parts
from harness.experiments.repetition.sources import LOGIT, POSITION, RAW, Source
from harness.stats.intervals import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn

ACROSS = 3  # panels side by side
GREY = "#777777"


def figures(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
    """The figures of every model.

    Args:
        rows: of the experiment, from one run.
        trajectories: of the run; not needed.
    """
    found = by_model(parts(rows))
    named = labels(list(found))
    made = [figure for model, own in found.items() for figure in _of_model(model, own, named[model])]
    made += onset_figures(sweeps([part for own in found.values() for part in own]), named)
    sums = calibrations(rows)
    for model, own in found.items():
        if forecast := [part for part in own if any(key[:2] == (model, part.strategy) for key in sums)]:
            made.append(
                Figure(
                    f"calibration-{named[model]}",
                    f"Forecasts that the next token of {model} is in its context",
                    "Share of steps at which it was, against the mean forecast, in ten bins of all judged steps; on "
                    "the diagonal forecasts are calibrated. Areas of the points grow with the steps in a bin.",
                    partial(calibration_figure, forecast, sums),
                )
            )
    return made


def _of_model(model: str, own: list[Part], label: str) -> list[Figure]:
    laddered = [part for part in own if _laws(part)]
    made = []
    if laddered:
        made += [
            Figure(
                f"ladder-{label}",
                f"How well the statistics of its context predict the next token of {model}",
                f"Log loss of {LOGIT} along the model's text, mean over held-out prompts with 95 % intervals; each "
                "rung adds to those before. Dashed: the model's entropy (decoded law) or own log loss (raw law).",
                partial(ladder_figure, laddered),
            ),
            Figure(
                f"walks-{label}",
                f"How much walks repeat beside {model}",
                f"Share of repeated 4-grams of walks of {LOGIT} by rung and law, mean over held-out prompts with 95 % "
                "intervals; black: the model, with its interval. Shaded: the rung chosen on training prompts, darker "
                "the more folds chose it.",
                partial(walks_figure, laddered),
            ),
        ]
    if warmed := [part for part in laddered if len(part.starts) > 1]:
        made.append(
            Figure(
                f"warm-{label}",
                f"Walks that take over from {model} later",
                f"Energy score of walks of {LOGIT} by the tokens of the model's own text before them (less is better), "
                f"mean over held-out prompts with 95 % intervals. Null: {FIXED[SHUFFLED]}; ceiling: the model's other "
                "seeds.",
                partial(warm_figure, warmed),
            )
        )
    return made


def _laws(part: Part) -> list[str]:
    """The laws that an open ladder was fitted to, the decoded one first."""
    fitted = {source.law for name, source in part.samples if name == "log_loss" and source.name == LOGIT}
    return [law for law in part.laws if law in fitted]


def _rungs(axis: Any, rungs: Sequence[str]) -> None:
    """Names of the rungs below an axis."""
    axis.set_xticks(range(len(rungs)), [short(short_rung(rung), 18) for rung in rungs], rotation=40, ha="right")
    axis.set_xlim(-0.4, len(rungs) - 0.6)
    axis.tick_params(axis="x", labelsize=7)


def _beside(places: int, index: int, count: int, width: float = 0.3) -> list[float]:
    """[places] numbers, moved aside so that the intervals of several series do not hide each other."""
    aside = (index - (count - 1) / 2) * width / max(count, 1)
    return [place + aside for place in range(places)]


@styled
def ladder_figure(own: Sequence[Part]) -> Drawn:
    """Log loss against the rung, one panel per law and one line per strategy, with what the model itself has."""
    laws = list(dict.fromkeys(law for part in own for law in _laws(part)))
    figure, axes = panels(len(laws), 3.2, sharey=True)
    rungs = own[0].rungs
    for axis, law in zip(axes, laws, strict=True):
        for index, part in enumerate(own):
            found = [part.interval("log_loss", Source(LOGIT, part.fitted(law), rung)) for rung in rungs]
            places = _beside(len(rungs), index, len(own))
            label = part.strategy if axis is axes[0] else None
            points(axis, places, found, index, label, linestyle="-", linewidth=1)
            real = part.sample("log_loss" if law == RAW else "entropy", Source(MODEL, law)).value
            if real is not None:
                axis.axhline(real, color=series(index)["color"], linestyle="--", linewidth=0.9)
        axis.set_title(f"{law} law")
        _rungs(axis, rungs)
    axes[0].set_ylabel("log loss (nats)")
    _, top = axes[0].get_ylim()
    axes[0].set_ylim(bottom=-0.03 * top)
    figure.legend(loc="outside upper center", ncols=min(4, len(own)))
    return figure


def _grid(number: int, height: float) -> tuple[Drawn, list[Any]]:
    """Panels in rows of three, with one scale; those that are left over are hidden."""
    columns = min(ACROSS, number)
    rows = -(-number // columns)
    figure, axes = figure_of(WIDTH, height * rows, columns, rows, sharey=True)
    for axis in axes[number:]:
        axis.set_visible(False)
    return figure, axes[:number]


def _model_line(axis: Any, real: Interval, label: str | None) -> None:
    """The model's own mean as a line, with its interval as a band."""
    if real.value is None:
        return
    axis.axhline(real.value, color=BLACK, linewidth=1.2, label=label)
    if real.low is not None and real.high is not None:
        axis.axhspan(real.low, real.high, color=BLACK, alpha=0.12, linewidth=0)


@styled
def walks_figure(own: Sequence[Part]) -> Drawn:
    """Repeated 4-grams of walks against the rung, one panel per strategy and one line per law."""
    laws = list(dict.fromkeys(law for part in own for law in part.laws))
    figure, axes = _grid(len(own), 2.9)
    for axis, part in zip(axes, own, strict=True):
        first = axis is axes[0]
        _model_line(axis, part.interval("seq_rep_4", part.fixed(MODEL)), "model" if first else None)
        for index, law in enumerate(laws):
            found = [part.interval("seq_rep_4", part.rung(rung, part.fitted(law))) for rung in part.rungs]
            places = _beside(len(part.rungs), index, len(laws))
            points(axis, places, found, index, f"{law} law" if first else None, linestyle="-", linewidth=1)
        if part.choice:
            for rung, folds in part.choice.counts.items():
                place, share = part.rungs.index(rung), folds / len(part.choice.folds)
                axis.axvspan(place - 0.5, place + 0.5, color=GREY, alpha=0.25 * share, linewidth=0, zorder=0)
        axis.set_title(part.strategy)
        axis.set_ylim(-0.03, 1.03)
        _rungs(axis, part.rungs)
    axes[0].set_ylabel("seq_rep_4")
    figure.legend(loc="outside upper center", ncols=1 + len(laws))
    return figure


@styled
def warm_figure(own: Sequence[Part]) -> Drawn:
    """Energy score against where walks take over, one panel per strategy, between null and ceiling."""
    figure, axes = panels(len(own), 2.9) if len(own) <= ACROSS else _grid(len(own), 2.9)
    for axis, part in zip(axes, own, strict=True):
        starts = part.starts
        step = max(starts) / 40
        late = [rung for rung in part.rungs if part.sample("energy_score", part.rung(rung, None, starts[-1])).rows]
        lines: list[tuple[str, list[Source], dict[str, Any]]] = [
            (short_rung(rung), [part.rung(rung, None, t0) for t0 in starts], {}) for rung in late
        ]
        lines.append(("null: other prompt", [part.fixed(SHUFFLED, t0) for t0 in starts], {"color": GREY}))
        lines.append(("ceiling: other seed", [part.fixed(RESEEDED, t0) for t0 in starts], {"color": BLACK}))
        for index, (label, sources, look) in enumerate(lines):
            aside = (index - (len(lines) - 1) / 2) * step / 2
            found = [part.interval("energy_score", source) for source in sources]
            drawn = label if axis is axes[0] else None
            points(axis, [t0 + aside for t0 in starts], found, index, drawn, linestyle="-", linewidth=1, **look)
        axis.set(title=part.strategy, xlabel="t0 (tokens)")
        axis.set_xticks(starts)
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axes[0].set_ylabel("energy score")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _errors(sums: Floats) -> Floats:
    """[bins] 1.96 standard errors of the share of events in each bin, clustered by group: of a ratio of sums.

    Args:
        sums: [groups, 3, bins] of bins that hold a step.
    """
    number, event = sums[:, 0], sums[:, 2]
    share = event.sum(axis=0) / number.sum(axis=0)
    groups = len(sums)
    left = ((event - share * number) ** 2).sum(axis=0) * groups / max(groups - 1, 1)
    found: Floats = 1.96 * np.sqrt(left) / number.sum(axis=0)
    return found


@styled
def calibration_figure(own: Sequence[Part], sums: Sums) -> Drawn:
    """Events against forecasts of re-use, one panel per strategy: the model, the first and last rung, and position."""
    figure, axes = _grid(len(own), 2.9)
    for axis, part in zip(axes, own, strict=True):
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        ends = [Source(LOGIT, part.law, rung) for rung in dict.fromkeys(part.rungs[:1] + part.rungs[-1:])]
        lines = [("model", Source(MODEL, part.law)), *((short_rung(one.rung), one) for one in ends)]
        for index, (label, source) in enumerate([*lines, (POSITION, Source(POSITION))]):
            found = sums.get((part.model, part.strategy, source))
            if found is None:
                continue
            whole = found.sum(axis=0)
            used = whole[0] > 0
            n, forecast, event = whole[:, used]
            look = {"color": BLACK} if source.name == MODEL else {"color": series(index)["color"]}
            axis.plot(forecast / n, event / n, linewidth=0.8, **look)
            axis.errorbar(
                forecast / n, event / n, _errors(found[:, :, used]), fmt="none", elinewidth=0.8, ecolor=look["color"]
            )
            drawn = label if axis is axes[0] else None
            axis.scatter(
                forecast / n, event / n, 4 + 60 * n / n.sum(), marker=series(index)["marker"], label=drawn, **look
            )
        axis.set(title=part.strategy, xlabel="mean forecast", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes[0].set_ylabel("share re-used")
    figure.legend(loc="outside upper center", ncols=4)
    return figure
