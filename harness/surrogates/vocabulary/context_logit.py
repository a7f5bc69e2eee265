"""`context-logit`: a conditional logit over all tokens, on named statistics of the context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ccmc import BaseTransition, ContextLogit, context_rows, fit_context_logit
from ccmc.context_logit import statistics_weights
from harness.core.registry import register
from harness.data.texts import FloatArray
from harness.surrogates.base import Fact
from harness.surrogates.vocabulary_base import Law, LogitSurrogate, ScoredText, VocabularyObservations


@register.surrogate(
    "context-logit",
    of="vocabulary",
    sees=("counts", "query", "order"),
    parameters="one or two a statistic",
    rollout=True,
    open=True,
    rung=100,
    about="base transitions and statistics of the context, weighed together",
    cost="seconds",
    source="this project; with counts alone and closed, Ildiz et al. 2024",
)
class ContextLogitSurrogate(LogitSurrogate):
    """Weights by maximum likelihood, standard errors clustered by group.

    Attributes:
        closed: only tokens of the context can come.
        weights_: name -> fitted weight.
        curvature_: [W, W] second derivatives of what the fit minimised, the sum over choices, at its weights.
        choices_: how many choices it was fitted to.

    Args:
        statistics: names of `ccmc.context_logit.STATISTICS`.
        base: which base transitions of the observations it weighs.
        ridge: of the fit.
    """

    closed: ClassVar[bool] = False

    def __init__(
        self,
        statistics: Sequence[str] = ("counts",),
        base: str = "model",
        ridge: float = 1e-6,
    ) -> None:
        self.statistics, self.base, self.ridge = tuple(statistics), base, ridge

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights of statistics."""
        found = statistics_weights(self.statistics)
        return tuple(name for name in found if not (self.closed and name == "present"))  # all candidates are

    def fit(self, observations: VocabularyObservations) -> ContextLogitSurrogate:
        base, of_texts = observations.bases[self.base], observations.to_fit(self.base)
        texts, names = observations.texts, self.weights
        rows = context_rows(
            [text.tokens for text in texts],
            names,
            of_texts,
            [text.start for text in texts],
            targets=[
                targets_of(text, text.laws[observations.law], one, self.base)
                for text, one in zip(texts, of_texts, strict=True)
            ],
            dtype=np.float32,
            closed=self.closed,
        )
        groups = np.repeat([text.group for text in texts], [len(text) for text in texts])
        flat = base.tokens.shape[0] == 0 and bool(np.ptp(base.log_unigram) == 0)
        fit = fit_context_logit(rows, groups, self.ridge, fixed={"base": 1.0} if flat else None)
        several = len(set(groups.tolist())) > 1  # errors are clustered by group
        errors = fit.standard_errors().tolist() if several else []
        self.weights_ = dict(zip(fit.names, fit.weights.tolist(), strict=True))
        self.errors_ = dict(zip(fit.names, errors, strict=False))
        free = np.ix_(fit.free, fit.free)
        self.curvature_ = fit.curvature[free] + self.ridge * np.eye(len(fit.names))
        self.choices_ = len(rows)
        self.loss_ = -fit.log_likelihood / len(rows)
        self.model_ = ContextLogit.from_fit(fit, base, self.closed)
        return self

    def extra_rows(self) -> list[Fact]:
        found = [Fact("training_loss", self.loss_)]
        for name, value in self.weights_.items():
            found += [Fact("weight", value, {"condition": {"weight": name}})]
            if name in self.errors_:
                found += [Fact("weight_error", self.errors_[name], {"condition": {"weight": name}})]
        return found


def targets_of(text: ScoredText, law: Law, base: BaseTransition, name: str) -> tuple[FloatArray, FloatArray]:
    """Targets along a text as `ccmc.context_rows` takes them."""
    inside = np.asarray(law.inside, dtype=np.float64)
    if base.tokens.shape[0] == 0 and np.ptp(base.log_unigram) == 0:  # flat: every token has the same log P0
        expected = np.full(len(text), base.log_unigram[0])
    else:
        expected = law.log_base[name]
    types, query = text.numbered.types, text.tokens[text.start - 1 : -1]
    log = base.log_at(np.repeat(query, len(types)), np.tile(types, len(query))).reshape(len(query), -1)
    within = np.where(inside > 0, inside * np.where(inside > 0, log, 0.0), 0.0).sum(axis=1)
    new = law.new
    return inside, np.column_stack([new, np.where(new > 0, np.minimum(expected - within, 0.0), 0.0)])
