"""Summary tables: rows pooled over prompts, heads or repetitions, each figure with its interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Interval
from harness.stats.correlation import mean_spearman_interval
from harness.stats.explained import explained_interval
from harness.stats.intervals import mean_interval, median_interval
from harness.surrogates import LADDER

SEED = 0  # of the bootstrap: the same rows give the same table
FRAME = {"model-shuffled": "floor: prompts shuffled", "model-reseeded": "ceiling: model, other seed"}
MEASURES = (
    "seq_rep_1",
    "seq_rep_2",
    "seq_rep_3",
    "seq_rep_4",
    "window_entropy",
    "loop_share",
    "loop_onset",
    "loop_period",
    "winner_size",
    "dominance",
)


@dataclass(frozen=True)
class Table:
    """A table ready to be shown: plain text in every cell."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""

    def markdown(self) -> str:
        """The table as Markdown, with title and note; lines of a cell become `<br>`."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"

        rule = "|" + "|".join(" --- " if index == 0 else " ---: " for index in range(len(self.header))) + "|"
        lines = [f"**{self.title}**", "", line(self.header), rule, *(line(row) for row in self.rows)]
        return "\n".join([*lines, *(["", self.note] if self.note else [])]) + "\n"


def _by(frame: pd.DataFrame, column: str) -> list[str]:
    """The distinct values of a column, in the order in which they come."""
    return [str(value) for value in frame[column].dropna().unique()]


def _ladder(frame: pd.DataFrame) -> list[str]:
    names = set(_by(frame, "surrogate"))
    return [name for name in LADDER if name in names] + sorted(names - set(LADDER) - set(FRAME) - {"model"})


def _pick(frame: pd.DataFrame, **where: object) -> pd.DataFrame:
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame


def _per_prompt(frame: pd.DataFrame) -> pd.Series:
    """Mean over everything else for each prompt; prompts whose value is missing are left out."""
    kept = frame[frame["value"].notna()]
    return kept.assign(value=kept["value"].astype(float)).groupby("prompt", sort=True)["value"].mean()


def _mean(frame: pd.DataFrame) -> Interval:
    return mean_interval(_per_prompt(frame).to_numpy(), SEED)


def _counted(frame: pd.Series, what: str, plural: str | None = None) -> str:
    n = frame.nunique()
    return f"{n} {what if n == 1 else plural or what + 's'}"


def _one_layer_tables(rows: pd.DataFrame) -> list[Table]:
    names = {"model": "trained model", "ccmc-weights": "ccmc-weights", "ccmc-fit": "ccmc-fit (n samples of the model)"}
    tables = []
    for condition in _by(rows, "condition"):
        part = _pick(rows, condition=condition)
        factors = json.loads(condition)
        repetitions = part["seed"].nunique()
        body = []
        for name in names:
            risk = _pick(part, metric="excess_risk", surrogate=name)
            if risk.empty:
                continue
            values = risk["value"].dropna().astype(float).to_numpy()
            found = mean_interval(values, SEED)
            predicted = float(risk["prediction"].dropna().mean()) if len(values) else None
            error = _pick(part, metric="equivalence_error", surrogate=name)["value"].dropna()
            verdict = "–"
            if found.low is not None and found.high is not None and predicted is not None:
                verdict = "agrees" if found.low <= predicted <= found.high else "differs"
            ratio = None if found.value is None or not predicted else found.value / predicted
            worst = number(float(error.max())) if len(error) else "–"
            gap = _pick(part, metric="training_gap", surrogate=name)["value"].dropna()
            worst_gap = number(float(gap.max())) if len(gap) else "–"
            body.append([names[name], worst_gap, worst, interval(found), number(predicted), number(ratio), verdict])
        n = factors["n"]
        tables.append(
            Table(
                f"One-layer attention model, K = {factors['K']}, d = {factors['d']}, n = {n:,}: risk against teacher",
                ["", "training gap", "equivalence error", "excess risk (nats)", "predicted", "ratio", "verdict"],
                body,
                f"{repetitions} repetitions, each with its own teacher, data and embeddings. Training gap: nats per "
                "observation between the trained model and the maximum likelihood of its data (largest). Equivalence "
                "error: largest difference of a next-token probability between the trained model and the chain read "
                "off its weights (float64). Predicted: K(K-1)/(2n); twice that for the fit, whose data are n samples "
                "of the trained model. Intervals: 95 %, bootstrap over repetitions.",
            )
        )
        if len(_pick(part, metric="winner_jaccard")):
            tables.append(_winner_table(part, f"One-layer model, K = {factors['K']}: who wins"))
    return tables


def _winner_table(part: pd.DataFrame, title: str) -> Table:
    real = _mean(_pick(part, metric="winner_size", surrogate="model"))
    body = []
    for name in ["model-shuffled", *_ladder(part), "model-reseeded"]:
        chosen = _pick(part, surrogate=name)
        body.append(
            [
                FRAME.get(name, name),
                interval(_mean(_pick(chosen, metric="winner_jaccard"))),
                f"{number(real.value)} / {number(_mean(_pick(chosen, metric='winner_size')).value)}",
                interval(_mean(_pick(chosen, metric="dominance_area"))),
            ]
        )
    return Table(
        title,
        ["", "winner_jaccard", "winners: model / it", "dominance_area"],
        body,
        f"{_counted(part['prompt'].dropna(), 'prompt')}, continued by model and surrogate; every pair of seeds is "
        "averaged within its prompt. Intervals: 95 %, bootstrap over prompts.",
    )


def _heads_tables(rows: pd.DataFrame) -> list[Table]:
    tables = []
    for model in _by(rows, "model"):
        of_model = _pick(rows, model=model)
        heads = len(of_model[["layer", "head"]].dropna().drop_duplicates())
        for strategy in _by(of_model, "strategy"):
            part = _pick(of_model, strategy=strategy, split="held_out")
            counts = _pick(part, metric="kl", surrogate="counts")
            body = []
            for name in _ladder(part):
                chosen = _pick(part, surrogate=name)
                per_head = _pick(chosen, metric="explained")["value"].dropna().astype(float)
                body.append(
                    [
                        name,
                        *(interval(_mean(_pick(chosen, metric=m))) for m in ("kl", "total_variation", "top_token")),
                        "0 (by definition)" if name == "counts" else interval(_explained(chosen, counts)),
                        "–" if name == "counts" else interval(median_interval(per_head.to_numpy())),
                    ]
                )
            sink = _mean(_pick(part, metric="sink_share"))
            tables.append(
                Table(
                    f"Heads of {model} on its held-out texts, {strategy}",
                    ["surrogate", "kl (nats)", "total_variation", "top_token", "explained", "explained, median head"],
                    body,
                    f"{heads} heads, {_counted(part['prompt'].dropna(), 'held-out prompt')}; sink_share "
                    f"{interval(sink)}; tokens without a static input from training texts: "
                    f"{interval(_mean(_pick(part, metric='unseen_share')))}. The first position is taken out of every "
                    "row. Intervals: 95 %, bootstrap over prompts; of the median head, exact over heads.",
                )
            )
        tables.append(_layer_table(of_model, model))
    return tables


def _explained(chosen: pd.DataFrame, counts: pd.DataFrame) -> Interval:
    """1 - sum of KL / sum of KL(counts) over all heads and queries; prompts are the units."""

    def totals(frame: pd.DataFrame) -> pd.Series:
        weighted = frame["value"].astype(float) * frame["n"].astype(float)
        return weighted.groupby(frame["prompt"]).sum(min_count=1)

    both = pd.concat([totals(_pick(chosen, metric="kl")), totals(counts)], axis=1).dropna()
    if both.empty:
        return Interval(None, None, None, 0, "no counts")
    queries = float(counts["n"].astype(float).sum())
    return explained_interval(both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy(), SEED, queries=queries)


def _layer_table(rows: pd.DataFrame, model: str) -> Table:
    part = _pick(rows, split="held_out")
    names = [name for name in _ladder(part) if name != "counts"]
    body = []
    for layer in sorted(int(value) for value in part["layer"].dropna().unique()):
        of_layer = part[part["layer"] == layer]
        counts = _pick(of_layer, metric="kl", surrogate="counts")
        cells = [interval(_explained(_pick(of_layer, surrogate=name), counts)) for name in names]
        body.append(
            [str(layer), number(_mean(counts).value), number(_mean(_pick(of_layer, metric="sink_share")).value), *cells]
        )
    return Table(
        f"Heads of {model}: explained, by layer",
        ["layer", "kl of counts", "sink_share", *names],
        body,
        "All strategies together; 1 - mean KL / mean KL(counts) over the heads of the layer. Intervals: 95 %, "
        "bootstrap over prompts.",
    )


def _generation_tables(rows: pd.DataFrame) -> list[Table]:
    tables = []
    for model in _by(rows, "model"):
        of_model = _pick(rows, model=model, split="held_out")
        body = []
        for strategy in _by(of_model, "strategy"):
            part = _pick(of_model, strategy=strategy)
            mass = interval(_mean(_pick(part, metric="in_context_mass")))
            for name in _ladder(part):
                chosen = _pick(part, surrogate=name)
                cells = [interval(_mean(_pick(chosen, metric=m))) for m in ("kl", "total_variation", "top_token")]
                body.append([strategy, mass, name, *cells])
        continued = _counted(_pick(of_model, metric="in_context_mass")["prompt"], "held-out prompt")
        tables.append(
            Table(
                f"Next tokens of {model}, restricted to the context",
                ["strategy", "in_context_mass", "surrogate", "kl (nats)", "total_variation", "top_token"],
                body,
                "in_context_mass: probability that the model gives to tokens of its context, the part of its behaviour "
                f"that a CCMC can speak about. {continued}. Intervals: "
                "95 %, bootstrap over prompts.",
            )
        )
        tables += [
            _agreement_table(
                _pick(of_model, strategy=strategy), f"Repetition of {model}, {strategy}: model and surrogates"
            )
            for strategy in _by(of_model, "strategy")
        ]
    return tables


@dataclass(frozen=True)
class Agreement:
    """How one measure of a surrogate's continuations agrees with the real one, over prompts where both are defined."""

    difference: Interval
    correlation: Interval


def agreement(part: pd.DataFrame, surrogate: str, measure: str) -> Agreement:
    """Paired difference (surrogate - real) and Spearman's correlation over prompts.

    The difference is that of means over seeds. The correlation is taken seed by seed and then averaged: a mean over
    seeds would be smoother than the single continuation that the ceiling has.

    Args:
        part: rows of one model and strategy.
        surrogate: a surrogate, or a row of the frame.
        measure: a metric that is defined for single continuations.
    """
    a, b = _beside_model(part, surrogate, measure)
    if len(a) == 0:
        nothing = Interval(None, None, None, 0, "no prompt where both are defined")
        return Agreement(nothing, nothing)
    return Agreement(mean_interval(np.nanmean(b, axis=1) - a, SEED), mean_spearman_interval(a, b.T, SEED))


def mean_difference(part: pd.DataFrame, surrogate: str, measure: str) -> Interval:
    """The difference alone of `agreement`, at a third of its cost."""
    a, b = _beside_model(part, surrogate, measure)
    if len(a) == 0:
        return Interval(None, None, None, 0, "no prompt where both are defined")
    return mean_interval(np.nanmean(b, axis=1) - a, SEED)


def _beside_model(part: pd.DataFrame, surrogate: str, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """A measure of the model [prompts] and of a surrogate [prompts, seeds], over prompts where both are defined."""
    chosen = _pick(part, metric=measure)
    real = _per_prompt(_pick(chosen, surrogate="model"))
    other = _pick(chosen, surrogate=surrogate)
    other = other[other["value"].notna()]
    table = other.assign(value=other["value"].astype(float)).pivot_table(index="prompt", columns="seed", values="value")
    common = real.index.intersection(table.index)
    return real.loc[common].to_numpy(dtype=float), table.loc[common].to_numpy(dtype=float)


def _agreement_table(part: pd.DataFrame, title: str) -> Table:
    """Measures down, what is compared with the model across; every cell a difference and a rank correlation."""
    names = [n for n in ["model-shuffled", *_ladder(part), "model-reseeded"] if len(_pick(part, surrogate=n))]
    given = part["prompt"].dropna().nunique()
    prompts = _mean(_pick(part, metric="seq_rep_1", surrogate="model")).n
    size = {name: number(_mean(_pick(part, metric="winner_size", surrogate=name)).value) for name in ["model", *names]}
    body = [["winner_jaccard", f"size {size['model']}"], ["dominance_area", ""]]
    for name in names:
        chosen = _pick(part, surrogate=name)
        body[0].append(f"{interval(_mean(_pick(chosen, metric='winner_jaccard')))}\nsize {size[name]}")
        body[1].append(interval(_mean(_pick(chosen, metric="dominance_area"))))
    for measure in MEASURES:
        real = _mean(_pick(part, metric=measure, surrogate="model"))
        cells = [measure, interval(real) + ("" if real.n == prompts else f"\nn = {real.n}")]
        for name in names:
            found = agreement(part, name, measure)
            count = "" if found.difference.n == prompts else f", n = {found.difference.n}"
            cells.append(
                f"{interval(found.difference, signed=True)}\nr {interval(found.correlation)}{count}"
                if found.difference.n
                else "–"
            )
        body.append(cells)
    counted = _counted(part["prompt"].dropna(), "held-out prompt")
    if prompts < given:
        counted = f"{prompts} of {counted} (the others the model ends at once)"
    fixed = (
        " Greedy decoding has one continuation: its ceiling is perfect by construction." if "greedy" in title else ""
    )
    return Table(
        title,
        ["measure", "model", *(FRAME.get(name, name) for name in names)],
        body,
        f"{counted}. winner_jaccard: overlap of the "
        "winner sets, with the mean size of each side's own. dominance_area: distance of the dominance curves. Below: "
        "the model's mean, then difference (it - model, paired by prompt) and r, Spearman's rank correlation over "
        "prompts (– where a side is constant); n where fewer prompts have a value, such as a loop. Intervals: 95 %, "
        "bootstrap over prompts." + fixed,
    )


def summary_tables(rows: pd.DataFrame) -> list[Table]:
    """The tables that a run ends with, from the rows of one or more runs."""
    makers = {"one-layer": _one_layer_tables, "heads": _heads_tables, "generation": _generation_tables}
    tables = [
        table for kind, make in makers.items() if len(part := _pick(rows, experiment=kind)) for table in make(part)
    ]
    from harness.experiments._shared.paper_tables import paper_tables
    from harness.experiments.count_ablation.tables import ablation_tables  # they are made of this module's parts
    from harness.experiments.generation.tables import generation_tables
    from harness.experiments.heads.shrinkage import shrinkage_tables

    return tables + shrinkage_tables(rows) + generation_tables(rows) + ablation_tables(rows) + paper_tables(rows)
