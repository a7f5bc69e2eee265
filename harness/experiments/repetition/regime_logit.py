"""Two regimes of a context logit as a surrogate over the whole vocabulary: a refinement of a rung of the ladder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccmc import RegimeLogit, RegimeRows, fit_regimes
from ccmc.context_logit import statistics_weights
from harness.data.texts import IntArray
from harness.surrogates.base import Fact
from harness.surrogates.vocabulary_base import Along, ScoredText, VocabularyObservations, VocabularySurrogate


class RegimeSurrogate(VocabularySurrogate):
    """Two context logits with a hidden state, fitted to training texts.

    Args:
        statistics: names of `ccmc.context_logit.STATISTICS`.
        base: which base transitions of the observations it weighs.
    """

    model_: RegimeLogit

    def __init__(self, statistics: Sequence[str], base: str) -> None:
        self.statistics, self.base = tuple(statistics), base

    def fit(self, observations: VocabularyObservations) -> RegimeSurrogate:
        base, of_texts = observations.bases[self.base], observations.to_fit(self.base)
        texts = observations.texts
        flat = base.tokens.shape[0] == 0 and bool(np.ptp(base.log_unigram) == 0)
        rows = RegimeRows.of(
            [text.tokens for text in texts],
            statistics_weights(self.statistics),
            of_texts,
            [text.start for text in texts],
            observations.targets(self.base),
            np.float32,
        )
        self.fit_ = fit_regimes(rows, fixed={"base": 1.0} if flat else None)
        found = self.fit_.model
        self.model_ = RegimeLogit(found.weights, base, found.transition, found.first)
        return self

    def along(self, text: ScoredText) -> Along:
        return Along(*self.model_.along(text.tokens, text.start))

    def rollout(self, prompts: Sequence[IntArray], steps: int, seed: int, temperature: float | None = 1.0) -> IntArray:
        paths: IntArray = self.model_.rollout(prompts, steps, seed, temperature)
        return paths

    def extra_rows(self) -> list[Fact]:
        found = [Fact("training_loss", min(self.fit_.losses)), Fact("regime_share", self.fit_.share)]
        for state, weights in enumerate(self.model_.weights):
            where = {"state": state}
            found.append(Fact("regime_stay", float(self.model_.transition[state, state]), {"condition": where}))
            found += [
                Fact("weight", value, {"condition": {**where, "weight": name}}) for name, value in weights.items()
            ]
        return found
