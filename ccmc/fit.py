"""Maximum likelihood for the logits of a chain.

The negative log-likelihood of observations (counts m, query i, target t, weight w) is, up to a constant,

    sum w log sum_k m_k exp(theta[i, k]) - sum_ij wins[i, j] theta[i, j],       wins[i, j] = sum w t_j over query i:

a convex multinomial logit that splits over queries, and that knows targets by their sums alone. A ridge adds
ridge/2 ||row-centred(theta - prior)||^2. `fit_mle` fits one chain; `fit_pairs` fits many at once, of which only the
pairs that occur are stored: heads of one layer share their contexts and have vocabularies of thousands.

Source: Ildiz et al. 2024, for the model and the convexity of its loss.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.checks import checked_prior, checked_ridge, checked_weight, pair_values
from ccmc._data.compact import CompactRows
from ccmc._data.html import table
from ccmc._data.types import BoolArray, FloatArray, IntArray
from ccmc._fit.problem import Problem
from ccmc.chain import CCMC
from ccmc.contexts import Contexts, PrefixContexts
from ccmc.identifiability import Identifiability, drop_weightless, identifiability
from ccmc.normalise import normalised
from ccmc.observations import Observations, scaled_wins

if TYPE_CHECKING:
    import pandas as pd

MAX_PASSES = 5000
_NAMED = 10


class NoMaximumLikelihoodEstimate(ValueError):  # noqa: N818 - the name is part of the public contract
    """The likelihood has no maximum: some logits run to infinity.

    `diverging` lists the (query, token) pairs whose logits go to minus infinity.
    """

    def __init__(self, diverging: list[tuple[int, int]]) -> None:
        self.diverging = diverging
        tokens: dict[int, list[int]] = {}
        for query, token in diverging:
            tokens.setdefault(query, []).append(token)
        shown = "; ".join(
            f"query {query}: tokens {', '.join(map(str, lost[:_NAMED]))}"
            + (f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else "")
            for query, lost in list(tokens.items())[:_NAMED]
        )
        more = f"; and {len(tokens) - _NAMED} more queries" if len(tokens) > _NAMED else ""
        super().__init__(
            f"no maximum-likelihood estimate exists: logits go to minus infinity for {shown}{more} (these tokens lose "
            "to others and never win against them); pass ridge > 0 for a finite fit"
        )


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted chain and how it was reached."""

    log_likelihood: float
    """Sum of weight x target x log p, in nats, without the ridge term."""
    iterations: int
    """Most passes over its observations that any query took."""
    converged: bool
    """Whether `gradient_norm` reached the tolerance."""
    gradient_norm: float
    """max |gradient| / (wins + ridge) over all pairs."""
    identifiability: Identifiability
    """What the observations determine."""
    observations: Observations
    """The observations of positive weight, which were fitted."""
    ridge: float
    """The ridge of the objective."""
    pair_logits: FloatArray
    """[pairs] fitted logits at the pairs that occur, in the order of `observations.contexts.pairs()`."""
    prior: FloatArray | None
    """[K, K] logits of the prior, None for a flat one."""

    @cached_property
    def chain(self) -> CCMC:
        """The fitted chain; tokens that a query never saw keep their prior logit."""
        pairs = self.observations.contexts.numbered_pairs
        size = self.observations.contexts.vocab_size
        logits = np.zeros((size, size)) if self.prior is None else self.prior.copy()
        logits[pairs.query, pairs.token] = self.pair_logits
        return CCMC(logits)

    def __repr__(self) -> str:
        size, reached = self.observations.contexts.vocab_size, "converged" if self.converged else "not converged"
        determined = "identified" if self.identifiability.identified else "not identified"
        return (
            f"Fit({len(self.observations)} observations over {size} tokens, ridge={self.ridge:g}, "
            f"log_likelihood={self.log_likelihood:.6g}, {reached} after {self.iterations} passes, {determined})"
        )

    def _repr_html_(self) -> str:
        """What notebooks show."""
        facts = [
            ("observations", f"{len(self.observations):,}"),
            ("tokens", f"{self.observations.contexts.vocab_size:,}"),
            ("log likelihood", f"{self.log_likelihood:.6g} nats"),
            ("passes", f"{self.iterations}" + ("" if self.converged else ", not converged")),
            ("largest scaled gradient", f"{self.gradient_norm:.2g}"),
            ("ridge", f"{self.ridge:g}"),
            (
                "identified",
                "yes" if self.identifiability.identified else "no: see identifiability.components",
            ),
        ]
        return table("Fit of a context-conditioned Markov chain", (), facts)

    def to_frame(self) -> pd.DataFrame:
        """The fitted numbers as a table, one row for each pair that occurs.

        Returns:
            Columns query, token, wins (weighted target mass), logit (log of the base transition probability) and
            probability. Needs pandas.
        """
        import pandas as pd

        pairs = self.observations.contexts.numbered_pairs
        logit = self.chain.at(pairs.query, pairs.token)
        wins = self.observations.wins
        columns = {"query": pairs.query, "token": pairs.token, "wins": wins, "logit": logit}
        return pd.DataFrame(columns | {"probability": np.exp(logit)})

    def standard_errors(self) -> FloatArray:
        """Standard errors of the fitted logits, each measured from the mean of its component.

        The inverse of the observed information (with the ridge, where there is one) on the identified subspace:
        sqrt(diag(pinv(H))) for each query.

        Returns:
            [K, K]; NaN where the data determine nothing: pairs that do not occur, and tokens alone in their component.

        Raises:
            ValueError: targets are soft. Attention rows are dependent and the chain only approximates them, so the
                information says nothing of their spread; `bootstrap` resamples the texts instead.
        """
        if not self.observations.hard:
            raise ValueError("standard errors from the information are for sampled tokens; bootstrap soft targets")
        contexts, pairs = self.observations.contexts, self.observations.contexts.numbered_pairs
        errors = np.full((contexts.vocab_size, contexts.vocab_size), np.nan)
        for query in np.flatnonzero(np.diff(pairs.query_ptr)):
            part = slice(pairs.ptr[query], pairs.ptr[query + 1])
            component = pairs.component[part]
            hessian = _information(self.observations, self.pair_logits, int(query))
            for label in range(int(pairs.components[query])):
                inside = np.flatnonzero(component == label)
                if len(inside) == 1:
                    continue
                block = hessian[np.ix_(inside, inside)]
                size = len(inside)
                # Adding the mean's direction makes the block invertible; subtracting it again is exact.
                mean = np.full((size, size), 1.0 / size)
                scale = np.trace(block) / size
                inverse = np.linalg.inv(block + self.ridge * (np.eye(size) - mean) + scale * mean) - mean / scale
                errors[query, pairs.token[part][inside]] = np.sqrt(np.maximum(np.diag(inverse), 0))
        return errors


@dataclass(frozen=True, eq=False)
class PairFit:
    """Fitted logits of H heads at the pairs of their common contexts."""

    delta: FloatArray
    """[H, pairs] theta - prior; the pairs of each query sum to 0. Pairs that do not occur stay at the prior."""
    converged: BoolArray
    """[H] whether every query of the head reached the tolerance."""
    iterations: IntArray
    """[H] most passes over its rows that any query took."""
    gradient_norm: FloatArray
    """[H] max |gradient| / (wins + ridge)."""
    objective: FloatArray
    """[H] the minimised objective, ridge term included."""
    log_likelihood: FloatArray
    """[H] sum of wins x theta - sum of weight x log sum_k m_k exp(theta_k). This is the position-level log-likelihood;
    add the sum of weight x target x log count for the token-level one."""


def fit_mle(
    observations: Observations, *, prior: ArrayLike | None = None, ridge: float = 0.0, tol: float = 1e-8
) -> Fit:
    """Fit the logits of a chain by (penalised) maximum likelihood.

    Minimises sum w nll + ridge/2 ||row-centred(theta - prior)||^2 until max_j |g_j| / (wins_j + ridge) <= tol. A query
    without observations gets the prior's row. Where the data leave directions free, the answer is the minimiser whose
    component means equal the prior's.

    Args:
        observations: hard or soft, dense or sparse.
        prior: logits [K, K], rows up to a constant; None for a flat prior.
        ridge: strength of the pull to the prior, in observations; 0 for none.
        tol: tolerance of the stopping rule.

    Returns:
        Fit. Check `.converged`; it is False only where the tolerance is below what rounding allows.

    Raises:
        NoMaximumLikelihoodEstimate: ridge is 0 and the likelihood has no maximum; names queries and tokens.
        ValueError: prior, ridge or tol are malformed, or every weight is 0.

    Source: Ildiz et al. 2024.
    """
    ridges = checked_ridge(ridge, 1)
    logits = checked_prior(prior, observations.contexts.vocab_size)
    used = drop_weightless(observations)
    determined = identifiability(used)
    if ridges[0] == 0 and not determined.mle_exists:
        raise NoMaximumLikelihoodEstimate(determined.diverging)
    pairs = used.contexts.numbered_pairs
    at_pairs = np.zeros(len(pairs.token)) if logits is None else logits[pairs.query, pairs.token]
    if ridges[0] == 0:
        # The likelihood knows nothing of the prior beyond the means, and a far prior is a poor place to start.
        at_pairs = pairs.component_means(at_pairs)
    problem = Problem(used.wins[None], at_pairs[None], ridges, used.weights[None], tol, MAX_PASSES)
    fit = solve(used.contexts, problem, None)
    return Fit(
        log_likelihood=float(fit.log_likelihood[0]) + used.log_count_mass,
        iterations=int(fit.iterations[0]),
        converged=bool(fit.converged[0]),
        gradient_norm=float(fit.gradient_norm[0]),
        identifiability=determined,
        observations=used,
        ridge=float(ridges[0]),
        pair_logits=at_pairs + fit.delta[0],
        prior=logits,
    )


def fit_pairs(
    contexts: Contexts,
    wins: ArrayLike,
    prior: ArrayLike,
    ridge: ArrayLike,
    tol: float = 1e-6,
    max_iterations: int = MAX_PASSES,
    weight: ArrayLike | None = None,
    start: ArrayLike | None = None,
) -> PairFit:
    """Fit H chains that share their contexts, at the pairs that occur and nowhere else.

    Minimises, for each head, sum_rows w log sum_k m_k exp(theta[q, k]) - sum wins theta
    + ridge/2 ||row-centred(theta - prior)||^2.

    Nothing else is needed of the pairs that do not occur: at the optimum they stay at the prior. The gradient of row
    q at token k is expected_k - wins_k + ridge (delta_k - mean delta), and both expected and wins are 0 where k is
    never seen with q, so there delta_k = mean delta. The row is free up to a constant; choose mean delta = 0. Then
    unseen tokens have delta = 0, and the seen ones sum to 0, as the derivatives of the likelihood do.

    Args:
        contexts: n contexts over K tokens.
        wins: [H, pairs] target mass summed per pair of `contexts.pairs()`, in its CSR order. The wins of a query sum
            to the weight of its contexts; drift of up to 1e-3 (float32 sums) is scaled away.
        prior: [H, pairs] prior logits at the pairs, each query's up to a constant.
        ridge: > 0, one for all or [H].
        tol: stops at max |gradient| / (wins + ridge) <= tol.
        max_iterations: most passes over its rows that a query may take.
        weight: [n] or [H, n] non-negative weights of the contexts, default 1.
        start: [H, pairs] delta to start from, such as that of a neighbouring ridge; default 0.

    Returns:
        PairFit.

    Raises:
        ValueError: a shape or value is wrong; the message names head, query or index.

    Source: Ildiz et al. 2024, for the model.
    """
    won = pair_values(wins, len(contexts.numbered_pairs.token), "wins")
    logits = _like(won, prior, "prior")
    ridges = checked_ridge(ridge, len(won))
    if (ridges == 0).any():
        raise ValueError(f"ridge of head {int(np.argmin(ridges))} is 0: fit_pairs needs ridge > 0")
    weights = checked_weight(weight, len(won), len(contexts))
    scaled = _scaled_heads(contexts, won, weights)
    begin = None if start is None else _like(won, start, "start")
    return solve(contexts, Problem(scaled, logits, ridges, weights, tol, max_iterations), begin)


def _like(wins: FloatArray, values: ArrayLike, name: str) -> FloatArray:
    """[heads, pairs] finite values, of the shape of wins."""
    array = pair_values(values, wins.shape[1], name)
    if array.shape != wins.shape:
        raise ValueError(f"{name} must have shape {wins.shape}, as wins, got {array.shape}")
    return array


def _scaled_heads(contexts: Contexts, won: FloatArray, weights: FloatArray) -> FloatArray:
    """[heads, pairs] wins that sum to the weight of the contexts of each query, or ValueError naming the head."""
    if (won < 0).any():
        head, at = np.argwhere(won < 0)[0]
        raise ValueError(f"wins[{head}, {at}] is {won[head, at]}: wins are non-negative")
    mass = np.stack([np.bincount(contexts.query, weights=row, minlength=contexts.vocab_size) for row in weights])
    scaled = np.empty_like(won)
    for head in range(len(won)):
        try:
            scaled[head] = scaled_wins(contexts.numbered_pairs, won[head], mass[head % len(mass)])
        except ValueError as error:
            raise ValueError(f"head {head}: {error}") from None
    return scaled


def solve(contexts: Contexts, problem: Problem, start: FloatArray | None) -> PairFit:
    """Minimise over every head and query; the answer's means over components are the prior's.

    Args:
        contexts: that all heads share.
        problem: of H heads.
        start: [H, pairs] delta to start from; None for 0.
    """
    if not problem.tol > 0:
        raise ValueError(f"tol must be positive, got {problem.tol}")
    pairs = contexts.numbered_pairs
    heads, size = len(problem.wins), contexts.vocab_size
    delta = np.zeros_like(problem.wins) if start is None else start.copy()
    answer = np.zeros((heads, size, 4))
    occurring = np.flatnonzero(np.diff(pairs.query_ptr))
    prefixes = contexts.prefixes if isinstance(contexts, PrefixContexts) else None
    if prefixes is not None and prefixes.streamed and heads == 1 and (problem.weight == 1).all():
        from ccmc._fit.stream import solve_stream

        occurring = solve_stream(prefixes, pairs, problem, delta[0], answer[0])
    before = answer[:, :, 3].copy()
    if len(occurring):
        _solve_rows(contexts.compact, occurring, problem, delta, answer)
        answer[:, occurring, 3] += before[:, occurring]
    worst = answer[:, :, 2].max(axis=1)
    return PairFit(
        delta=delta,
        converged=worst <= problem.tol,
        iterations=answer[:, :, 3].max(axis=1).astype(np.int64),
        gradient_norm=worst,
        objective=answer[:, :, 0].sum(axis=1),
        log_likelihood=answer[:, :, 1].sum(axis=1),
    )


def _solve_rows(
    rows: CompactRows, occurring: IntArray, problem: Problem, delta: FloatArray, answer: FloatArray
) -> None:
    """Run the kernel over (head, query) for the queries that occur; delta [H, pairs] holds start and answer."""
    from ccmc._data.compiled import run_tasks
    from ccmc._fit.descent import LARGE, solve_large, solve_tasks

    pairs, weight = rows.pairs, problem.weight
    heads, size = len(problem.wins), len(pairs.ptr) - 1
    if not (weight == weight[:, :1]).all():
        problem = replace(problem, weight=weight[:, pairs.order])

    entries = rows.entries
    large = occurring[entries[occurring] >= LARGE]
    small = occurring[entries[occurring] < LARGE]
    tasks = (np.arange(heads)[:, None] * size + small).ravel()

    def work(chosen: IntArray) -> None:
        solve_tasks(
            tasks[chosen], pairs.query_ptr, pairs.ptr, pairs.component, pairs.components, *rows.arrays(),
            problem.weight, problem.prior, problem.wins, problem.ridge, problem.tol, problem.max_passes, delta, answer,
        )  # fmt: skip

    run_tasks(work, np.tile(entries[small], heads))
    for head, query in itertools.product(range(heads), large.tolist()):
        part = slice(pairs.ptr[query], pairs.ptr[query + 1])
        solve_large(rows, head, query, problem, delta[head, part], answer[head, query])


def _information(observations: Observations, pair_logits: FloatArray, query: int) -> FloatArray:
    """Observed information of one query's logits: sum_r w_r (diag(p_r) - p_r p_r^T)."""
    contexts, pairs = observations.contexts, observations.contexts.numbered_pairs
    rows = pairs.order[pairs.query_ptr[query] : pairs.query_ptr[query + 1]]
    part = slice(pairs.ptr[query], pairs.ptr[query + 1])
    probability = normalised(pair_logits[part], contexts.sparse_counts[rows][:, pairs.token[part]].toarray())
    weight = observations.weights[rows]
    information: FloatArray = np.diag(weight @ probability) - (probability.T * weight) @ probability
    return information
