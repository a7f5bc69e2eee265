"""Forecasts of events along the model's own text: is the next token one of the context, which, and do loops come?

Every step of a judged text is an observation, with the model's tokens before it, so that nothing that a surrogate wrote
itself spoils its forecast. One step ahead the forecasts are read off its law; loops are counted in short rollouts. Two
references know nothing of the text: `base-rate`, how often the event comes in training texts, and `position-only`, a
logistic model of the position fitted to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.core.rows import MODEL, Rows
from harness.core.seeds import derive_seed
from harness.data.texts import FloatArray, IntArray
from harness.experiments.repetition.sources import BASE_RATE, BINS, POSITION
from harness.measures.loops import LOOP_ROUNDS, looping
from harness.stats.hazards import brier_scores, choice_scores, from_rollouts
from harness.stats.position_model import base_rate, fit_position
from harness.surrogates.vocabulary_base import Along, Law, ScoredText, VocabularySurrogate

PERIOD, AHEAD, EVERY = 32, 16, 8
"""Longest period of a loop, tokens within which it starts or ends, and steps from one forecast to the next."""
LOOP_EVENTS = {"brier_loop": False, "brier_leave": True}
"""Metric -> whether it is about steps inside a loop."""
_ROUNDING = 1e-9  # 1 minus a sum of probabilities that is smaller is nothing but rounding
_NEVER = -600.0  # log probabilities below stand for 0

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


def reused(text: ScoredText) -> BoolArray:
    """[n] whether each token of a continuation is in the context before it."""
    found: BoolArray = text.numbered.local[text.start :] < text.numbered.sizes(text.start)
    return found


@dataclass(frozen=True)
class Step:
    """Forecasts one step ahead along one text.

    Attributes:
        reuse: [n] probability that the next token is one of the context.
        nats: [n] log score of that, infinite where what came had probability 0.
        which: [k] scores of `choice_scores` among the types of the context, of the steps whose token is one of them;
            1 where the law gives the context nothing.
    """

    reuse: FloatArray
    nats: FloatArray
    which: FloatArray


def step_of(inside: FloatArray, log_next: FloatArray, text: ScoredText) -> Step:
    """What a law says one step ahead.

    Args:
        inside: [n, U] probability of the types of the context, 0 of all others.
        log_next: [n] log probability of the token that came.
        text: with n tokens in its continuation.
    """
    came = reused(text)
    total = np.clip(inside.sum(axis=1, dtype=np.float64), 0.0, 1.0)
    left = 1 - total
    at_least = np.where(log_next < _NEVER, 0.0, np.exp(np.maximum(log_next, _NEVER)))
    left = np.where(left > _ROUNDING, left, at_least)  # of new tokens: at least what the one that came has
    with np.errstate(divide="ignore"):
        nats = np.abs(np.log(np.where(came, total, left)))
    of = np.asarray(inside[came], dtype=np.float64) / np.maximum(total[came, None], 1e-300)
    chosen = of[np.arange(len(of)), text.numbered.local[text.start :][came]]
    return Step(total, nats, choice_scores(chosen, (of**2).sum(axis=1)))


@dataclass(frozen=True)
class LoopSteps:
    """The steps of one text at which loops are forecast: every eighth, with 16 tokens to come.

    Attributes:
        places: [m] tokens before the step, the prompt's included.
        inside: [m] whether these end in a loop.
        events: [m] outside a loop whether one starts within 16 tokens, inside whether it is left within them.
    """

    places: IntArray
    inside: BoolArray
    events: BoolArray


def loop_steps(tokens: IntArray, start: int) -> LoopSteps:
    """The steps of one text.

    Args:
        tokens: [T] of prompt and continuation.
        start: length of the prompt.
    """
    places = np.arange(start, len(tokens) - AHEAD + 1, EVERY)
    state = looping(tokens, PERIOD)
    inside = state[places]
    later = state[places[:, None] + np.arange(1, AHEAD + 1)]
    return LoopSteps(places, inside, (later != inside[:, None]).any(axis=1))


def loop_forecasts(
    surrogate: VocabularySurrogate, tokens: IntArray, steps: LoopSteps, rollouts: int, seed: int
) -> FloatArray:
    """[m] probability of the event at each step, from rollouts of 16 tokens that start there.

    Loops are looked for in the same tokens as those of the text: what stands before the step, then what was rolled out.

    Args:
        surrogate: fitted to the law that it is sampled from.
        tokens: [T] of the text.
        steps: of the text.
        rollouts: R, of each step.
        seed: of the rollouts.
    """
    prefixes = [tokens[:place] for place in steps.places.tolist() for _ in range(rollouts)]
    if not prefixes:
        return np.zeros(0)
    paths = np.asarray(surrogate.rollout(prefixes, AHEAD, seed, 1.0)).reshape(len(steps.places), rollouts, AHEAD)
    hits = np.zeros(len(steps.places))
    for row, place in enumerate(steps.places.tolist()):
        before = tokens[max(0, place - LOOP_ROUNDS * PERIOD) : place]
        whole = np.concatenate([np.broadcast_to(before, (rollouts, len(before))), paths[row]], axis=1)
        later = looping(whole, PERIOD)[:, -AHEAD:]
        hits[row] = (later != steps.inside[row]).any(axis=1).sum()
    return from_rollouts(hits, rollouts)


class FoldHazards:
    """Rows of the forecasts of one fold.

    Args:
        rows: where they go.
        s: settings of the unit.
        train: texts that the references are fitted to.
        judged: texts of the fold.
    """

    def __init__(
        self, rows: Rows, s: dict[str, Any], train: Sequence[ScoredText], judged: Sequence[ScoredText]
    ) -> None:
        self.rows, self.s, self.judged = rows, s, judged
        self.train = train
        self.rollouts: int = s.get("hazard_rollouts", 0)
        self.rungs = {"", *s.get("hazard_rungs", [])}  # that roll out; all, where none is named
        self.sums: dict[tuple[str, str], dict[str, FloatArray]] = {}
        self.loops = [loop_steps(text.tokens, text.start) for text in judged] if self.rollouts else []

    def of_model(self) -> None:
        """Rows of the model's own laws, and of the references."""
        for law in self.s["laws"]:
            for text in self.judged:
                own: Law = text.laws[law]
                self._step(MODEL, {"law": law}, text, step_of(own.inside, own.log_next, text))
            self._calibration(MODEL, {"law": law})
        events = np.concatenate([reused(text) for text in self.train]).astype(float)
        positions = np.concatenate([np.arange(len(text)) for text in self.train])
        rate, by_position = base_rate(events), fit_position(positions, events)
        for name in (BASE_RATE, POSITION):
            for text in self.judged:
                came, at = reused(text), np.arange(len(text))
                p = np.full(len(text), rate) if name == BASE_RATE else by_position.predict(at)
                alike = 1 / text.numbered.sizes(text.start)[came]  # every type of the context
                nats = -np.log(np.where(came, p, 1 - p))
                self._step(name, None, text, Step(p, nats, choice_scores(alike, alike)))
            self._calibration(name, None)
        if self.rollouts:
            self._loop_references()

    def of_text(self, name: str, condition: dict[str, Any], text: ScoredText, found: Along) -> None:
        """Rows of one surrogate along one text, one step ahead."""
        self._step(name, condition, text, step_of(np.exp(found.log_inside), found.log_next, text))

    def of_surrogate(self, name: str, condition: dict[str, Any], surrogate: VocabularySurrogate) -> None:
        """The other rows of one surrogate, when all texts are done: its calibration, and its forecasts of loops."""
        self._calibration(name, condition)
        if not self.rollouts or condition["law"] != "decoded" or name not in ("context-logit", "suffix"):
            return
        if len(self.rungs) > 1 and condition.get("rung", "") not in self.rungs:
            return
        number = derive_seed(self.s["seed"], "hazards", self.s["strategy"], name, condition.get("rung", ""))
        for text, steps in zip(self.judged, self.loops, strict=True):
            forecasts = loop_forecasts(surrogate, text.tokens, steps, self.rollouts, number)
            self._loops(name, condition, text, steps, forecasts)

    def _step(self, name: str, condition: dict[str, Any] | None, text: ScoredText, step: Step) -> None:
        came = reused(text).astype(float)
        where = self._where(name, condition, text)
        self.rows.add("brier_reuse", float(brier_scores(step.reuse, came).mean()), n=len(came), **where)
        gone = int(np.isinf(step.nats).sum())
        loss = None if gone else float(step.nats.mean())
        reason = f"infinite: {gone} of {len(came)} steps had probability 0" if gone else None
        self.rows.add("log_reuse", loss, missing=reason, n=len(came), **where)
        if name != POSITION:  # a position says nothing about which
            which = float(step.which.mean()) if len(step.which) else None
            reason = None if len(step.which) else "no token of the context came"
            self.rows.add("brier_which", which, missing=reason, n=len(step.which), **where)
        of_groups = self.sums.setdefault(_key(name, condition), {})
        sums = of_groups.setdefault(text.group, np.zeros((3, BINS)))
        place = np.minimum((step.reuse * BINS).astype(int), BINS - 1)
        for part, weights in enumerate((np.ones_like(came), step.reuse, came)):
            sums[part] += np.bincount(place, weights, BINS)

    def _calibration(self, name: str, condition: dict[str, Any] | None) -> None:
        """Mean forecast and share of events of each bin that holds a step, group by group."""
        for group, (n, forecast, event) in self.sums.pop(_key(name, condition), {}).items():
            for k in np.flatnonzero(n).tolist():
                where: dict[str, Any] = {"surrogate": name, "split": "held_out", "group": group, "n": int(n[k])}
                where["condition"] = {**(condition or {}), "bin": k, "event": "reuse"}
                self.rows.add("calibration_forecast", float(forecast[k] / n[k]), **where)
                self.rows.add("calibration_event", float(event[k] / n[k]), **where)

    def _loop_references(self) -> None:
        known = [(text.start, loop_steps(text.tokens, text.start)) for text in self.train]
        fits: dict[bool, Any] = {}
        for kind in (False, True):
            events = np.concatenate([of.events[of.inside == kind] for _, of in known]).astype(float)
            positions = np.concatenate([of.places[of.inside == kind] - start for start, of in known])
            fits[kind] = base_rate(events), fit_position(positions, events) if len(events) else None
        for text, steps in zip(self.judged, self.loops, strict=True):
            for name in (BASE_RATE, POSITION):
                p = np.zeros(len(steps.places))
                for kind, (rate, by_position) in fits.items():
                    own = steps.inside == kind
                    flat = name == BASE_RATE or by_position is None  # nothing to fit: the rate, which is then .5
                    p[own] = rate if flat else by_position.predict(steps.places[own] - text.start)
                self._loops(name, None, text, steps, p)

    def _loops(
        self, name: str, condition: dict[str, Any] | None, text: ScoredText, steps: LoopSteps, forecasts: FloatArray
    ) -> None:
        where = self._where(name, condition, text)
        for metric, kind in LOOP_EVENTS.items():
            own = steps.inside == kind
            if own.any():
                score = float(brier_scores(forecasts[own], steps.events[own].astype(float)).mean())
                self.rows.add(metric, score, n=int(own.sum()), **where)
            else:
                self.rows.add(metric, None, missing=f"no step {'inside' if kind else 'outside'} a loop", n=0, **where)

    def _where(self, name: str, condition: dict[str, Any] | None, text: ScoredText) -> dict[str, Any]:
        where = {"surrogate": name, "condition": condition, "split": "held_out"}
        return {**where, "prompt": text.prompt, "group": text.group}


def _key(name: str, condition: dict[str, Any] | None) -> tuple[str, str]:
    return name, repr(sorted((condition or {}).items()))
