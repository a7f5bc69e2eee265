"""Figures of the generation experiment: which tokens win and when, which surrogate agrees, what is repeated."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.format import file_safe
from harness.core.records import Figure, Interval
from harness.core.rows import MODEL
from harness.core.style import BLACK, COLOURS, styled
from harness.experiments._shared.drawing import Estimate, dot_plot, legend, panels, points
from harness.experiments._shared.naming import labels
from harness.experiments._shared.parts import FRAME
from harness.experiments.generation.parts import CEILING, FLOOR, Part, parts
from harness.experiments.generation.recovered import recovered
from harness.experiments.generation.tables import difference_to_model
from harness.measures.winners import dominance, top_tokens, winner_set
from harness.stats.intervals import mean_interval
from harness.stats.pooling import SEED

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn

WINNERS = 8  # tokens with a colour of their own in the strip
OVERLAPS = ("winner_jaccard", "winner_precision", "winner_recall")
REPETITION = ("seq_rep_1", "seq_rep_2", "seq_rep_3", "seq_rep_4", "loop_share", "dominance")
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # a legend there hides no curve
NO_LINE = ("#FFFFFF", "#DDDDDD")  # of the strip: behind the end, and tokens without a colour


def figures(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
    """The figures of every model, then those of each of its strategies.

    Args:
        rows: of the experiment, from one run.
        trajectories: of the run; without them curves of dominance and strips are left out.
    """
    found = parts(rows)
    models = list(dict.fromkeys(part.model for part in found))
    named = labels(models)
    made: list[Figure] = []
    for model in models:
        own = [part for part in found if part.model == model]
        paths = held_out(trajectories, model)
        made += _of_model(own, paths, named[model])
        for part in own:
            made += _of_strategy(part, f"{named[model]}-{file_safe(part.strategy)}")
    return made


def _of_model(own: Sequence[Part], paths: pd.DataFrame, label: str) -> list[Figure]:
    """What shows all strategies of a model beside each other."""
    model, strategies = own[0].model, [part.strategy for part in own]
    made = []
    if len(paths):
        made += [
            Figure(
                f"dominance-{label}",
                f"When the winners of {model} and its surrogates dominate",
                "Share of the last tokens that are winners of the same continuation, mean over held-out prompts; bands "
                "of the model: 95 % intervals.",
                partial(dominance_figure, paths, strategies),
            ),
            Figure(
                f"strip-{label}",
                f"One continuation by {model} and by its surrogates, token by token",
                f"The {WINNERS} most frequent tokens at the end of the model's continuation have colours, the same in "
                "every line; other tokens are grey.",
                partial(strip_figure, paths, strategies),
            ),
        ]
    if any(temperature_of(strategy) is not None for strategy in strategies):
        made.append(
            Figure(
                f"temperature-{label}",
                f"Repetition of {model} and its surrogates against temperature",
                "Means over held-out prompts with 95 % intervals; temperature 0 is greedy decoding.",
                partial(temperature_figure, own),
            )
        )
    if all({FLOOR, CEILING} <= set(part.compared) for part in own):
        made.append(
            Figure(
                f"recovered-{label}",
                f"How much of what {model} repeats each surrogate recovers",
                "Recovered share of winners, their timing and repetition together, with 95 % intervals: 0 is another "
                "prompt's continuation, 1 the model itself.",
                partial(recovered_figure, own),
            )
        )
    return made


def _of_strategy(part: Part, label: str) -> list[Figure]:
    """What shows one strategy."""
    made = []
    overlaps = winner_estimates(part)
    if overlaps:
        about = f"{FRAME[FLOOR]}: continuations of other prompts; {FRAME[CEILING]}: the model once more."
        draw = partial(dot_plot, overlaps, "overlap with the model's winner set")
        made.append(Figure(f"winners-{label}", f"Winners of {part.what}", about, draw, wide=False))
    if part.continued and _rollouts(part):
        about = "Difference to the model's own continuation, paired by prompt, with 95 % intervals."
        draw_later = partial(repetition_figure, part)
        made.append(Figure(f"repetition-{label}", f"Repetition against {part.what}", about, draw_later, wide=False))
    return made


def _rollouts(part: Part) -> list[str]:
    """The surrogates that continued prompts."""
    return [name for name in part.compared if name not in FRAME]


def held_out(trajectories: pd.DataFrame, model: str) -> pd.DataFrame:
    """The held-out continuations of a model and of its surrogates in this experiment."""
    if trajectories.empty:
        return trajectories
    kept = trajectories[(trajectories["split"] == "held_out") & (trajectories["model"] == model)]
    return kept[kept["experiment"].isin(["continuations", "generation"])]


def _sources(names: Sequence[str]) -> list[str]:
    """The model first, then the surrogates in the order of the ladder."""
    return [MODEL, *registry.ladder(set(names) - {MODEL})]


def _colour(index: int) -> str:
    """Of a source by its place: the model is black."""
    return BLACK if index == 0 else COLOURS[(index - 1) % len(COLOURS)]


def dominance_curves(part: pd.DataFrame, source: str, times: int = 24) -> tuple[np.ndarray[Any, Any], list[Interval]]:
    """Mean over prompts of the dominance of own winners, at times spread over the longest continuation.

    Args:
        part: trajectories of one model and strategy.
        source: `model` or a surrogate.
        times: how many at most.

    Returns:
        [times] times and the mean at each, over the prompts whose continuation is as long.
    """
    chosen = part[part["source"] == source]
    curves: dict[str, list[Any]] = {}
    for row in chosen.to_dict("records"):
        tokens = np.asarray(row["continuation"], dtype=np.int64)
        if len(tokens) > 1:
            made = dominance(tokens, winner_set(tokens), np.asarray(row["prompt_tokens"], dtype=np.int64))
            curves.setdefault(row["prompt"], []).append(made)
    longest = max((len(c) for group in curves.values() for c in group), default=0)
    places = np.unique(np.linspace(1, longest, times).astype(int)) if longest else np.zeros(0, dtype=int)
    found = []
    for t in places:
        values = [np.mean(v) for g in curves.values() if (v := [c[t - 1] for c in g if len(c) >= t])]
        found.append(mean_interval(values, SEED))
    return places, found


@styled
def dominance_figure(paths: pd.DataFrame, strategies: Sequence[str]) -> Drawn:
    """Real and predicted dominance curves; the band is the model's 95 % interval over prompts."""
    figure, axes = panels(len(strategies), sharey=True)
    for axis, strategy in zip(axes, strategies, strict=True):
        part = paths[paths["strategy"] == strategy]
        for index, source in enumerate(_sources(part["source"].unique().tolist())):
            times, found = dominance_curves(part, source)
            axis.plot(times, [f.value for f in found], color=_colour(index), label=source, lw=2 if index == 0 else 1)
            banded = [(t, f.low, f.high) for t, f in zip(times, found, strict=True) if f.low is not None]
            if banded and source == MODEL:
                axis.fill_between(*zip(*banded, strict=True), color=_colour(index), alpha=0.15, lw=0)
        axis.set(title=strategy, xlabel="generated tokens", ylim=(0, 1.02))
    axes[0].set_ylabel("dominance of own winners")
    legend(axes[-1], **BESIDE)
    return figure


@styled
def strip_figure(paths: pd.DataFrame, strategies: Sequence[str]) -> Drawn:
    """One continuation per strategy, token by token: that of the prompt with the longest real one."""
    from matplotlib.colors import ListedColormap

    figure, axes = panels(len(strategies), 2.2)
    colours = ListedColormap([*NO_LINE, *COLOURS[:WINNERS]])
    for axis, strategy in zip(axes, strategies, strict=True):
        part = paths[paths["strategy"] == strategy]
        part = part.sort_values("seed", kind="stable").drop_duplicates(["source", "prompt"])  # one path of each
        real = part[part["source"] == MODEL].copy()
        real["length"] = real["continuation"].map(len)
        if real.empty:
            axis.set_visible(False)
            continue
        prompt = real.sort_values(["length", "prompt"], ascending=[False, True])["prompt"].iloc[0]
        part = part[part["prompt"] == prompt]
        made = {str(row["source"]): np.asarray(row["continuation"], dtype=np.int64) for row in part.to_dict("records")}
        lines = {source: made[source] for source in _sources(list(made))}
        known = {int(token): rank for rank, token in enumerate(top_tokens(lines[MODEL], WINNERS))}
        cells = np.zeros((len(lines), max(1, *(len(tokens) for tokens in lines.values()))))
        for row, tokens in enumerate(lines.values()):
            cells[row, : len(tokens)] = [known.get(int(token), -1) + 2 for token in tokens]
        axis.imshow(cells, aspect="auto", cmap=colours, vmin=0, vmax=WINNERS + 1, interpolation="nearest")
        axis.set_yticks(range(len(lines)), list(lines), fontsize=7)
        axis.set(xlabel="generated tokens")
        axis.set_title(f"{strategy}\n{prompt}", fontsize=7)
    return figure


@styled
def recovered_figure(own: Sequence[Part]) -> Drawn:
    """Recovered share of each surrogate, from floor (0) to ceiling (1), one panel per strategy."""
    figure, axes = panels(len(own), 2.6)
    for axis, part in zip(axes, own, strict=True):
        of = recovered(part)
        found = [share for share in of.shares if share.all.value is not None][::-1]
        for place, share in enumerate(found):
            low, high = (share.all.value if end is None else end for end in (share.all.low, share.all.high))
            axis.plot([low, high], [place, place], color=COLOURS[0], linewidth=1.6)
            axis.plot([share.all.value], [place], marker="o", color=COLOURS[0])
        axis.set_yticks(range(len(found)), [share.surrogate for share in found], fontsize=7)
        if of.shares and not found:
            reason = textwrap.fill(str(of.shares[0].all.missing), 24)
            axis.text(0.5, 0.5, reason, ha="center", va="center", fontsize=7, transform=axis.transAxes)
            axis.set_xticks([])
        else:
            axis.axvline(0, color="#999999", lw=0.8)
            axis.axvline(1, color="#999999", lw=0.8, ls=":")
        axis.set(title=part.strategy)
    figure.supxlabel("recovered share: 0 is another prompt, 1 the model itself", fontsize=8)
    return figure


def temperature_of(strategy: str) -> float | None:
    """The temperature of a strategy that has no other option; 0 for greedy decoding."""
    if strategy == "greedy":
        return 0.0
    options = dict(option.partition("=")[::2] for option in strategy.split(","))
    return float(options["temperature"]) if set(options) == {"temperature"} else None


@styled
def temperature_figure(own: Sequence[Part]) -> Drawn:
    """Repetition of model and surrogates against temperature."""
    figure, axes = panels(2)
    known = sorted(((t, p) for p in own if (t := temperature_of(p.strategy)) is not None), key=lambda pair: pair[0])
    names = _sources([name for _, part in known for name in part.surrogates])
    for axis, metric in zip(axes, ("seq_rep_4", "loop_share"), strict=True):
        for index, source in enumerate(names):
            aside = 0.006 * index  # so that intervals are beside one another
            places = [t + aside for t, _ in known]
            found = [part.interval(metric, source) for _, part in known]
            look: dict[str, Any] = {"color": _colour(index), "linestyle": "-", "linewidth": 2 if index == 0 else 1}
            points(axis, places, found, max(index - 1, 0), source, markersize=3, **look)
        axis.set(xlabel="temperature (0: greedy)", ylabel=metric)
    legend(axes[-1], **BESIDE)
    return figure


def winner_estimates(part: Part) -> dict[str, list[Estimate]]:
    """Overlap of winner sets -> (surrogate or row of the frame, estimate)."""
    return {
        metric: [(FRAME.get(name, name), part.interval(metric, name)) for name in part.compared]
        for metric in OVERLAPS
        if any(part.sample(metric, name).rows for name in part.compared)
    }


def repetition_figure(part: Part) -> Drawn:
    """Surrogate - model of several measures, one colour per surrogate."""
    differences = {
        name: [(measure, difference_to_model(part, name, measure)) for measure in REPETITION]
        for name in _rollouts(part)
    }
    return dot_plot(differences, "surrogate - model", zero=True)
