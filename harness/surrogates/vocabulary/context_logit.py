"""`context-logit`: a conditional logit over all tokens, on named statistics of the context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from ccmc import ContextLogit, fit_context_logit
from ccmc.context_logit import statistics_weights
from harness.core.registry import register
from harness.surrogates.base import Fact
from harness.surrogates.vocabulary_base import LogitSurrogate, VocabularyObservations


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
        start: weights to start the fit at, by name, such as those of a fit with fewer statistics: it is faster and
            ends where it does without.
    """

    closed: ClassVar[bool] = False

    def __init__(
        self,
        statistics: Sequence[str] = ("counts",),
        base: str = "model",
        ridge: float = 1e-6,
        start: Mapping[str, float] | None = None,
    ) -> None:
        self.statistics, self.base, self.ridge, self.start = tuple(statistics), base, ridge, start or {}

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the weights of statistics."""
        found = statistics_weights(self.statistics)
        alike = ("present", "base-inside") if self.closed else ()  # all candidates are inside
        return tuple(name for name in found if name not in alike)

    def fit(self, observations: VocabularyObservations) -> ContextLogitSurrogate:
        base, texts = observations.bases[self.base], observations.texts
        table, names = observations.contexts(self.base, self.weights), self.weights
        rows = table.rows(names, closed=self.closed, targets=observations.targets(self.base))
        groups = np.repeat([text.group for text in texts], [len(text) for text in texts])
        flat = base.tokens.shape[0] == 0 and bool(np.ptp(base.log_unigram) == 0)
        start = np.array([self.start.get("base", 1.0), *(self.start.get(name, 0.0) for name in names)])
        fit = fit_context_logit(rows, groups, self.ridge, fixed={"base": 1.0} if flat else None, start=start)
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
