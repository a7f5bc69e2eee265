"""Refinements of rungs of the ladder of `context-logit`: fitted and walked as rungs are, beside the rung itself.

`on_policy`: a rung is fitted to the model's texts, walks from the training prompts, the model gives its law along these
walks, and the rung is fitted again to texts and walks of all rounds together. A long match by chance, which a walk has
in its own text and the model's texts have not, then has a target. This is DAgger with a law in the place of an action.

`alternatives`: other ladders, entry by entry beside the entries of `statistics`.

`regimes`: two sets of weights and a hidden state that tends to stay, see `ccmc.regimes`.

Source: Ross, Gordon and Bagnell 2011, A reduction of imitation learning and structured prediction to no-regret online
learning.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.continuations import Continuation
from harness.experiments._shared.ladder import rungs
from harness.experiments.repetition.opened import Opened
from harness.experiments.repetition.regime_logit import RegimeSurrogate
from harness.experiments.repetition.scores import laws_along
from harness.experiments.repetition.settings import ON_POLICY, REGIMES, other_rungs
from harness.experiments.repetition.sources import DECODED, LOGIT
from harness.experiments.repetition.units import make, one_step, walk
from harness.experiments.repetition.walks_kept import keep_walks
from harness.runs.units import Work
from harness.surrogates.vocabulary_base import ScoredText, VocabularySurrogate


def on_policy(work: Work) -> pd.DataFrame:
    """Do the refits of one fold on its own walks."""
    from harness.models import loading

    s, opened = work.settings, Opened.of(work)
    work.progress(0.0, "loading the model")
    model = loading.model_of(work.local)
    judged = _Refined(work, opened)
    chosen = _wanted(s, s["on_policy_rungs"])
    total = len(chosen) * (s["on_policy"] + 1)
    opened.compute_contexts(chosen[-1][1])
    for place, (rung, statistics) in enumerate(chosen):
        surrogate = make(LOGIT, statistics, opened.chosen).fit(opened.observations(DECODED))
        walks: list[ScoredText] = []
        for number in range(s["on_policy"]):
            work.progress((place * (s["on_policy"] + 1) + number) / total, f"{rung}: walks of round {number + 1}")
            seed = derive_seed(s["seed"], ON_POLICY, s["strategy"], s["judged"], rung, number)
            walks += walked(surrogate, model, opened, s, seed)
            near = surrogate.weights_  # type: ignore[attr-defined]
            surrogate = make(LOGIT, statistics, opened.chosen, near).fit(opened.observations(DECODED, walks))
        judged.add(surrogate, rung, ON_POLICY)
    return judged.done()


def alternatives(work: Work) -> pd.DataFrame:
    """Do the other ladders of one fold."""
    s, opened = work.settings, Opened.of(work)
    judged = _Refined(work, opened)
    plan = other_rungs(tuple(s["statistics"]), s["alternatives"])
    for index, ((name, rung), statistics) in enumerate(plan.items()):
        work.progress(index / len(plan), f"{name} at {rung}")
        judged.add(make(LOGIT, statistics, opened.chosen).fit(opened.observations(DECODED)), rung, name)
    return judged.done()


def regimes(work: Work) -> pd.DataFrame:
    """Do the fits of one fold with a hidden state."""
    s, opened = work.settings, Opened.of(work)
    judged, chosen = _Refined(work, opened), _wanted(work.settings, s["regimes"])
    for place, (rung, statistics) in enumerate(chosen):
        work.progress(place / len(chosen), f"{REGIMES} at {rung}")
        judged.add(RegimeSurrogate(statistics, opened.chosen).fit(opened.observations(DECODED)), rung, REGIMES)
    return judged.done()


def _wanted(s: dict[str, Any], which: str) -> list[tuple[str, tuple[str, ...]]]:
    """Rungs with their statistics: `all`, or the `last`."""
    every = list(rungs(tuple(s["statistics"])).items())
    return every if which == "all" else every[-1:]


def walked(
    surrogate: VocabularySurrogate, model: Any, opened: Opened, s: dict[str, Any], seed: int
) -> list[ScoredText]:
    """A walk from the prompt of every training text, as long as the text, with the model's laws along it.

    Args:
        surrogate: fitted to the law that it is sampled from.
        model: of `loading`.
        opened: the fold.
        s: settings of the unit.
        seed: of the walks.
    """
    train = opened.train
    paths = surrogate.rollout([text.tokens[: text.start] for text in train], max(map(len, train)), seed)
    found = []
    for text, path in zip(train, paths, strict=True):
        walk_of = np.asarray(path[: len(text)], dtype=np.int64)
        c = Continuation(text.prompt, "train", s["strategy"], 0, text.tokens[: text.start], walk_of, text.group)
        laws = laws_along(model, c, s["temperature"], s["options"], opened.bases_of(text.prompt))
        found.append(replace(text, tokens=c.tokens, laws=laws))
    return found


class _Refined:
    """Rows and walks of the refinements of one fold."""

    def __init__(self, work: Work, opened: Opened) -> None:
        self.work, self.opened = work, opened
        self.rows: Rows = opened.rows(work)
        self.walks: list[dict[str, Any]] = []

    def add(self, surrogate: VocabularySurrogate, rung: str, refined: str) -> None:
        """What one fit found, one step ahead along the judged texts and in walks from their prompts."""
        condition = {"law": DECODED, "rung": rung, "refined": refined}
        for fact in surrogate.extra_rows():
            where = {**fact.where, "condition": {**condition, **fact.where.get("condition", {})}}
            self.rows.add(fact.metric, fact.value, surrogate=LOGIT, split="train", **where)
        for text in self.opened.judged:
            one_step(self.rows, LOGIT, condition, surrogate.along(text), text, text.laws[DECODED])
        found = walk(self.work.settings, surrogate, LOGIT, condition, self.opened.judged)
        self.walks += [{**row, "refined": refined} for row in found]

    def done(self) -> pd.DataFrame:
        """Keep the walks; the rows."""
        keep_walks(self.work.folder, self.walks, self.work.settings)
        return self.rows.frame()
