"""What every unit of one fold reads: texts with the model's laws, split, and the base transitions it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ccmc import BaseTransition
from ccmc.context_logit import statistics_weights
from harness.core.rows import Rows
from harness.experiments.repetition import bases
from harness.experiments.repetition.bigrams import BIGRAM, Bigrams
from harness.experiments.repetition.scores import read_scored, read_vocabulary_size
from harness.experiments.repetition.settings import NO_BASE
from harness.runs.units import Work
from harness.surrogates.vocabulary_base import ScoredText, VocabularyObservations


@dataclass(frozen=True)
class Opened:
    """The inputs of a unit of one fold.

    Attributes:
        number: of the fold.
        train, judged: texts of the other folds, and of this one.
        known: base transitions by name: all alike, by neutral context, and the bigram to judge with.
        losses: name -> nats by which base transitions predict the model's raw law along training texts; without those
            that are all alike.
        counted: bigrams that have not counted the text they are fitted to; None without them.
        size: V.
    """

    number: int
    train: list[ScoredText]
    judged: list[ScoredText]
    known: Mapping[str, BaseTransition]
    losses: Mapping[str, float]
    counted: Bigrams | None
    size: int

    @classmethod
    def of(cls, work: Work) -> Opened:
        """Read them: the model's texts, their laws, and base transitions are the first inputs of the unit.

        Raises:
            ValueError: there is no training text or none to be judged.
        """
        s = work.settings
        folders = work.inputs[2 : 2 + len(s["neutral"])]
        given = {name: bases.load(folder) for name, folder in zip(s["neutral"], folders, strict=True)}
        names = [*given, *([BIGRAM] if "bigram" in s else [])]
        texts = read_scored(work.inputs[0], work.inputs[1], s, names)
        train = [text for text in texts if text.fold != s["judged"]]
        judged = [text for text in texts if text.fold == s["judged"]]
        if not train or not judged:
            raise ValueError(
                "the model ended every training or every judged prompt at once; there is nothing to fit or judge"
            )
        size, counted = read_vocabulary_size(work.inputs[1]), None
        known = {NO_BASE: BaseTransition.flat(size), **given}
        if BIGRAM in names:
            counted = Bigrams([(text.prompt, text.group, text.fold, text.tokens) for text in texts], size, s["bigram"])
            known[BIGRAM] = counted.to_judge(s["judged"])
        return cls(s["judged"], train, judged, known, _losses(train, names), counted, size)

    @property
    def names(self) -> list[str]:
        """Base transitions that could be chosen; none where all are alike."""
        return list(self.losses)

    @property
    def chosen(self) -> str:
        """The base transitions that predict the model's raw law best along training texts."""
        return min(self.losses, key=lambda name: self.losses[name]) if self.losses else NO_BASE

    def bases_of(self, prompt: str) -> dict[str, BaseTransition]:
        """The base transitions that texts of a training prompt are fitted with."""
        found = {name: self.known[name] for name in self.names}
        return found if self.counted is None else {**found, BIGRAM: self.counted.to_fit(self.number, prompt)}

    def observations(self, law: str, more: Sequence[ScoredText] = ()) -> VocabularyObservations:
        """What surrogates are fitted to: training texts, and others of the same prompts."""
        if not more:
            return self._of_train.under(law)
        return self._observations(law, [*self.train, *more])

    @cached_property
    def _of_train(self) -> VocabularyObservations:
        return self._observations("decoded", self.train)

    def compute_contexts(self, statistics: Sequence[str]) -> None:
        """Compute these statistics of all contexts at once: fits, and what they give, read some of them.

        Args:
            statistics: of all rungs that will be fitted with the chosen base transitions.
        """
        names = statistics_weights(statistics)
        self._of_train.contexts(self.chosen, names)
        for text in self.judged:
            text.contexts(self.known[self.chosen], names)

    def _observations(self, law: str, texts: Sequence[ScoredText]) -> VocabularyObservations:
        of_texts = {}
        if self.counted is not None:
            of_texts[BIGRAM] = [self.counted.to_fit(self.number, text.prompt) for text in texts]
        return VocabularyObservations(texts, law, self.known, self.size, of_texts)

    def rows(self, work: Work) -> Rows:
        """Rows of the fold, none yet."""
        s = work.settings
        shared = {"model": s["model"], "revision": s["revision"], "strategy": s["strategy"], "fold": s["judged"]}
        return Rows(experiment="repetition", **shared)


def _losses(train: Sequence[ScoredText], names: Sequence[str]) -> dict[str, float]:
    count = sum(map(len, train))
    return {name: -sum(float(text.laws["raw"].log_base[name].sum()) for text in train) / count for name in names}
