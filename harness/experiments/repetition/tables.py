"""Tables of the experiment `repetition`: which statistics make a model repeat, one step ahead and in walks."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.core.lazy import LazyRows
from harness.core.records import Cell, Column, Interval, Table
from harness.core.rows import MODEL, is_infinite
from harness.experiments._shared.leading import Leading
from harness.experiments.repetition.base_table import base_table
from harness.experiments.repetition.chosen_tables import choice_table, chosen_table, chosen_words, rivals_table
from harness.experiments.repetition.hazard_tables import EVENTS, calibrations, hazards_table
from harness.experiments.repetition.law_table import how_much_table
from harness.experiments.repetition.onset_table import onset_table, sweeps
from harness.experiments.repetition.parts import (
    DIFFERENCES,
    MEANS,
    Part,
    margins_of,
    one_law_note,
    paired,
    parts,
    prompts_of,
    source_name,
)
from harness.experiments.repetition.refinement_table import refined, refinements_table
from harness.experiments.repetition.sources import LOGIT, RAW, Source
from harness.experiments.repetition.unseen_table import judged_unseen, unseen_table
from harness.experiments.repetition.walk_tables import scores_table, walks_table, warm_table
from harness.experiments.repetition.worth_table import worth_table
from harness.stats.equivalence import judged_together
from harness.stats.power import FINDABLE, smallest_difference

HEADLINE_ROWS = 12
NESTED = "Each rung adds its statistics to those of the rungs before."


def tables(rows: pd.DataFrame) -> list[Table]:
    """All tables of the experiment, the headline first.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    if not found:
        return []
    made = [_best(found)]
    if chose := [part for part in found if part.choice is not None]:
        made += [chosen_table(chose), rivals_table(chose), choice_table(rows, chose)]
    made.append(_ladder(found))
    if any(source.without for part in found for _, source in part.samples):
        made.append(worth_table(found))
    if refined(found):
        made.append(refinements_table(found))
    made += [walks_table(found), scores_table(found), how_much_table(rows, found), _open(found)]
    if any(len(part.starts) > 1 for part in found):
        made.append(warm_table(found))
    if swept := sweeps(found):
        made.append(onset_table(swept))
    if judged_unseen(found):
        made.append(unseen_table(found))
    if any(metric in EVENTS for part in found for metric, _ in part.samples):
        made.append(hazards_table(found, calibrations(rows)))
    if (chosen := base_table(rows, found)) is not None:
        made.append(chosen)
    if len(weights := last_weights(rows, found)):
        made.append(_weights(weights, one_law_note(found)))
    return made


def _best(found: list[Part]) -> Table:
    """The answer in one line per model and strategy."""
    shown = found[:HEADLINE_ROWS]
    keys = [(part.model, part.strategy, part.choice.brief if part.choice else part.shown_rung) for part in shown]
    lead = Leading(("model", "strategy", "rung"), keys)
    sources = [part.shown or Source(LOGIT) for part in shown]
    every = [part.verdict("seq_rep_4", source) for part, source in zip(shown, sources, strict=True)]
    body: list[list[Cell]] = []
    for part, key, source, verdict in zip(shown, keys, sources, judged_together(every), strict=True):
        repeated, new = (
            [part.sample(metric, one).value for one in (source, part.fixed(MODEL))]
            for metric in ("seq_rep_4", "new_tokens")
        )
        word = None if verdict.interval.value is None else verdict.word
        body.append([*lead.cells(key), *repeated, verdict.interval, word, *new])
    left_out = len(found) - len(shown)
    more = f" {left_out} more lines are in repetition.walks." if left_out else ""
    return Table(
        "repetition.best",
        f"Does {LOGIT} repeat as much as the model? {lead.same}",
        [
            *lead.columns,
            Column("walks"),
            Column("model's"),
            Column("walks - model", signed=True),
            Column("verdict", left=True),
            Column("new, walks", priority=1),
            Column("new, model's", priority=1),
        ],
        body,
        f"{prompts_of(shown)}; walks of the {shown[0].law} law. walks, model's: share of repeated 4-grams (seq_rep_4); "
        f"new: share of new tokens. {_rung(shown)} "
        f"verdict: agrees within {margins_of(shown, 'seq_rep_4')}, differs, or "
        f"undecided, after Holm's correction over the table. {DIFFERENCES}{more}",
        headline=True,
    )


def _rung(found: Sequence[Part]) -> str:
    """How the rung was chosen; where it was not, which one is shown."""
    chose = [part for part in found if part.choice is not None]
    text = chosen_words(chose) if chose else ""
    if len(chose) < len(found):
        text += f" No training prompt was walked from by {LOGIT}, so that none was chosen: the last rung is shown."
    return text.strip()


def _ladder(found: list[Part]) -> Table:
    """One step ahead: one line per law and surrogate, the model first."""
    places = [(part, law) for part in found for law in part.laws]
    lead = Leading(("model", "strategy", "law"), [(part.model, part.strategy, law) for part, law in places])

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        for part, law in places:
            first = lead.cells((part.model, part.strategy, law))
            real = Source(MODEL, law)
            reference = part.interval("log_loss" if law == RAW else "entropy", real)
            made.append([*first, MODEL, reference, None, None, None, part.interval("new_share", real), None])
            for source in [one for one in part.sources("new_share") if one.law == law]:
                fall = fall_of(part, source)
                others = [part.interval(metric, source) for metric in ("kl", "top_token", "new_share")]
                least = None if fall is None else smallest_difference(fall)
                made.append([*first, source_name(source), loss_of(part, source), fall, *others, least])
        return made

    return Table(
        "repetition.ladder",
        f"One step ahead along the model's own text: {lead.same}",
        [
            *lead.columns,
            Column("surrogate", left=True),
            Column("log_loss", "nats"),
            Column("fall", "nats", signed=True, priority=1),
            Column("kl", "nats", priority=3),
            Column("top_token", "share", priority=4),
            Column("new_share", "share", priority=2),
            Column("findable", "nats", priority=5),
        ],
        LazyRows(body),
        f"{prompts_of(found)}. {NESTED} fall: of the log loss against the rung before. {FINDABLE}. kl and top_token: "
        "among tokens of the context. new_share: probability of all others. The model's log loss is that of its text "
        f"under the raw law, its entropy under the decoded one, whose draw the text is.{one_law_note(found)} {MEANS} "
        f"{DIFFERENCES}",
    )


def loss_of(part: Part, source: Source) -> Cell:
    """The log loss of a surrogate; a word where it is infinite on a prompt, as a mean of the others would flatter."""
    sample = part.sample("log_loss", source)
    return "infinite" if sample.missing and is_infinite(sample.reason) else sample.interval()


def fall_of(part: Part, source: Source) -> Interval | None:
    """How much less log loss a rung has than the one before, paired by prompt; None for the first and for others."""
    place = part.rungs.index(source.rung) if source.rung in part.rungs else 0
    if place == 0:
        return None
    before = Source(source.name, source.law, part.rungs[place - 1], source.t0)
    return paired(part.sample("log_loss", before), part.sample("log_loss", source)).mean().interval()


def _open(found: list[Part]) -> Table:
    """New tokens one step ahead and in walks, each beside the model's."""
    places = [(part, law) for part in found for law in part.laws]
    lead = Leading(("model", "strategy", "law"), [(part.model, part.strategy, law) for part, law in places])

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        for part, law in places:
            first = lead.cells((part.model, part.strategy, law))
            real = Source(MODEL, law)
            walked = part.interval("new_tokens", part.fixed(MODEL))
            made.append([*first, MODEL, part.interval("new_share", real), None, walked, None, None])
            for source in [one for one in part.sources("new_share") if one.law == law]:
                step = paired(part.sample("new_share", source), part.sample("new_share", real)).mean().interval()
                walk = Source(source.name, law, source.rung, part.start)
                cells = (part.interval("new_share", source), step, part.interval("new_tokens", walk))
                gap = _gap(part, walk)
                least = None if gap is None else smallest_difference(gap)
                made.append([*first, source_name(source), *cells, gap, least])
        return made

    return Table(
        "repetition.open",
        f"How often a token is new: {lead.same}",
        [
            *lead.columns,
            Column("surrogate", left=True),
            Column("next token", "share", priority=2),
            Column("it - model", signed=True, priority=1),
            Column("walks", "share"),
            Column("walks - model", signed=True),
            Column("findable", priority=3),
        ],
        LazyRows(body),
        f"{prompts_of(found)}. next token: probability of tokens outside the context, along the model's text. walks: "
        "share of generated tokens that are new in prompt and continuation, under the strategy. Surrogates are open: "
        f"they give probability to new tokens, unless they are called closed.{one_law_note(found)} {MEANS} "
        f"{DIFFERENCES} {FINDABLE}, of walks.",
    )


def _gap(part: Part, source: Source) -> Interval | None:
    """New tokens of walks less the model's; None without walks."""
    return (
        part.against_model("new_tokens", source).mean().interval() if part.sample("new_tokens", source).rows else None
    )


def last_weights(rows: pd.DataFrame, found: Sequence[Part]) -> pd.DataFrame:
    """The fitted weights of the last rung: one row per model, strategy, law and weight, over folds.

    Args:
        rows: of the experiment, from one run.
        found: its parts.

    Returns:
        Columns model, strategy, law, rung, weight, mean, error (the largest of the folds, NaN without one) and folds.
    """
    fits = rows[rows["metric"].isin(["weight", "weight_error"]) & (rows["surrogate"] == LOGIT)]
    last = {(part.model, part.strategy): part.rungs[-1] for part in found if part.rungs}
    facts = pd.json_normalize([_condition(text) for text in fits["condition"]])
    if facts.empty or not {"law", "rung", "weight"} <= set(facts):
        return pd.DataFrame()
    frame = pd.concat([fits[["model", "strategy", "fold", "metric", "value"]].reset_index(drop=True), facts], axis=1)
    keys = zip(frame["model"], frame["strategy"], strict=True)
    if "refined" in frame:
        frame = frame[frame["refined"].isna()]
        keys = zip(frame["model"], frame["strategy"], strict=True)
    frame = frame[frame["rung"] == pd.Series([last.get(key) for key in keys], index=frame.index)]
    by = ["model", "strategy", "law", "rung", "weight"]
    value, error = (
        frame[frame["metric"] == name].groupby(by, sort=False)["value"] for name in ("weight", "weight_error")
    )
    made = pd.DataFrame({"mean": value.mean(), "error": error.max(), "folds": value.count()}).reset_index()
    order = {weight: place for place, weight in enumerate(frame["weight"].unique())}
    places = {key: place for place, key in enumerate(last)}
    made["place"] = [places[key] for key in zip(made["model"], made["strategy"], strict=True)]
    made["order"] = made["weight"].map(order)
    return made.sort_values(["place", "law", "order"], kind="stable")


def _condition(text: str) -> dict[str, object]:
    import json

    found: dict[str, object] = json.loads(text)
    return found


def _weights(made: pd.DataFrame, note: str) -> Table:
    """What the last rung's fit gives each statistic; `note`: what the caption says of laws."""
    keys = list(zip(made["model"], made["strategy"], made["law"], strict=True))
    lead = Leading(("model", "strategy", "law"), keys)
    body: list[list[Cell]] = [
        [*lead.cells(key), str(row["weight"]), float(row["mean"]), _number(row["error"]), int(row["folds"])]
        for key, row in zip(keys, made.to_dict("records"), strict=True)
    ]
    last = " or ".join(dict.fromkeys(made["rung"]))
    return Table(
        "repetition.weights",
        f"Fitted weights of {LOGIT} at its last rung: {lead.same}",
        [
            *lead.columns,
            Column("statistic", left=True),
            Column("weight", "logits"),
            Column("largest error", "logits"),
            Column("folds", priority=1),
        ],
        body,
        f"Rung that ends with {last}. weight: mean over folds, which share most of their training texts. largest "
        f"error: of the folds' standard errors, over groups of training prompts.{note}",
    )


def _number(value: object) -> float | None:
    return None if pd.isna(value) else float(value)  # type: ignore[call-overload,arg-type]
