"""Pictures of the generation experiments, as SVG: who dominates and when, which surrogate agrees, what repeats."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.core.records import Interval
from harness.experiments._shared.tables import FRAME, SEED, _by, _ladder, _mean, _pick
from harness.experiments.count_ablation.tables import NONE, name
from harness.experiments.generation.tables import ways
from harness.measures.winners import dominance, top_tokens, winner_set
from harness.stats.intervals import mean_interval

# Colours that differ for colour-blind readers and in grey (Okabe and Ito 2008).
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999933", "#882255", "#777777")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "svg.hashsalt": "ccmc",  # the same rows give the same file
    "svg.fonttype": "none",
}
WIDTH = 7.2  # inches
WINNERS = 8  # tokens with a colour of their own in the strip
Figure = Any


def _figure(panels: int, height: float, share: bool = False) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure as Made

    figure = Made(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False, sharey=share)[0])


def _legend(axis: Any) -> None:
    """A legend beside the axis, where it has anything to name; it hides no curve there."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _held_out(trajectories: pd.DataFrame, strategy: str) -> pd.DataFrame:
    kept = trajectories[(trajectories["split"] == "held_out") & (trajectories["strategy"] == strategy)]
    return kept[kept["experiment"].isin(["continuations", "generation"])]


def dominance_curves(part: pd.DataFrame, source: str, points: int = 24) -> tuple[np.ndarray[Any, Any], list[Interval]]:
    """Mean over prompts of the dominance of own winners, at times spread over the longest continuation.

    Args:
        part: trajectories of one model and strategy.
        source: `model` or a surrogate.
        points: how many times at most.

    Returns:
        [points] times and the mean at each, over the prompts whose continuation is as long.
    """
    chosen = part[part["source"] == source]
    curves: dict[str, list[Any]] = {}
    for row in chosen.to_dict("records"):
        tokens = np.asarray(row["continuation"], dtype=np.int64)
        if len(tokens) > 1:
            made = dominance(tokens, winner_set(tokens), np.asarray(row["prompt_tokens"], dtype=np.int64))
            curves.setdefault(row["prompt"], []).append(made)
    longest = max((len(c) for group in curves.values() for c in group), default=0)
    times = np.unique(np.linspace(1, longest, points).astype(int)) if longest else np.zeros(0, dtype=int)
    found = []
    for t in times:
        values = [np.mean(v) for g in curves.values() if (v := [c[t - 1] for c in g if len(c) >= t])]
        found.append(mean_interval(values, SEED))
    return times, found


def dominance_figure(trajectories: pd.DataFrame, strategies: list[str]) -> Figure:
    """Real and predicted dominance curves; bands are 95 % intervals over prompts."""
    figure, axes = _figure(len(strategies), 2.9, share=True)
    for axis, strategy in zip(axes, strategies, strict=True):
        part = _held_out(trajectories, strategy)
        sources = ["model", *(s for s in _by(part, "source") if s != "model")]
        for index, source in enumerate(sources):
            times, found = dominance_curves(part, source)
            colour = COLOURS[index % len(COLOURS)]
            axis.plot(times, [f.value for f in found], color=colour, label=source, lw=2 if index == 0 else 1)
            banded = [(t, f.low, f.high) for t, f in zip(times, found, strict=True) if f.low is not None]
            if banded and source in {"model", "ccmc-fit"}:
                axis.fill_between(*zip(*banded, strict=True), color=colour, alpha=0.15, lw=0)
        axis.set(title=strategy, xlabel="generated tokens", ylim=(0, 1.02))
    axes[0].set_ylabel("dominance of own winners")
    _legend(axes[-1])
    return figure


def strip_figure(trajectories: pd.DataFrame, strategies: list[str]) -> Figure:
    """One continuation per strategy, token by token.

    The most frequent tokens at the end of the real one have colours, the same in every row; other tokens are grey, and
    white is what comes after the end.
    """
    from matplotlib.colors import ListedColormap

    figure, axes = _figure(len(strategies), 2.2)
    colours = ListedColormap(["#FFFFFF", "#DDDDDD", *COLOURS[1 : WINNERS + 1]])
    for axis, strategy in zip(axes, strategies, strict=True):
        part = _held_out(trajectories, strategy)
        part = part.sort_values("seed", kind="stable").drop_duplicates(["source", "prompt"])  # one path of each
        real = part[part["source"] == "model"].copy()
        real["length"] = real["continuation"].map(len)
        prompt = real.sort_values(["length", "prompt"], ascending=[False, True])["prompt"].iloc[0]
        part = part[part["prompt"] == prompt]
        made = {str(row["source"]): np.asarray(row["continuation"], dtype=np.int64) for row in part.to_dict("records")}
        lines = {source: made[source] for source in ["model", *sorted(set(made) - {"model"})]}
        known = {int(token): rank for rank, token in enumerate(top_tokens(lines["model"], WINNERS))}
        cells = np.zeros((len(lines), max(1, *(len(tokens) for tokens in lines.values()))))
        for row, tokens in enumerate(lines.values()):
            cells[row, : len(tokens)] = [known.get(int(token), -1) + 2 for token in tokens]
        axis.imshow(cells, aspect="auto", cmap=colours, vmin=0, vmax=WINNERS + 1, interpolation="nearest")
        axis.set_yticks(range(len(lines)), list(lines), fontsize=7)
        axis.set(xlabel="generated tokens")
        axis.set_title(f"{strategy}\n{prompt}", fontsize=7)
    return figure


def agreement_figure(rows: pd.DataFrame, strategies: list[str]) -> Figure:
    """How much of the way from floor (0) to ceiling (1) each surrogate gets, with its interval."""
    figure, axes = _figure(len(strategies), 2.6)
    for axis, strategy in zip(axes, strategies, strict=True):
        tried = ways(_pick(rows, strategy=strategy))
        found = [way for way in tried if way.all.value is not None][::-1]
        for place, way in enumerate(found):
            value = float(way.all.value or 0.0)
            low, high = (value if end is None else float(end) for end in (way.all.low, way.all.high))
            # the corrected interval of a skewed ratio need not hold the estimate
            bars = [[max(value - low, 0.0)], [max(high - value, 0.0)]]
            axis.errorbar(value, place, xerr=bars, fmt="o", color=COLOURS[1], ms=4, capsize=2)
        axis.set_yticks(range(len(found)), [way.surrogate for way in found], fontsize=7)
        if tried and not found:
            reason = textwrap.fill(str(tried[0].all.missing), 24)
            axis.text(0.5, 0.5, reason, ha="center", va="center", fontsize=7, transform=axis.transAxes)
        axis.axvline(0, color="#999999", lw=0.8)
        axis.axvline(1, color="#999999", lw=0.8, ls=":")
        axis.set(title=strategy)
    figure.supxlabel("way from floor (0) to ceiling (1), 95 % intervals", fontsize=8)
    return figure


def _curve(axis: Any, points: list[tuple[float, Interval]], label: str, **style: Any) -> None:
    """Means with their intervals, joined by a line; those without a value are left out."""
    kept = [(x, found) for x, found in points if found.value is not None]
    if not kept:
        return
    value = np.array([found.value for _, found in kept], dtype=float)
    low, high = (
        np.array([v if end is None else end for v, end in zip(value, ends, strict=True)], dtype=float)
        for ends in zip(*((found.low, found.high) for _, found in kept), strict=True)
    )
    bars = np.maximum(np.stack([value - low, high - value]), 0.0)
    axis.errorbar([x for x, _ in kept], value, bars, fmt="o-", capsize=1.5, elinewidth=0.7, label=label, **style)


def temperature_of(strategy: str) -> float | None:
    """The temperature of a strategy that has no other option; 0 for greedy decoding."""
    if strategy == "greedy":
        return 0.0
    found = re.fullmatch(r"temperature=([\d.]+)", strategy)
    return float(found[1]) if found else None


def temperature_figure(rows: pd.DataFrame) -> Figure:
    """Repetition of model and surrogates against temperature."""
    figure, axes = _figure(2, 2.9)
    known = [(t, s) for s in _by(rows, "strategy") if (t := temperature_of(s)) is not None]
    for axis, metric in zip(axes, ("seq_rep_4", "loop_share"), strict=True):
        for index, source in enumerate(["model", *_ladder(rows)]):
            aside = 0.006 * index  # so that intervals stand beside one another
            points = [
                (t + aside, _mean(_pick(rows, strategy=strategy, metric=metric, surrogate=source)))
                for t, strategy in sorted(known)
            ]
            _curve(axis, points, source, color=COLOURS[index % len(COLOURS)], ms=3, lw=2 if index == 0 else 1)
        axis.set(xlabel="temperature (0: greedy)", ylabel=metric)
    _legend(axes[-1])
    return figure


def ablation_figure(rows: pd.DataFrame) -> Figure:
    """Repetition against the strength of the count ablation, and against the loss on prose of everything tried."""
    figure, (left, right) = _figure(2, 2.9)
    parts: dict[str, list[tuple[float, Interval]]] = {}
    nothing = _mean(_pick(rows, condition=NONE, metric="seq_rep_4"))
    drawn: list[str] = []
    for condition in _by(rows, "condition"):
        factors = json.loads(condition)
        found = _mean(_pick(rows, condition=condition, metric="seq_rep_4"))
        if "strength" in factors and "draw" not in factors:
            parts.setdefault(factors["ablation"], [(0.0, nothing)]).append((factors["strength"], found))
        losses = _pick(rows, condition=condition, metric="loss_prose")["value"]
        # a loss that is infinite on some texts has no place on this axis: the mean of the others would flatter
        if losses.notna().all() and len(losses) and found.value is not None:
            marker, number = ("o", len(drawn)) if "ablation" in factors else ("s", len(drawn) + 3)
            drawn.append(condition)
            colour = COLOURS[number % len(COLOURS)]
            right.plot(losses.mean(), found.value, marker, color=colour, ms=4, alpha=0.8, label=name(condition))
    for index, (part, points) in enumerate(parts.items()):
        beside = [(strength + 0.012 * index, found) for strength, found in points]
        _curve(left, beside, part, color=COLOURS[index + 1], ms=4, lw=1)
    left.set(xlabel="strength of the ablation", ylabel="seq_rep_4")
    _legend(left)
    right.set(xlabel="loss on prose (nats per token)", ylabel="seq_rep_4")
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=5.5)
    return figure


def draw(rows: pd.DataFrame, trajectories: pd.DataFrame) -> dict[str, Callable[[], Figure]]:
    """What can be drawn of a run: name -> a call that draws it."""
    makers: dict[str, Callable[[], Figure]] = {}
    generation = _pick(_pick(rows, experiment="generation"), split="held_out")
    for model in _by(generation, "model"):
        part = _pick(generation, model=model)
        strategies = _by(part, "strategy")
        paths = trajectories[trajectories["model"] == model] if len(trajectories) else trajectories
        label = Path(model).name
        makers[f"dominance-{label}"] = lambda p=paths, s=strategies: dominance_figure(p, s)  # type: ignore[misc]
        makers[f"strip-{label}"] = lambda p=paths, s=strategies: strip_figure(p, s)  # type: ignore[misc]
        makers[f"temperature-{label}"] = lambda r=part: temperature_figure(r)  # type: ignore[misc]
        if set(FRAME) <= set(_by(part, "surrogate")):
            makers[f"agreement-{label}"] = lambda r=part, s=strategies: agreement_figure(r, s)  # type: ignore[misc]
    ablation = _pick(_pick(rows, experiment="count-ablation"), split="held_out")
    for model in _by(ablation, "model"):
        part = _pick(ablation, model=model)
        makers[f"count-ablation-{Path(model).name}"] = lambda r=part: ablation_figure(r)  # type: ignore[misc]
    return makers


def write_generation_plots(run: Path, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Path]:
    """Draw the generation experiments of a run into its folder `plots`.

    Args:
        run: the run directory.
        rows: its rows.
        trajectories: its continuations.

    Returns:
        The files, one per picture; none where the run has no such experiment.
    """
    makers = draw(rows, trajectories)
    if not makers:
        return []
    import matplotlib

    (run / "plots").mkdir(exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for label, make in makers.items():
            path = run / "plots" / f"{label}.svg"
            make().savefig(path, metadata={"Date": None})
            written.append(path)
    return written
