"""Maximum likelihood for logits that are bilinear in given features: theta[i, j] = x_j^T W x_i.

This is what one attention layer with embeddings x can learn (Ildiz et al. 2024). The loss of `fit_mle` stays convex
in W [d, d]; with d < K it has fewer parameters than a table of logits, and with one-hot features it is that table.

Features are first written in an orthonormal basis of their span, X = Q R, which changes W to R W R^T and nothing
else. Steps are Newton's, those of the solver of `fit_mle` (`_fit/newton.py`), on passes over the same compact rows.
Directions come from conjugate gradients that start from zero: W gets no part along directions that change no
probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from ccmc._data.checks import checked_prior, checked_ridge
from ccmc._data.pairs import Pairs
from ccmc._data.types import FloatArray
from ccmc.chain import CCMC
from ccmc.fit import NoMaximumLikelihoodEstimate
from ccmc.identifiability import Identifiability, beaten_by, drop_weightless, identifiability
from ccmc.observations import Observations, PairWins

_RANK = 1e-10
_FLOOR = 1e-6
_MOST_STEPS = 200
_MOST_TRIALS = 30


@dataclass(frozen=True, eq=False)
class BilinearFit:
    """A fitted bilinear form and how it was reached."""

    W: FloatArray
    """[d, d] the form: theta[i, j] = x_j^T W x_i."""
    features: FloatArray
    """[K, d] the features x."""
    log_likelihood: float
    """Sum of weight x target x log p, in nats, without the ridge term."""
    iterations: int
    """Newton steps."""
    converged: bool
    """Whether `gradient_norm` reached the tolerance."""
    gradient_norm: float
    """max over entries of W of |gradient| / (wins + ridge), wins counted with the sizes of the features."""
    identifiability: Identifiability
    """What the observations determine of a table of logits."""
    free_directions: int
    """Dimension of the space of W that give every observed context the same probabilities."""

    @property
    def identified(self) -> bool:
        """Whether W is unique, given the maximum."""
        return self.free_directions == 0

    @cached_property
    def chain(self) -> CCMC:
        """The fitted chain over all K tokens."""
        return CCMC((self.features @ self.W @ self.features.T).T)


def fit_bilinear(
    observations: Observations,
    features: ArrayLike,
    *,
    prior: ArrayLike | None = None,
    ridge: float = 0.0,
    tol: float = 1e-8,
) -> BilinearFit:
    """Fit W in theta[i, j] = x_j^T W x_i by (penalised) maximum likelihood.

    Minimises sum w nll + ridge/2 ||row-centred(theta - prior)||^2 over W until max |G| / (wins + ridge) <= tol, where
    G is the gradient in the orthonormal basis of the features. For one-hot features this is `fit_mle`.

    Args:
        observations: hard or soft, dense or sparse, over K tokens.
        features: [K, d], one row per token.
        prior: logits [K, K] that the ridge pulls to, rows up to a constant; None for a flat prior. Of no effect
            without a ridge.
        ridge: strength of the pull to the prior, in observations; 0 for none.
        tol: tolerance of the stopping rule.

    Returns:
        BilinearFit. Where W is not unique, the one without a part along the free directions, in the orthonormal basis.

    Raises:
        NoMaximumLikelihoodEstimate: ridge is 0 and the likelihood grows for ever along some W; names the queries and
            tokens that lose without end.
        ValueError: features, prior, ridge or tol are malformed, or every weight is 0.

    Source: Ildiz et al. 2024, for the model and the convexity of its loss.
    """
    strength = float(checked_ridge(ridge, 1)[0])
    if not tol > 0:
        raise ValueError(f"tol must be positive, got {tol}")
    used = drop_weightless(observations)
    size = used.contexts.vocab_size
    x = _checked_features(features, size)
    logits = checked_prior(prior, size)
    left, scale, right = np.linalg.svd(x, full_matrices=False)
    rank = int((scale > _RANK * scale.max(initial=0.0)).sum())
    basis = left[:, :rank]
    determined = identifiability(used)
    if strength == 0 and not determined.mle_exists:
        lost = _lost_pairs(used, basis)
        if lost:
            raise NoMaximumLikelihoodEstimate(lost)
    problem = _Problem(used, basis, logits, strength)
    found, steps, measure = problem.minimise(tol)
    back = right[:rank].T / scale[:rank]
    form = back @ found @ back.T
    return BilinearFit(
        W=form,
        features=x,
        log_likelihood=problem.log_likelihood(found),
        iterations=steps,
        converged=measure <= tol,
        gradient_norm=measure,
        identifiability=determined,
        free_directions=x.shape[1] ** 2 - _determined(used.contexts.compact.pairs, basis, strength > 0),
    )


def _checked_features(features: ArrayLike, size: int) -> FloatArray:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or x.shape[0] != size or x.shape[1] == 0:
        raise ValueError(f"features must have shape [{size}, d], got {x.shape}")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(f"features[{row}, {column}] is {x[row, column]}: features are finite")
    return x


class _Problem:
    """The objective over W in the orthonormal basis Q [K, r], its gradient, and products with its Hessian."""

    def __init__(self, observations: Observations, basis: FloatArray, prior: FloatArray | None, ridge: float) -> None:
        self.basis, self.ridge = basis, ridge
        self.wins, self.log_count_mass = observations.wins, observations.log_count_mass
        rows = observations.contexts.compact
        self.pairs, self.query = rows.pairs, rows.pairs.query
        self.arrays = (rows.pairs.query_ptr, rows.pairs.ptr, *rows.arrays(), observations.weights[rows.pairs.order])
        self.inverse = np.empty(len(observations))
        self.prior = np.zeros((len(basis),) * 2) if prior is None else prior
        # Entries that hardly any win touches, such as round-off in the basis, are measured against all wins.
        self.scale = np.maximum(self._outer(self.wins, abs(basis)) + ridge, _FLOOR * (self.wins.sum() + ridge))

    def _outer(self, values: FloatArray, x: FloatArray) -> FloatArray:
        """[r, r] sum over pairs (i, j) of value x_j x_i^T."""
        table = sparse.csr_array((values, self.pairs.token, self.pairs.ptr), shape=(len(x), len(x)))
        outer: FloatArray = x.T @ np.asarray(table.T @ x)
        return outer

    def at_pairs(self, form: FloatArray) -> FloatArray:
        """[pairs] q_j^T W q_i."""
        values: FloatArray = np.einsum("pr,pr->p", self.basis[self.pairs.token], (self.basis @ form.T)[self.query])
        return values

    def _pull(self, form: FloatArray, prior: FloatArray | float) -> tuple[float, FloatArray]:
        """The ridge term and its gradient."""
        if self.ridge == 0:
            return 0.0, np.zeros_like(form)
        away = (self.basis @ form @ self.basis.T).T - prior
        away -= away.mean(axis=1, keepdims=True)
        return self.ridge / 2 * float((away**2).sum()), self.ridge * (self.basis.T @ away.T @ self.basis)

    def evaluate(self, form: FloatArray) -> tuple[float, FloatArray]:
        """Objective and gradient."""
        from ccmc._fit.descent import all_gradients

        expected = np.empty(len(self.wins))
        likelihood = all_gradients(*self.arrays, self.at_pairs(form), self.wins, self.inverse, expected)
        penalty, pull = self._pull(form, self.prior)
        return penalty - likelihood, self._outer(expected - self.wins, self.basis) + pull

    def product(self, form: FloatArray, direction: FloatArray) -> FloatArray:
        """Hessian at the last evaluated `form`, times a direction."""
        from ccmc._fit.descent import all_products

        image = np.empty(len(self.wins))
        all_products(*self.arrays, self.at_pairs(form), self.at_pairs(direction), self.inverse, image)
        return self._outer(image, self.basis) + self._pull(direction, 0.0)[1]

    def log_likelihood(self, form: FloatArray) -> float:
        return self._pull(form, self.prior)[0] - self.evaluate(form)[0] + self.log_count_mass

    def minimise(self, tol: float) -> tuple[FloatArray, int, float]:
        """W, Newton steps and measure, by damped Newton steps from 0."""
        from ccmc._fit import newton
        from ccmc._fit import workspace as at

        shape, scale = self.scale.shape, self.scale.ravel()
        vectors, _, numbers, state = at.workspace(self.scale.size)
        point, direction, best, gradient, step = (
            vectors[row].reshape(shape) for row in (at.POINT, at.DIRECTION, at.BEST, at.SLOPE, at.STEP)
        )
        numbers[at.OBJECTIVE], gradient[:] = self.evaluate(best)
        numbers[at.MEASURE] = newton.measure(gradient.ravel(), scale, 0.0)
        steps = failures = 0
        while numbers[at.MEASURE] > tol and failures < 3 and steps < _MOST_STEPS:
            newton.begin_conjugate(vectors, numbers, state, scale)
            while newton.conjugate(vectors, numbers, state, self.product(best, direction).ravel(), True):
                pass
            if not newton.begin_trial(vectors, numbers, state, float(abs(self.at_pairs(step)).max())):
                break
            slack = at.SLACK * (abs(numbers[at.OBJECTIVE]) + float(self.wins.sum()))
            value, slope = self.evaluate(point)
            while not newton.descends(numbers, value, float((slope * step).sum()), slack):
                newton.shorten(vectors, numbers, state)
                if state[at.TRIALS] >= _MOST_TRIALS:
                    return best.copy(), steps, float(numbers[at.MEASURE])
                value, slope = self.evaluate(point)
            measure = newton.measure(slope.ravel(), scale, 0.0)
            failures += value >= numbers[at.OBJECTIVE] and measure >= numbers[at.MEASURE]
            best[:], gradient[:], numbers[at.OBJECTIVE], numbers[at.MEASURE] = point, slope, value, measure
            steps += 1
        return best.copy(), steps, float(numbers[at.MEASURE])


def _determined(pairs: Pairs, basis: FloatArray, with_ridge: bool) -> int:
    """Dimension of the forms that some observed probability, or the ridge, depends on.

    Probabilities depend on q_j^T W q_i up to a constant on each component of query i, a ridge on all tokens alike.
    """
    rank = basis.shape[1]
    spread = np.zeros((rank * rank, rank * rank))
    for query in range(len(basis)):
        part = slice(pairs.ptr[query], pairs.ptr[query + 1])
        inner = np.zeros((rank, rank))
        if with_ridge:
            away = basis - basis.mean(axis=0)
            inner = away.T @ away
        for label in range(int(pairs.components[query])):
            members = basis[pairs.token[part][pairs.component[part] == label]]
            away = members - members.mean(axis=0)
            inner += away.T @ away
        spread += np.kron(inner, np.outer(basis[query], basis[query]))
    values = np.linalg.eigvalsh(spread)
    return int((values > _RANK * values.max(initial=1e-300)).sum())


def _lost_pairs(observations: Observations, basis: FloatArray) -> list[tuple[int, int]]:
    """(query, token) whose logits fall without end along some W that never makes an observation less likely.

    The likelihood has no maximum iff some W has q_y^T W q_i >= q_k^T W q_i wherever y was emitted in a context of
    query i that holds k, once at least with >; a linear programme finds it.
    """
    pairs = observations.contexts.compact.pairs
    if isinstance(observations.targets, PairWins):
        return identifiability(observations).diverging
    source, target = beaten_by(observations, pairs)
    edges = np.unique(np.stack([source, target]), axis=1)
    query, token = pairs.query, pairs.token
    ahead = basis[token[edges[1]]] - basis[token[edges[0]]]
    rows = np.einsum("er,es->ers", ahead, basis[query[edges[0]]]).reshape(edges.shape[1], -1)
    from scipy import optimize

    found = optimize.linprog(-rows.sum(axis=0), A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1), method="highs")
    gap = rows @ found.x
    lost = np.unique(edges[0][gap > 1e-7])
    return list(zip(query[lost].tolist(), token[lost].tolist(), strict=True))
