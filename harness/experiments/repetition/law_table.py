"""How much: is the law of repetition over prompts the model's, whichever prompt a continuation belongs to?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.core.lazy import LazyRows
from harness.core.once import among
from harness.core.records import Cell, Column, Table
from harness.core.rows import MODEL, RESEEDED
from harness.core.seeds import derive_seed
from harness.experiments._shared.leading import Leading
from harness.experiments.repetition.chosen import choices, with_chosen
from harness.experiments.repetition.parts import FIXED, Part, one_law_note, prompts_of, source_name
from harness.experiments.repetition.sources import Source
from harness.experiments.repetition.vectors import FIGURES
from harness.stats.contest import ALPHA
from harness.stats.intervals import Floats
from harness.stats.pairs import LawDistance, law_distance
from harness.stats.proper import euclidean
from harness.stats.significance import holm


def how_much_table(rows: pd.DataFrame, found: Sequence[Part]) -> Table:
    """One line per surrogate: the distance of its law over prompts from the model's.

    Args:
        rows: of the experiment, from one run.
        found: its parts.
    """
    places = [(part, source) for part in found for source in _sources(part)]
    lead = Leading(("model", "strategy", "law"), [(part.model, part.strategy, one.law or "–") for part, one in places])

    def body() -> list[list[Cell]]:
        held_out = rows[among(rows, "split", "held_out") & among(rows, "metric", *FIGURES)]
        every = with_chosen(held_out, choices(rows))
        own = dict(iter(every.groupby(["model", "strategy"], sort=False)))
        drawn = {(p.model, p.strategy): draws_of(own.get((p.model, p.strategy), every[:0]), p) for p in found}
        known: dict[tuple[str, str], dict[bytes, Floats]] = {key: {} for key in drawn}
        keys = [(part.model, part.strategy) for part, _ in places]
        distances = [distance_of(drawn[key], one, known[key]) for key, (_, one) in zip(keys, places, strict=True)]
        tested = [place for place, one in enumerate(distances) if one is not None]
        p = dict(zip(tested, holm(np.array([distances[place].p for place in tested])), strict=True))  # type: ignore[union-attr]
        made: list[list[Cell]] = []
        for place, ((part, source), one) in enumerate(zip(places, distances, strict=True)):
            first = [*lead.cells((part.model, part.strategy, source.law or "–")), source_name(source)]
            if one is None:
                made.append([*first, None, None, None, None])
                continue
            word = "differs" if p[place] <= ALPHA else "no difference found"
            made.append([*first, one.value, float(p[place]), word, one.n])
        return made

    return Table(
        "repetition.how-much",
        f"Does the law over prompts agree, whichever prompt? {lead.same}",
        [
            *lead.columns,
            Column("walks of", left=True),
            Column("distance"),
            Column("p", priority=1),
            Column("verdict", left=True),
            Column("prompts", priority=2),
        ],
        LazyRows(body),
        f"{prompts_of(found)}.{one_law_note(found)} distance: the energy distance of walks and the "
        "model's continuations over different "
        f"prompts, of the vector of {', '.join(FIGURES)}, each in standard deviations of the model's; 0 for equal "
        "laws, of which an estimate can be negative. p: of equal laws, exchanging the sides of whole groups, after "
        "Holm's correction over the table. It asks how much is repeated; which prompt it is counts for nothing. "
        f"{FIXED[RESEEDED]}: one half of the seeds against the other.",
    )


def _sources(part: Part) -> list[Source]:
    own = [one for one in part.sources("seq_rep_4", part.start) if one.name not in (MODEL, RESEEDED)]
    return own if part.one else [*own, Source(RESEEDED, t0=part.start)]


@dataclass(frozen=True)
class Draws:
    """The figures of one source's continuations.

    Attributes:
        prompts, groups, seeds: [n] of each.
        values: [n, figures].
    """

    prompts: NDArray[np.str_]
    groups: NDArray[np.str_]
    seeds: NDArray[np.int64]
    values: Floats

    def only(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Draws:
        return Draws(self.prompts[chosen], self.groups[chosen], self.seeds[chosen], self.values[chosen])

    def by_prompt(self) -> Draws:
        """The same in the order of prompts."""
        return self.only(np.argsort(self.prompts, kind="stable"))


def draws_of(rows: pd.DataFrame, part: Part) -> dict[Source, Draws]:
    """Source -> its continuations; those that lack a figure are left out."""
    own = rows[
        (rows["model"] == part.model)
        & (rows["strategy"] == part.strategy)
        & (rows["split"] == "held_out")
        & rows["metric"].isin(FIGURES)
        & rows["seed"].notna()
    ]
    wanted = {_condition(source): source for source in [*_sources(part), part.fixed(MODEL)]}
    if own.empty:
        return {}
    (name, names), (condition, conditions) = (pd.factorize(own[column]) for column in ("surrogate", "condition"))
    said = ["", *conditions]
    number, pairs = pd.factorize(name * len(said) + condition + 1)  # without a condition it is -1
    sources = [wanted.get((str(names[one // len(said)]), str(said[one % len(said)]))) for one in pairs.tolist()]
    known = np.array([source is not None for source in sources], dtype=bool)[number]
    own = own.assign(source=number)[known]
    wide = own.pivot_table(index=["source", "prompt", "group", "seed"], columns="metric", values="value")
    wide = wide.reindex(columns=list(FIGURES)).dropna()
    levels = [wide.index.get_level_values(level) for level in range(4)]
    whose, seeds = levels[0].to_numpy(dtype=np.int64), levels[3].to_numpy(dtype=np.int64)
    every = Draws(levels[1].to_numpy(dtype=str), levels[2].to_numpy(dtype=str), seeds, wide.to_numpy(dtype=np.float64))
    edges = np.searchsorted(whose, np.arange(len(sources) + 1))
    return {
        source: every.only(np.arange(edges[place], edges[place + 1]))
        for place, source in enumerate(sources)
        if source is not None
    }


def _condition(source: Source) -> tuple[str, str]:
    """How rows name a source."""
    return source.name, json.dumps(source.condition, sort_keys=True) if source.condition else ""


def distance_of(
    drawn: dict[Source, Draws], source: Source, known: dict[bytes, Floats] | None = None
) -> LawDistance | None:
    """The distance of one source from the model, over the prompts that both have; None without two groups of them.

    Args:
        drawn: of `draws_of`.
        source: a surrogate, or the model's other seeds.
        known: distances among the model's own continuations, by the prompts; what is missing is added.
    """
    real = next((draws for one, draws in drawn.items() if one.name == MODEL), None)
    mine = real if source.name == RESEEDED else drawn.get(source)
    if real is None or mine is None or not (len(real.values) and len(mine.values)):
        return None
    spread = real.values.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    known = {} if known is None else known
    if source.name == RESEEDED:
        odd = real.seeds % 2 == 1
        mine, real, known = real.only(odd), real.only(~odd), {}
    prompts = np.intersect1d(mine.prompts, real.prompts)
    group_of = dict(zip(real.prompts.tolist(), real.groups.tolist(), strict=True))
    groups = [group_of[name] for name in prompts.tolist()]
    if len(set(groups)) < 2:
        return None
    mine, real = (one.only(np.isin(one.prompts, prompts)).by_prompt() for one in (mine, real))
    same = prompts.tobytes()
    if same not in known:
        known[same] = _between(real, real, scale)
    seed = derive_seed(0, "law distance", source.name, source.law, source.rung)
    return law_distance(_between(mine, real, scale), _between(mine, mine, scale), known[same], np.array(groups), seed)


def _between(a: Draws, b: Draws, scale: Floats) -> Floats:
    """[prompts, prompts] mean distance of the continuations of two prompts; both sides are in the order of prompts."""
    found = euclidean(a.values, b.values, scale)
    for axis, side in enumerate((a, b)):
        _, first, count = np.unique(side.prompts, return_index=True, return_counts=True)
        if (count == count[0]).all():
            shape = (len(count), count[0], found.shape[1]) if axis == 0 else (found.shape[0], len(count), count[0])
            found = found.reshape(shape).mean(axis=axis + 1)
        else:
            found = np.add.reduceat(found, first, axis=axis) / np.expand_dims(count, 1 - axis)
    return found
