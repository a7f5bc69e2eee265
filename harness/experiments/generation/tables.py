"""Tables of the generation experiment that answer its question: which surrogate explains a model's repetition best?"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Interval
from harness.experiments._shared.tables import FRAME, SEED, Table, _by, _ladder, _mean, _pick
from harness.stats.intervals import mean_interval
from harness.stats.significance import holm, sign_flip_p
from harness.stats.way import way_interval

QUESTIONS = {"who": "winner_jaccard", "when": "dominance_area", "how much": "seq_rep_4"}
BASELINE = "counts"
FLOOR, CEILING = "model-shuffled", "model-reseeded"
SURE = 0.05


def real_seed(condition: object) -> int | None:
    """Which real continuation a row was compared with."""
    return json.loads(condition).get("real_seed") if isinstance(condition, str) else None


def errors(part: pd.DataFrame, surrogate: str, metric: str) -> pd.Series:
    """Mean error of a surrogate per prompt: 1 - jaccard, the area, or |it - model|, over all pairs of continuations.

    Args:
        part: rows of one model and strategy.
        surrogate: a surrogate, or a row of the frame.
        metric: one of `QUESTIONS`.
    """
    chosen = _pick(part, metric=metric, surrogate=surrogate)
    chosen = chosen[chosen["value"].notna()]
    values = chosen["value"].astype(float)
    if metric == "winner_jaccard":
        values = 1.0 - values
    elif metric != "dominance_area":
        real = _pick(part, metric=metric, surrogate="model")
        real = real[real["value"].notna()]
        known = {(p, int(s)): float(v) for p, s, v in zip(real["prompt"], real["seed"], real["value"], strict=True)}
        pairs = zip(chosen["prompt"], chosen["condition"].map(real_seed), strict=True)
        truth = [known.get((prompt, seed), np.nan) for prompt, seed in pairs]
        values = (values - np.asarray(truth, dtype=float)).abs()
    return values.groupby(chosen["prompt"]).mean().dropna()


@dataclass(frozen=True)
class Way:
    """How much of the way from floor to ceiling a surrogate gets, for each question and for all; 1 is the ceiling."""

    surrogate: str
    each: dict[str, Interval]
    all: Interval
    p: float | None
    """Sign-flip test of its errors against those of `counts`, corrected by Holm over the surrogates."""


def all_errors(part: pd.DataFrame) -> pd.DataFrame:
    """Errors per prompt, (question or all, surrogate or row of the frame) as columns; `all` is their sum.

    Prompts are those on which everything is defined.
    """
    names = (FLOOR, CEILING, *_ladder(part))
    table = pd.DataFrame({(q, name): errors(part, name, m) for q, m in QUESTIONS.items() for name in names}).dropna()
    for name in names:
        table["all", name] = sum(table[question, name] for question in QUESTIONS)
    return table


def against(table: pd.DataFrame, reference: str, others: list[str]) -> dict[str, float]:
    """p-values of sign-flip tests of errors against those of a reference, corrected by Holm over the others."""
    if not others or not len(table):
        return {}
    tests = [sign_flip_p((table["all", reference] - table["all", name]).to_numpy(), SEED) for name in others]
    return dict(zip(others, holm(tests).tolist(), strict=True))


def ways(part: pd.DataFrame) -> list[Way]:
    """The surrogates of one model and strategy, the best first.

    Errors lie in [0, 1], and the error of all is their sum. A way is told where the ceiling is better than the floor
    beyond chance: the interval of the room between them lies above 0.
    """
    names, table = _ladder(part), all_errors(part)

    def way(question: str, name: str) -> Interval:
        room = table[question, FLOOR] - table[question, CEILING]
        found = mean_interval(room.to_numpy(), SEED)
        if found.value is None:
            return found
        if found.value <= 0 or (found.low is not None and found.low <= 0):
            return Interval(
                None, None, None, found.n, "the model agrees with itself no better than with another prompt"
            )
        return way_interval((table[question, FLOOR] - table[question, name]).to_numpy(), room.to_numpy(), SEED)

    others = [name for name in names if name != BASELINE]
    corrected = against(table, BASELINE, others) if BASELINE in names else {}
    order = sorted(names, key=lambda n: float(table["all", n].mean())) if len(table) else names
    return [Way(n, {q: way(q, n) for q in QUESTIONS}, way("all", n), corrected.get(n)) for n in order]


def _best_table(rows: pd.DataFrame, model: str) -> Table:
    """The answer in one line per strategy."""
    body = []
    for strategy in _by(rows, "strategy"):
        part = _pick(rows, strategy=strategy)
        found = ways(part)
        table, best = all_errors(part), found[0]
        tests = against(table, best.surrogate, [way.surrogate for way in found[1:]])
        equal = ", ".join(name for name, p in tests.items() if p > SURE)
        base = next((way for way in found if way.surrogate == BASELINE), None)
        body.append(
            [
                strategy,
                best.surrogate,
                interval(best.all),
                *(interval(best.each[q]) for q in QUESTIONS),
                equal or "none",
                "–" if base is None else interval(base.all),
                str(len(table)),
            ]
        )
    return Table(
        f"Which surrogate explains the repetition of {model} best, and how much of the way does it get?",
        ["strategy", "best", "way, all", *QUESTIONS, "not surely worse", "way of counts", "prompts"],
        body,
        "The surrogate with the least error, and how much of the way from floor (0: the model's continuation of "
        "another prompt) to ceiling (1: the model with another seed) it gets; who: winner_jaccard, when: "
        "dominance_area, how much: seq_rep_4. –: the model agrees with itself no better than with another prompt. "
        "Not surely worse: sign-flip tests over prompts against the best, Holm, p > 0.05; the best was picked on "
        "the same prompts. Intervals: 95 %, bootstrap over prompts.",
    )


def _way_table(rows: pd.DataFrame, model: str) -> Table:
    body = []
    for strategy in _by(rows, "strategy"):
        for way in ways(_pick(rows, strategy=strategy)):
            cells = [interval(way.each[q]) for q in QUESTIONS]
            test = "–" if way.p is None else "< 0.001" if way.p < 0.001 else f"{way.p:.3f}"
            body.append([strategy, way.surrogate, interval(way.all), *cells, test])
    return Table(
        f"Which surrogate explains the repetition of {model} best: the way from floor to ceiling",
        ["strategy", "surrogate", "all", *(f"{q}: {m}" for q, m in QUESTIONS.items()), "against counts, p (Holm)"],
        body,
        "0: no better than the model's continuation of another prompt; 1: as good as the model with another seed; the "
        "best first. Errors are 1 - winner_jaccard, dominance_area and |it - model| of seq_rep_4, averaged over seeds "
        "within a prompt; `all` is their sum. –: the model agrees with itself no better than with another prompt. p: "
        "sign-flip test over prompts of the sum against that of counts. Intervals: 95 %, bootstrap over prompts.",
    )


def _winner_table(rows: pd.DataFrame, model: str, sizes: list[int]) -> Table:
    body = []
    for strategy in _by(rows, "strategy"):
        part = _pick(rows, strategy=strategy)
        for name in ["model-shuffled", *_ladder(part), "model-reseeded"]:
            chosen = _pick(part, surrogate=name)
            cells = []
            for k in sizes:
                found = {
                    what: _mean(_pick(chosen, metric=f"winner_{what}_at_{k}"))
                    for what in ("jaccard", "precision", "recall", "size")
                }
                shares = " / ".join(number(found[what].value) for what in ("precision", "recall"))
                cells.append(f"{interval(found['jaccard'])}\n{shares}, size {number(found['size'].value)}")
            error = _mean(_pick(chosen, metric="lock_in_error"))
            field = _mean(_pick(chosen, metric="mean_field_jaccard"))
            size = number(_mean(_pick(chosen, metric="mean_field_size")).value)
            body.append(
                [
                    strategy,
                    FRAME.get(name, name),
                    *cells,
                    f"{interval(error)}\nn = {error.n}" if error.n else "–",
                    f"{interval(field)}\nsize {size}" if field.n else "–",
                ]
            )
    return Table(
        f"Winners of {model}: the 1, 3, 10 most frequent tokens, and when they lock in"
        if sizes == [1, 3, 10]
        else f"Winners of {model}: the most frequent tokens, and when they lock in",
        ["strategy", "", *(f"top {k}" for k in sizes), "lock_in_error (tokens)", "mean field, jaccard"],
        body,
        "Top k: Jaccard index of the k most frequent tokens of the trailing windows; below it precision / recall and "
        "the size of the set, smaller than k where a window holds fewer types. lock_in_error: distance of the times "
        "from which the own winner sets dominate, over the prompts where both do. Mean field: the winner set that the "
        "mean field of the fitted chain predicts from the prompt's counts alone, against the real one. Intervals: "
        "95 %, bootstrap over prompts.",
    )


def _leaving_table(rows: pd.DataFrame, model: str) -> Table:
    body = []
    for strategy in _by(rows, "strategy"):
        part = _pick(rows, strategy=strategy)
        mass = _mean(_pick(part, metric="in_context_mass", surrogate="model")).value
        for name in _ladder(part):
            chosen = _pick(part, surrogate=name)
            leaves = interval(_mean(_pick(chosen, metric="escape")))
            whole = interval(_mean(_pick(chosen, metric="kl_with_escape")))
            body.append([strategy, number(None if mass is None else 1.0 - mass), name, leaves, whole])
    return Table(
        f"Leaving the context: {model} and surrogates one token ahead",
        ["strategy", "model leaves", "surrogate", "it leaves", "kl_with_escape (nats)"],
        body,
        "Probability of a token that is not in the context. kl_with_escape: divergence over the tokens of the context "
        "and anything else as one more outcome. Intervals: 95 %, bootstrap over prompts.",
    )


def generation_tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of runs that compare winner sets of given sizes (`winners_at`); none for the others."""
    found = _pick(rows, experiment="generation", split="held_out")
    found = found[found["model"].isin(found.loc[found["metric"] == "lock_in_error", "model"])]
    tables = []
    for model in _by(found, "model"):
        part = _pick(found, model=model)
        prefix = "winner_jaccard_at_"
        sizes = sorted(int(m.removeprefix(prefix)) for m in _by(part, "metric") if m.startswith(prefix))
        tables += [_best_table(part, model), _way_table(part, model), _winner_table(part, model, sizes)]
        if len(_pick(part, metric="kl_with_escape")):
            tables.append(_leaving_table(part, model))
    return tables
