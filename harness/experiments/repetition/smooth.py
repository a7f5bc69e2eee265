"""The unit of one fit for all strategies: judged at a temperature that it did not see.

Weights are a polynomial in the temperature (greedy decoding is temperature 0, its law is one-hot), fitted to what the
folds of the seen strategies have kept: their weights, with their curvatures as precision. That is the joint fit of all
of them to second order. The weights at the unseen temperature are judged on the texts of the unseen strategy as a
fitted rung is. The null takes the weights of the nearest seen temperature as they are; of two that are equally near,
those with the smaller log loss on training texts of the unseen strategy, which favours the null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ccmc import BaseTransition, ContextLogit
from harness.data.texts import FloatArray
from harness.experiments._shared.ladder import rungs
from harness.experiments.repetition.kept import KeptFit, kept
from harness.experiments.repetition.opened import Opened
from harness.experiments.repetition.scores import read_scored
from harness.experiments.repetition.sources import DECODED
from harness.experiments.repetition.units import one_step, walk
from harness.experiments.repetition.unseen import NEAREST, SMOOTH
from harness.experiments.repetition.walks_kept import keep_walks
from harness.runs.units import Work
from harness.surrogates._fitting.smooth import smooth_weights, weights_at
from harness.surrogates.vocabulary.context_logit import ContextLogitSurrogate
from harness.surrogates.vocabulary_base import LogitSurrogate, ScoredText, VocabularyObservations


class GivenLogit(LogitSurrogate):
    """A context logit whose weights were found elsewhere.

    Args:
        names: of the weights.
        weights: [W].
        base: P0.
    """

    def __init__(self, names: Sequence[str], weights: FloatArray, base: BaseTransition) -> None:
        self.model_ = ContextLogit(dict(zip(names, weights.tolist(), strict=True)), base)


def predict(work: Work) -> pd.DataFrame:
    """Do one fold of one unseen strategy."""
    s, opened = work.settings, Opened.of(work)
    work.progress(0.0, "reading the fits of the seen strategies")
    seen, base = _seen(work, opened)
    temperatures = np.array([strategy["temperature"] for strategy in s["seen"]])
    rows, walks = opened.rows(work), []
    ladder = list(rungs(tuple(s["statistics"])))
    for index, rung in enumerate(ladder):
        fits = [of[rung] for of in seen]
        names = fits[0].names
        coefficients = smooth_weights(
            temperatures, np.stack([f.weights for f in fits]), np.stack([f.curvature for f in fits]), s["degree"]
        )
        smooth = weights_at(coefficients, s["at"])
        near = [GivenLogit(names, fits[place].weights, opened.known[base]) for place in nearest(temperatures, s["at"])]
        null = near[0] if len(near) == 1 else min(near, key=lambda one: _loss(one, opened.train))
        condition = {"law": DECODED, "rung": rung}
        for name, value in zip(names, smooth.tolist(), strict=True):
            rows.add("weight", value, surrogate=SMOOTH, split="train", condition={**condition, "weight": name})
        for share, (source, surrogate) in enumerate(
            ((SMOOTH, GivenLogit(names, smooth, opened.known[base])), (NEAREST, null))
        ):
            work.progress((index + share / 2) / len(ladder), f"judging {source}, {rung}")
            for text in opened.judged:
                one_step(rows, source, condition, surrogate.along(text), text, text.laws[DECODED])
            walks += walk(s, surrogate, source, condition, opened.judged)
    keep_walks(work.folder, walks, s)
    return rows.frame()


def nearest(temperatures: FloatArray, at: float) -> list[int]:
    """Places of the temperatures that are nearest to one: two where they are equally near, but for rounding."""
    distances = np.abs(temperatures - at)
    least = float(distances.min())
    return [place for place, one in enumerate(distances.tolist()) if math.isclose(one, least, rel_tol=1e-9)]


def _loss(surrogate: LogitSurrogate, texts: Sequence[ScoredText]) -> float:
    """Log loss over all tokens of texts, in nats."""
    return -sum(float(surrogate.along(text).log_next.sum()) for text in texts)


def _seen(work: Work, opened: Opened) -> tuple[list[dict[str, KeptFit]], str]:
    """The fits of every seen strategy, by rung, and the name of the base transitions that all of them weigh.

    Each fold takes the neutral context that predicts its own training texts best. One fit has one: where they differ,
    the one that predicts those of all seen strategies best, and the others are fitted again.
    """
    s = work.settings
    given = {name: opened.known[name] for name in opened.names}
    inputs = work.inputs[2 + len(given) :]
    folders = [inputs[3 * place : 3 * place + 3] for place in range(len(s["seen"]))]
    found = [kept(folder) for _, _, folder in folders]
    names = [next(iter(fits.values())).base for fits in found]
    if len(set(names)) == 1:
        return found, names[0]
    texts = [text for of in folders for text in _train(of, s, given)]
    base = max(given, key=lambda name: sum(float(text.laws["raw"].log_base[name].sum()) for text in texts))
    for place, name in enumerate(names):
        if name != base:
            work.progress(0.0, f"fitting {s['seen'][place]['strategy']} again, after {base!r}")
            found[place] = _fit(_train(folders[place], s, given), s, given, base)
    return found, base


def _train(folders: Sequence[Path], s: dict[str, Any], given: Mapping[str, BaseTransition]) -> list[ScoredText]:
    """Training texts of a seen strategy."""
    return [text for text in read_scored(folders[0], folders[1], s, list(given)) if text.fold != s["judged"]]


def _fit(
    train: Sequence[ScoredText], s: dict[str, Any], given: Mapping[str, BaseTransition], base: str
) -> dict[str, KeptFit]:
    """Every rung, fitted with other base transitions."""
    observations = VocabularyObservations(train, DECODED, given, given[base].vocab_size)
    return {
        rung: KeptFit.of(ContextLogitSurrogate(statistics, base).fit(observations))
        for rung, statistics in rungs(tuple(s["statistics"])).items()
    }
