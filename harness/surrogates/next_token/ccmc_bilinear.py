"""`ccmc-bilinear`: logits that are bilinear in token embeddings, so that a pair nobody has seen has a value too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from scipy import sparse
from scipy.optimize import minimize

from harness.core.registry import register
from harness.core.seeds import derive_seed
from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates._fitting.chain_walk import ChainTerms
from harness.surrogates._fitting.folds import keep_back
from harness.surrogates.base import Fact, Ingredients, NextTokenSurrogate, chain_rows
from harness.surrogates.observations import NextTokenObservations

RIDGES = (300.0, 30.0, 3.0)
DIMENSION = 24


def features(embeddings: FloatArray, dimension: int = DIMENSION) -> FloatArray:
    """Principal components of token embeddings, of unit variance in all, and a constant.

    Args:
        embeddings: [K, D] of the local vocabulary.
        dimension: how many components, fewer where K or D is smaller.

    Returns:
        [K, d + 1].
    """
    centred = embeddings - embeddings.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    parts = centred @ axes[:dimension].T
    scale = np.sqrt((parts**2).sum(axis=1).mean())
    made: FloatArray = np.column_stack([parts / scale if scale > 0 else parts, np.ones(len(parts))])
    return made


class _Problem:
    """Cross-entropy of soft targets under theta[i, j] = x_j^T W x_i, and its gradient in W."""

    def __init__(self, observations: NextTokenObservations, x: FloatArray) -> None:
        counts: Any = observations.contexts.counts
        pattern = observations.pattern
        size = observations.vocab_size
        self.x, self.wins = x, observations.pair_wins[0]
        self.query = np.repeat(np.arange(size, dtype=np.int64), np.diff(pattern.indptr))
        self.key = pattern.indices.astype(np.int64)
        self.row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        wanted = observations.contexts.query[self.row] * size + counts.indices
        self.place = np.searchsorted(self.query * size + self.key, wanted)
        self.log_counts, self.starts = np.log(counts.data), counts.indptr[:-1]

    def __call__(self, flat: FloatArray, ridge: float) -> tuple[float, FloatArray]:
        width = self.x.shape[1]
        W = flat.reshape(width, width)
        # [nnz] theta of the pairs that occur; x_j^T W x_i
        theta = np.einsum("pd,pd->p", self.x[self.key], (self.x @ W.T)[self.query])
        score = self.log_counts + theta[self.place]
        top = np.maximum.reduceat(score, self.starts)
        weight = np.exp(score - top[self.row])
        total = np.add.reduceat(weight, self.starts)
        loss = float((top + np.log(total)).sum() - self.wins @ theta)
        expected = np.bincount(self.place, weights=weight / total[self.row], minlength=len(theta))
        size = len(self.x)
        pull = sparse.csr_array((expected - self.wins, (self.key, self.query)), shape=(size, size))
        gradient = self.x.T @ (pull @ self.x) + ridge * W
        return loss + 0.5 * ridge * float((W**2).sum()), gradient.ravel()


@register.surrogate(
    "ccmc-bilinear",
    of="next-token",
    sees=("counts", "query", "weights"),
    parameters="625",
    rollout=True,
    rung=110,
    needs=("embeddings",),
    about="the chain with logits bilinear in token embeddings",
    cost="minutes",
    source="this project",
)
class CCMCBilinear(NextTokenSurrogate):
    """W by penalised maximum likelihood, the ridge chosen on training prompts that are kept back.

    Args:
        x: [K, d] features of the local vocabulary.
        seed: of the inner split.
        steps: at most so many iterations of the optimiser per ridge.
    """

    W_: FloatArray
    ridge_: float

    def __init__(self, x: FloatArray, seed: int, steps: int = 60) -> None:
        self.x, self.seed, self.steps = x, seed, steps

    @classmethod
    def make(cls, given: Ingredients) -> Self:
        """On principal components of the token embeddings."""
        return cls(features(cls.needed(given)["embeddings"]), given.seed)

    def _solve(self, problem: _Problem, ridge: float, start: FloatArray) -> FloatArray:
        options: Any = {"maxiter": self.steps, "ftol": 1e-7}
        found = minimize(problem, start, args=(ridge,), jac=True, method="L-BFGS-B", options=options)
        best: FloatArray = found.x
        return best

    def fit(self, observations: NextTokenObservations) -> Self:
        width = self.x.shape[1]
        start = np.zeros(width * width)
        ridge = RIDGES[0]
        parts = keep_back(observations, derive_seed(self.seed, "bilinear"))
        if parts is not None:
            inner, outer = (_Problem(part, self.x) for part in parts)
            losses, solutions = [], []
            for candidate in RIDGES:
                start = self._solve(inner, candidate, start)
                solutions.append(start)
                losses.append(outer(start, 0.0)[0])
            best = int(np.argmin(losses))
            ridge, start = RIDGES[best], solutions[best]
        self.ridge_ = ridge
        self.W_ = self._solve(_Problem(observations, self.x), ridge, start).reshape(width, width)
        return self

    def extra_rows(self) -> Iterable[Fact]:
        return [Fact("ridge", self.ridge_)]

    def row(self, query: int, types: IntArray) -> FloatArray:
        """[U] base logits of one query over some tokens, by local id."""
        found: FloatArray = self.x[types] @ (self.W_ @ self.x[query])
        return found

    def predict(self, text: Text) -> FloatArray:
        own = self.x[text.types]
        logits = own @ self.W_.T @ own.T  # [query, key]
        return chain_rows(text.counts, logits[text.query])[None]

    def chain_terms(self, vocab_size: int) -> ChainTerms:
        return ChainTerms.single(self.x @ self.W_.T, self.x)

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        active = np.flatnonzero(counts)
        p = np.zeros(len(types))
        p[active] = chain_rows(counts[active], self.row(int(types[history[-1]]), types[active]))
        return p
