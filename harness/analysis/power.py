"""`ccmc power`: how small a difference a run could have found, and how many prompts and seeds find a given one.

A difference is that of a surrogate to the model, prompt by prompt. What varies between prompts only more prompts
average out; what varies between seeds of a prompt more seeds do, too. Decoding without sampling has one continuation
of each prompt, and seeds do nothing there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.config.decoding import is_sampled
from harness.core import registry
from harness.core.errors import UsageError, nearest
from harness.core.format import listed
from harness.core.records import Answer, Cell, Column, Table
from harness.core.rows import MODEL, RESEEDED, frames
from harness.stats.equivalence import ALPHA, provable_margin
from harness.stats.grouped import group_mean
from harness.stats.pooling import Observed, factors
from harness.stats.power import Components, components, needed

SEEDS = (1, 2, 4, 8)  # of each side, for which sizes are worked out
_DROPPED = {1: 0, 2: 6, 4: 1, 8: 6}  # their columns' places in the order in which a narrow terminal drops them
MOST = 10**9  # prompts that nobody writes
_FACTORS = ("metric", "model", "strategy", "surrogate", "condition")


@dataclass(frozen=True)
class Power:
    """What a run could have found of one difference between a surrogate and the model.

    Attributes:
        metric, model, strategy, surrogate, condition: of the surrogate's rows.
        effect: the difference that is to be found, or the margin to agree within.
        between: standard deviation between prompts of the difference, seeds averaged out.
        within: that of the difference between the seeds of a prompt; 0 without sampling; None where a side has one seed
            of each prompt, and it is a part of `between`.
        prompts, seeds: of the run, where both sides have a value; seeds of the surrogate and of the model.
        found: the smallest difference that this run finds with 80 % power at the 5 % level, or the smallest margin that
            it could have shown; None where it has no interval.
        needed: seeds of each side -> prompts that find the effect, MOST + 1 where it is more than that.
        left_out: values that are missing.
        missing: why there is no estimate.
    """

    metric: str
    model: str | None
    strategy: str | None
    surrogate: str
    condition: str | None
    effect: float
    between: float | None = None
    within: float | None = None
    prompts: int = 0
    seeds: tuple[int, int] = (0, 0)
    found: float | None = None
    needed: Mapping[int, int] | None = None
    left_out: int = 0
    missing: str | None = None


def effects_of(texts: Iterable[str]) -> dict[str, float]:
    """Effects as they are written on the command line, such as "seq_rep_4=.05".

    Raises:
        UsageError: no such form, no number above 0, or a metric twice.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, size = (part.strip() for part in text.partition("="))
        if not (name and equals):
            raise UsageError(f"--effect {text!r}: write it as METRIC=SIZE, such as seq_rep_4=.05")
        try:
            value = float(size)
        except ValueError:
            raise UsageError(f"--effect {text!r}: {size!r} is no number") from None
        if name in found:
            raise UsageError(f"--effect: {name!r} is given twice")
        found[name] = value
    return found


def power_of(
    run: Any,
    effects: Mapping[str, float],
    models: Sequence[str] = (),
    strategies: Sequence[str] = (),
    surrogates: Sequence[str] = (),
    equivalence: bool = False,
) -> Table:
    """What a run could have found, and what finds an effect: one row for each model, strategy and surrogate.

    Args:
        run: an opened run.
        effects: metric -> difference of surrogate and model that is to be found, in the unit of the metric.
        models, strategies, surrogates: only these; none: all that the run has.
        equivalence: the effect is a margin, within which equal means are to be shown to agree.

    Raises:
        UsageError: an effect that is not above 0, or a name that the run does not have (the nearest is named).
    """
    return table(powers(run, effects, models, strategies, surrogates, equivalence), equivalence)


def powers(
    run: Any,
    effects: Mapping[str, float],
    models: Sequence[str] = (),
    strategies: Sequence[str] = (),
    surrogates: Sequence[str] = (),
    equivalence: bool = False,
) -> list[Power]:
    """As `power_of`, as records: by metric, then in the order of the rows, surrogates by the ladder."""
    if not effects:
        raise UsageError("--effect is needed, such as --effect seq_rep_4=.05")
    for name, effect in effects.items():
        if not (effect > 0 and math.isfinite(effect)):
            raise UsageError(f"--effect {name}={effect:g}: an effect is a number above 0")
    values = _values(run)
    _check_metrics(effects, values, set(run.rows["metric"]))
    values = values[values["metric"].isin(list(effects))]
    for column, wanted in (("model", models), ("strategy", strategies), ("surrogate", surrogates)):
        values = _chosen(values, column, wanted)
    own = values[~values["surrogate"].isin([MODEL, RESEEDED])]
    made = [
        _power(key, part, _of_model(values, key), effects[key[0]], equivalence)
        for key, part in _cells(own)
        if key[3] not in frames()
    ]
    ladder = registry.ladder({one.surrogate for one in made})
    order = {
        column: list(dict.fromkeys(getattr(one, column) for one in made))
        for column in ("model", "strategy", "condition")
    }
    metrics = list(effects)
    return sorted(
        made,
        key=lambda one: (
            metrics.index(one.metric),
            *(order[column].index(getattr(one, column)) for column in order),
            ladder.index(one.surrogate),
        ),
    )


def _cells(frame: pd.DataFrame) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    found: list[tuple[tuple[Any, ...], pd.DataFrame]] = []
    names: Any
    for names, group in frame.groupby(list(_FACTORS), sort=False, dropna=False, observed=True):
        found.append((tuple(None if pd.isna(name) else name for name in names), group))
    return found


def _values(run: Any) -> pd.DataFrame:
    """One row for each figure of a seed of a prompt that was judged, of both sides of a difference."""
    seen = Observed(run.rows)
    # where prompts are drawn anew in every repetition, the repetition is the unit, and seeds are not nested in prompts
    frame = seen.frame[(seen.frame["drawn"] == "prompt") & ~seen.frame["complement"].astype(bool)]
    judged = frame[frame["split"] != "train"]
    keys = ["experiment", *_FACTORS, "prompt", "group", "seed"]
    by = judged.groupby(keys, sort=False, dropna=False, observed=True)["value"]
    values = by.mean().reset_index()
    both = [
        (experiment, metric)
        for (experiment, metric), part in values.groupby(["experiment", "metric"], sort=False)
        if {MODEL, RESEEDED} & set(part["surrogate"]) and set(part["surrogate"]) - {MODEL} - frames()
    ]
    there = pd.MultiIndex.from_frame(values[["experiment", "metric"]])
    return values[there.isin(both)] if both else values.iloc[:0]


def _check_metrics(effects: Mapping[str, float], values: pd.DataFrame, present: set[str]) -> None:
    known = set(values["metric"])
    for name in effects:
        if name in known:
            continue
        what = "no rows per prompt of it for both a surrogate and the model" if name in present else "no such metric"
        near = nearest(name, known) if known else "; it has none for any metric"
        raise UsageError(f"--effect {name!r}: the run has {what}{near}")


def _chosen(values: pd.DataFrame, column: str, wanted: Sequence[str]) -> pd.DataFrame:
    """Only the rows of some models, strategies or surrogates, with those of the model itself."""
    if not wanted:
        return values
    rows = values if column != "surrogate" else values[~values["surrogate"].isin([MODEL, *frames()])]
    known = {str(name) for name in rows[column].dropna()}
    for name in wanted:
        if name not in known:
            raise UsageError(f"--{column} {name!r}{nearest(name, known)}")
    kept = set(wanted) | ({MODEL, RESEEDED} if column == "surrogate" else set())
    return values[values[column].isin(list(kept))]


def _of_model(values: pd.DataFrame, key: tuple[Any, ...]) -> pd.DataFrame:
    """The model's rows under the metric, model and strategy of a key, its second continuations among them.

    A surrogate's condition may say more than the model's, such as its law beside the start of both: of the model's
    conditions that agree with it the one that says most is taken.
    """
    part = values[values["surrogate"].isin([MODEL, RESEEDED])]
    for column, value in zip(_FACTORS[:3], key[:3], strict=True):
        part = part[part[column].isna() if value is None else part[column] == value]
    whole = _items(key[4])
    within = [text for text in part["condition"].drop_duplicates() if _items(text) <= whole]
    most = max(within, key=lambda text: len(_items(text)), default=None)
    part = part[part["condition"].isna() if most is None or pd.isna(most) else part["condition"] == most]
    by = part.groupby(["prompt", "group", "seed"], sort=False, dropna=False, observed=True)["value"]
    return by.mean().reset_index()


def _items(condition: Any) -> set[tuple[str, str]]:
    """The factors of a condition with their values; none where it is missing."""
    if condition is None or pd.isna(condition):
        return set()
    return {(name, json.dumps(value)) for name, value in json.loads(condition).items()}


def _power(key: tuple[Any, ...], part: pd.DataFrame, model: pd.DataFrame, effect: float, equivalence: bool) -> Power:
    metric, name, strategy, surrogate, condition = key
    missing = int(part["value"].isna().sum())
    one, other = part.dropna(subset="value"), model.dropna(subset="value")
    common = sorted(set(one["prompt"]) & set(other["prompt"]))
    one, other = one[one["prompt"].isin(common)], other[other["prompt"].isin(common)]
    seeds = tuple(int(side.groupby("prompt").size().max()) if len(side) else 0 for side in (one, other))
    shared: dict[str, Any] = {"prompts": len(common), "seeds": seeds, "left_out": missing}
    fixed = not is_sampled(strategy)
    try:
        spread = components(one, other, deterministic=fixed)
    except ValueError as error:
        return Power(metric, name, strategy, surrogate, condition, effect, missing=str(error), **shared)
    within = None if spread.seeds is None or spread.reference is None else math.sqrt(spread.seeds + spread.reference)
    return Power(
        metric,
        name,
        strategy,
        surrogate,
        condition,
        effect,
        math.sqrt(spread.groups + spread.prompts),
        within,
        found=_found(one, other, equivalence),
        needed=_needed(spread, effect, equivalence),
        **shared,
    )


def _found(one: pd.DataFrame, other: pd.DataFrame, equivalence: bool) -> float | None:
    """The smallest difference, or margin, that these rows themselves could have shown."""
    mean, reference = one.groupby("prompt")["value"].mean(), other.groupby("prompt")["value"].mean()
    groups = one.assign(group=one["group"].fillna(one["prompt"])).groupby("prompt")["group"].first()
    spread = group_mean((mean - reference).to_numpy(float), groups.loc[mean.index].to_numpy()).spread()
    if spread is None:
        return None
    return provable_margin(spread) if equivalence else spread.findable(1 - ALPHA)


def _needed(found: Components, effect: float, equivalence: bool) -> dict[int, int]:
    designs: dict[int, int] = {}
    for seeds in SEEDS:
        spread = found.spread(seeds)
        if spread is None:
            continue
        if spread > effect * math.sqrt(MOST / 10):
            designs[seeds] = MOST + 1
            continue
        same = next((n for count, n in designs.items() if found.spread(count) == spread), None)
        designs[seeds] = needed(found, effect, equivalence, [seeds])[0].prompts if same is None else same
    return designs


def table(found: Sequence[Power], equivalence: bool = False) -> Table:
    """The powers of one run as a table."""
    several = [
        column for column in _FACTORS if column == "surrogate" or len({getattr(one, column) for one in found}) > 1
    ]
    effects = {one.metric: one.effect for one in found}
    rows: list[list[Cell]] = []
    for one in found:
        many: list[Cell] = [_many((one.needed or {}).get(seeds)) for seeds in SEEDS]
        shown = {column: getattr(one, column) for column in several}
        named: list[Cell] = [factors(name) if column == "condition" else name for column, name in shown.items()]
        seeds = f"{one.seeds[0]} and {one.seeds[1]}"
        rows.append([*named, one.between, one.within, one.prompts, seeds, one.found, *many])
    columns = [
        *(Column(name, left=True) for name in several),
        Column("sd between prompts", priority=3),
        Column("sd of seeds", priority=4),
        Column("prompts", priority=2),
        Column("seeds", priority=5),
        Column("margin shown" if equivalence else "findable"),
        *(Column(f"prompts at {n} seed{'s' if n > 1 else ''}", priority=_DROPPED[n]) for n in SEEDS),
    ]
    what = "show agreement within" if equivalence else "find"
    title = f"Prompts that {what} {listed([f'{effect:g} in {name}' for name, effect in effects.items()])}"
    return Table("power", title, columns, rows, _caption(found, several, equivalence))


def _caption(found: Sequence[Power], several: Sequence[str], equivalence: bool) -> str:
    said = [f"{getattr(one, c)}" for one in found[:1] for c in ("model", "strategy") if c not in several]
    last = (
        "Margin shown: the smallest within which this run would have shown equal means to agree (80 % power, two "
        "one-sided tests at 5 %)."
        if equivalence
        else "Findable: the smallest difference that this run finds with 80 % power at the 5 % level."
    )
    parts = [
        f"{', '.join(word for word in said if word != 'None')}. " if said else "",
        "Surrogate minus model, paired by prompt; of agreement with the model, minus that of the model with another "
        "seed. Sd of seeds: of the difference of one seed of each side, 0 without sampling, none where a side has one "
        "seed (then it is a part of the other sd, and more seeds cannot be predicted). Seeds: of the surrogate and of "
        f"the model in this run. {last} Prompts at n seeds: with n seeds of each side.",
    ]
    if any(one.left_out for one in found):
        count = sum(one.left_out for one in found)
        parts.append(f" {count} value{'s are' if count > 1 else ' is'} missing and left out.")
    reasons = dict.fromkeys(one.missing for one in found if one.missing)
    parts += [f" No estimate: {reason}." for reason in reasons]
    return "".join(parts)


def _many(count: int | None) -> Cell:
    return "> 10^9" if count is not None and count > MOST else count


def answers(found: Sequence[Power], equivalence: bool = False) -> list[Answer]:
    """For each metric one sentence: could this run have found the effect, and what would?"""
    return [
        _answer([one for one in found if one.metric == metric], equivalence)
        for metric in dict.fromkeys(one.metric for one in found)
    ]


def _answer(found: Sequence[Power], equivalence: bool) -> Answer:
    metric, effect = found[0].metric, found[0].effect
    aim = f"agreement within {effect:g} in {metric}" if equivalence else f"a difference of {effect:g} in {metric}"
    question = f"How many prompts and seeds {'show' if equivalence else 'find'} {aim}?"
    known = [one for one in found if one.needed and 1 in one.needed]
    if not known:
        reason = next((one.missing for one in found if one.missing), "no difference has an estimate")
        return Answer(question, f"This run does not say: {reason}.", answered=False)
    reached = sum(one.found is not None and one.found <= effect for one in found)
    sizes = _range([one.prompts for one in found])
    verb = "could have shown" if equivalence else "could have found"
    many = f"{reached} of {len(found)} comparisons" if reached else f"none of {len(found)} comparisons"
    many = many if len(found) > 1 else ("its one comparison" if reached else "no comparison")
    said = f"With {sizes} prompts this run {verb} {aim} (80 % power, 5 % level) in {many}"
    limits = [one.found for one in found if one.found is not None]
    if limits and reached < len(found):
        said += f"; the least that it {verb} is {_short(min(limits))}"
        said += f" to {_short(max(limits))}" if _short(min(limits)) != _short(max(limits)) else ""
    return Answer(question, f"{said}. {_what_it_takes(known)}")


def _what_it_takes(known: Sequence[Power]) -> str:
    fixed = [one for one in known if not is_sampled(one.strategy)]
    drawn = [one for one in known if is_sampled(one.strategy)]
    parts = []
    if fixed:
        count = _range([(one.needed or {})[1] for one in fixed])
        parts.append(f"without sampling, where seeds change nothing, {count} prompts are needed")
    if drawn:
        text = f"with sampling {_range([(one.needed or {})[1] for one in drawn])} prompts at 1 seed of each side"
        most = [one.needed[SEEDS[-1]] for one in drawn if one.needed and SEEDS[-1] in one.needed]
        text += f" and {_range(most)} at {SEEDS[-1]}" if most else " (one seed does not say what more would do)"
        parts.append(text)
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}."


def _range(counts: Sequence[int]) -> str:
    low, high = (str(n) if n <= MOST else "more than 10^9" for n in (min(counts), max(counts)))
    return low if low == high else f"{low} to {high}"


def _short(value: float) -> str:
    return f"{value:.2g}"
