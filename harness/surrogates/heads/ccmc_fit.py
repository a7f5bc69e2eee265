"""`ccmc-fit`: the chain of a head by maximum likelihood, shrunk to the one read off its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol, Self

from harness.attention.blocks import Block, View
from harness.attention.log_weights import LogWeights
from harness.attention.loop_terms import LoopTerms, PairTable
from harness.core.registry import register
from harness.data.texts import FloatArray, Text
from harness.surrogates._fitting.along import delta_tables, fitted_odds, odds_terms, sink_along
from harness.surrogates._fitting.ccmc_fit import PairFit, Prior
from harness.surrogates._fitting.sink_fit import SinkFit, fit_sink
from harness.surrogates.base import Fact, HeadSurrogate, Ingredients
from harness.surrogates.heads.ccmc_weights import CCMCWeights
from harness.surrogates.observations import HeadObservations


class HeadPrior(Prior, Protocol):
    """A surrogate of heads that is a chain without positions."""

    def along(self, view: View) -> Callable[[Block], LogWeights]: ...
    def loop_terms(self) -> LoopTerms: ...


@register.surrogate(
    "ccmc-fit",
    of="heads",
    sees=("counts", "query", "weights"),
    parameters="K(K-1)",
    rung=90,
    default=True,
    needs=("heads",),
    prior="ccmc-weights",
    about="the chain by maximum likelihood, shrunk to the one read off the weights",
    cost="grows with the pairs of tokens that co-occur",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
class CCMCFit(PairFit, HeadSurrogate):
    """theta = prior + delta, and fitted odds of the first position where those of the prior are known.

    Args:
        prior: what the fit is shrunk to.
        seed: of the inner split.
        folds: one of so many parts of the training prompts is kept back to choose the ridge.
        tol: of the fit.
    """

    prior: HeadPrior
    sink_: SinkFit | None = None

    @classmethod
    def make(cls, given: Ingredients) -> Self:
        """Shrunk to `ccmc-weights` of the same heads."""
        return cls(CCMCWeights(cls.needed(given)["heads"]), given.seed)

    def fit(self, observations: HeadObservations) -> Self:
        self.learn(observations)
        prior_odds = observations.prior_sink_odds.get(self.declaration.prior, ())
        if prior_odds:
            size = observations.vocab_size
            self.sink_ = fit_sink(observations.texts, observations.sink_odds, prior_odds, size)
        return self

    def extra_rows(self) -> Iterable[Fact]:
        return [Fact("ridge", float(ridge), {"head": head}) for head, ridge in enumerate(self.ridge_)]

    def predict(self, text: Text) -> FloatArray:
        return self.rows(text)

    def loop_terms(self) -> LoopTerms:
        prior = replace(self.prior.loop_terms(), sink=None)  # the fit has odds of its own, or says nothing
        return replace(prior, pairs=PairTable.of(self.delta_), **odds_terms(self.sink_))

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        prior, change, sink = self.prior.along(view), delta_tables(self.delta_, view), sink_along(self.sink_, view)

        def of(block: Block) -> LogWeights:
            given = prior(block)
            odds = fitted_odds(sink, given, block)
            return LogWeights(given.values, by_token=True, change=change[block.heads], sink_odds=odds)

        return of
