"""P by maximum likelihood, shrunk to a prior with a ridge that is chosen inside the training texts.

theta = prior + delta, delta on the pairs that co-occur in training texts; per head its own ridge. An infinite ridge,
the prior itself, is among the candidates. With fewer than two training prompts the strongest finite ridge is taken.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from scipy import sparse

from ccmc import fit_pairs
from harness.core.seeds import derive_seed
from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates._fitting.folds import inner_folds
from harness.surrogates.base import chain_rows
from harness.surrogates.observations import Observations

RIDGES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)


class Prior(Protocol):
    """Base logits that a fit is shrunk to."""

    def logits(self, query: IntArray, key: IntArray) -> FloatArray: ...
    def pair_logits(self, query: IntArray, key: IntArray) -> FloatArray: ...


class FlatPrior:
    """Every logit 0: the fit is shrunk to `counts`."""

    def logits(self, query: IntArray, key: IntArray) -> FloatArray:
        """[1, len(query), len(key)] zeros."""
        return np.zeros((1, len(query), len(key)))

    def pair_logits(self, query: IntArray, key: IntArray) -> FloatArray:
        """[1, len(query)] zeros."""
        return np.zeros((1, len(query)))


class PairFit:
    """The fit itself.

    Args:
        prior: what the fit is shrunk to.
        seed: of the inner split.
        folds: one of so many parts of the training prompts is kept back to choose the ridge.
        tol: of the fit.

    Attributes:
        ridge_: [H] the ridges chosen.
        delta_: per head [K, K] (CSR), what is added to the prior.
    """

    ridge_: FloatArray
    delta_: list[sparse.csr_array]

    def __init__(self, prior: Prior, seed: int, folds: int = 4, tol: float = 1e-4) -> None:
        self.prior, self.seed, self.folds, self.tol = prior, seed, folds, tol

    def learn(self, observations: Observations) -> None:
        """Choose the ridges, then fit to all texts."""
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
        self.delta_ = [sparse.csr_array((row, pattern.indices, pattern.indptr), shape=shape) for row in delta]

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

    def rows(self, text: Text) -> FloatArray:
        """[H, n, U] distributions over the context of each query."""
        change = np.stack([delta[text.types][:, text.types].toarray() for delta in self.delta_])
        logits = self.prior.logits(text.types, text.types) + change
        return chain_rows(text.counts, logits[:, text.query])


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
