"""`ccmc-fit`: P by maximum likelihood, shrunk to a prior with a ridge that is chosen inside the training texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from scipy import sparse

from ccmc import fit_pairs
from harness.core.registry import register
from harness.core.seeds import derive_seed
from harness.data.texts import Text
from harness.surrogates._fitting.chain_walk import ChainTerms
from harness.surrogates._fitting.counts import Counts
from harness.surrogates._fitting.sink_fit import SinkFit, fit_sink
from harness.surrogates.base import FloatArray, IntArray, Observations, Surrogate, chain_rows

if TYPE_CHECKING:
    from harness.attention.blocks import Block, View
    from harness.attention.log_weights import LogWeights

RIDGES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)


class Prior(Protocol):
    """Base logits that a fit is shrunk to."""

    def logits(self, query: IntArray, key: IntArray) -> FloatArray: ...
    def pair_logits(self, query: IntArray, key: IntArray) -> FloatArray: ...
    def along(self, view: View) -> Callable[[Block], LogWeights]: ...


class FlatPrior:
    """Every logit 0: the fit is shrunk to `counts`."""

    def logits(self, query: IntArray, key: IntArray) -> FloatArray:
        return np.zeros((1, len(query), len(key)))

    def pair_logits(self, query: IntArray, key: IntArray) -> FloatArray:
        return np.zeros((1, len(query)))

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        return Counts().along(view)


def inner_folds(groups: Sequence[str], folds: int, seed: int) -> list[set[str]]:
    """Cut the distinct prompts of training texts into folds of like size."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    return [{names[i] for i in order[k::folds]} for k in range(min(folds, len(names)))]


@register.surrogate(
    "ccmc-fit",
    of="heads",
    sees=("counts", "query", "weights"),
    parameters="K(K-1)",
    rung=100,
    default=True,
    prior="ccmc-weights",
    about="the chain by maximum likelihood, shrunk to the one read off the weights",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
@register.surrogate(
    "ccmc-fit",
    of="next-token",
    sees=("counts", "query"),
    parameters="K(K-1)",
    rollout=True,
    rung=100,
    default=True,
    prior="counts",
    about="the chain by maximum likelihood, shrunk to counts",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
class CCMCFit(Surrogate):
    """theta = prior + delta, delta on the pairs that co-occur in training texts; per head its own ridge.

    An infinite ridge, the prior itself, is among the candidates. With fewer than two training prompts the strongest
    finite ridge is taken.

    Args:
        prior: what the fit is shrunk to.
        seed: of the inner split.
        folds: one of so many parts of the training prompts is kept back to choose the ridge.
        tol: of the fit.
    """

    ridge_: FloatArray
    delta_: list[sparse.csr_array]
    sink_: SinkFit | None = None
    _types: IntArray
    _rows: dict[int, FloatArray]

    def __init__(self, prior: Prior, seed: int, folds: int = 4, tol: float = 1e-4) -> None:
        self.prior, self.seed, self.folds, self.tol = prior, seed, folds, tol

    def fit(self, observations: Observations) -> Self:
        self.ridge_ = self._choose_ridge(observations)
        query, key = _pairs(observations.pattern)
        prior = np.broadcast_to(self.prior.pair_logits(query, key), observations.pair_wins.shape)
        delta = np.zeros_like(prior)
        for ridge in np.unique(self.ridge_[np.isfinite(self.ridge_)]):
            heads = np.flatnonzero(self.ridge_ == ridge)
            wins = observations.pair_wins[heads]
            found = fit_pairs(observations.contexts, wins, prior[heads], ridge=float(ridge), tol=self.tol)
            delta[heads] = found.delta
        pattern = observations.pattern
        shape = pattern.shape
        prior_odds = observations.prior_sink_odds.get("ccmc-weights", ())
        if prior_odds:
            size = observations.vocab_size
            self.sink_ = fit_sink(observations.texts, observations.sink_odds, prior_odds, size)
        self.delta_ = [sparse.csr_array((row, pattern.indices, pattern.indptr), shape=shape) for row in delta]
        return self

    def _choose_ridge(self, observations: Observations) -> FloatArray:
        folds = inner_folds(observations.groups, self.folds, derive_seed(self.seed, "inner"))
        if len(folds) < 2:
            return np.full(observations.heads, RIDGES[0])
        kept_back = folds[0]
        inner = observations.part(set(observations.groups) - kept_back)
        outer = observations.part(kept_back)
        query, key = _pairs(inner.pattern)
        prior = np.ascontiguousarray(np.broadcast_to(self.prior.pair_logits(query, key), inner.pair_wins.shape))
        outer_query, outer_key = _pairs(outer.pattern)
        outer_prior = np.broadcast_to(self.prior.pair_logits(outer_query, outer_key), outer.pair_wins.shape)
        # where the pairs of the kept-back texts stand among the pairs that were fitted
        size = observations.vocab_size
        known, wanted = query * size + key, outer_query * size + outer_key
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        fitted = known[place] == wanted
        losses = [_loss(outer, outer_prior)]
        start = None
        for ridge in RIDGES:
            found = fit_pairs(inner.contexts, inner.pair_wins, prior, ridge=ridge, tol=self.tol * 10, start=start)
            start = found.delta
            losses.append(_loss(outer, outer_prior + np.where(fitted, found.delta[:, place], 0.0)))
        candidates = np.array([np.inf, *RIDGES])
        best: FloatArray = candidates[np.argmin(np.stack(losses), axis=0)]
        return best

    def predict(self, text: Text) -> FloatArray:
        change = np.stack([delta[text.types][:, text.types].toarray() for delta in self.delta_])
        logits = self.prior.logits(text.types, text.types) + change
        return chain_rows(text.counts, logits[:, text.query])

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        """As every surrogate of heads; the prior must be one."""
        from harness.attention.log_weights import LogWeights
        from harness.surrogates._fitting.along import delta_tables, fitted_odds, sink_along

        prior, change, sink = self.prior.along(view), delta_tables(self.delta_, view), sink_along(self.sink_, view)

        def of(block: Block) -> LogWeights:
            given = prior(block)
            odds = fitted_odds(sink, given, block, "ccmc-weights")
            return LogWeights(given.values, by_token=True, change=change[block.heads], sink_odds=odds)

        return of

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        if getattr(self, "_types", None) is not types:
            self._types, self._rows = types, {}
        query = int(history[-1])
        if query not in self._rows:
            self._rows[query] = self.row(int(types[query]), types)
        return chain_rows(counts, self._rows[query])

    def chain_terms(self, vocab_size: int) -> ChainTerms | None:
        if not isinstance(self.prior, FlatPrior):
            return None
        nothing = np.zeros((self.delta_[0].shape[0], 0))
        return ChainTerms.single(nothing, nothing, self.delta_[0])

    def row(self, query: int, types: IntArray) -> FloatArray:
        """[U] base logits of one query over some tokens, by local id; of the first head."""
        delta = self.delta_[0]
        change = np.zeros(delta.shape[1])
        stored = slice(delta.indptr[query], delta.indptr[query + 1])
        change[delta.indices[stored]] = delta.data[stored]
        found: FloatArray = self.prior.logits(np.array([query]), types)[0, 0] + change[types]
        return found


def _pairs(pattern: sparse.csr_array) -> tuple[IntArray, IntArray]:
    query = np.repeat(np.arange(pattern.shape[0], dtype=np.int64), np.diff(pattern.indptr))
    return query, pattern.indices.astype(np.int64)


def _loss(observations: Observations, theta: FloatArray) -> FloatArray:
    """[H] cross-entropy of base logits theta [H, nnz] at the pairs of the observations, up to a constant."""
    counts: Any = observations.contexts.counts
    pattern = observations.pattern
    size = observations.vocab_size
    known = np.add(*(part * scale for part, scale in zip(_pairs(pattern), (size, 1), strict=True)))
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    place = np.searchsorted(known, observations.contexts.query[row] * size + counts.indices)
    losses = np.empty(len(theta))
    for head, values in enumerate(theta):
        score = np.log(counts.data) + values[place]
        top = np.maximum.reduceat(score, counts.indptr[:-1])
        log_z = top + np.log(np.add.reduceat(np.exp(score - top[row]), counts.indptr[:-1]))
        losses[head] = log_z.sum() - observations.pair_wins[head] @ values
    return losses
