"""Choices and their conditional logit: one token is chosen among candidates by utilities linear in their features.

    p_c proportional to exp(offset_c + w . x_c),

or, with base transitions P0 over a whole vocabulary, of which only some tokens are candidates with features,

    p_j proportional to exp(a log P0[i, j] + [j is a candidate] (offset_j + w . x_j))      for every token j.

The loss, cross-entropy to a distribution or a token, is convex in (a, w). All other tokens enter by sums of P0^a, so a
choice costs its candidates, not the vocabulary.

Source: McFadden 1974, Conditional logit analysis of qualitative choice behavior; errors clustered by group: Liang and
Zeger 1986.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.types import BoolArray, FloatArray, IntArray
from ccmc._logit.terms import Terms
from ccmc.base import BaseTransition
from ccmc.bases import TextBases
from ccmc.fit import NoMaximumLikelihoodEstimate

BASE = "base"


@dataclass(frozen=True, eq=False)
class Outside:
    """Tokens of a vocabulary that are no candidates of a choice: they have the weight P0^a.

    Attributes:
        base: P0, or those of texts.
        query: [n] the row of P0 that each choice has.
        token: [N] what each candidate is, in the vocabulary.
        target: [n] target mass of all other tokens.
        log_base: [n] sum of target x log P0 over them.
        text: [n] the text of each choice; None where all have one P0.
    """

    base: BaseTransition | TextBases
    query: IntArray
    token: IntArray
    target: FloatArray
    log_base: FloatArray
    text: IntArray | None = None

    @property
    def bases(self) -> TextBases:
        """P0 text by text, with one text where all have the same."""
        return self.base if isinstance(self.base, TextBases) else TextBases.given(self.base, 1)

    @property
    def texts(self) -> IntArray:
        """[n] the text of each choice."""
        return np.zeros(len(self.query), np.int64) if self.text is None else self.text


@dataclass(frozen=True, eq=False)
class ChoiceRows:
    """n choices of N candidates in all.

    Attributes:
        features: [N, D] of the candidates, choice after choice; float32 or float64.
        targets: [N] what each candidate should get: a choice's sum to 1, or to what `outside` leaves.
        ptr: [n + 1] where the candidates of each choice begin.
        offsets: [N] added to utilities, not fitted.
        weights: [n] of the choices.
        names: D names of the features.
        outside: the tokens that are no candidates, where there are any.
        log_base: [N] log P0 of the candidates; None: read from `outside`, or there is no P0.
    """

    features: np.ndarray[Any, Any]
    targets: FloatArray
    ptr: IntArray
    offsets: FloatArray
    weights: FloatArray
    names: tuple[str, ...]
    outside: Outside | None = None
    log_base: FloatArray | None = None

    def __post_init__(self) -> None:
        count, many = self.features.shape
        if self.ptr[0] != 0 or self.ptr[-1] != count or (np.diff(self.ptr) < 1).any():
            raise ValueError(f"ptr must rise from 0 to {count}: every choice has a candidate")
        if len(self.names) != many:
            raise ValueError(f"{many} features need as many names, got {len(self.names)}")
        for name, wanted in (("targets", count), ("offsets", count), ("weights", len(self))):
            values = getattr(self, name)
            if values.shape != (wanted,):
                raise ValueError(f"{name} must be [{wanted}], got {list(values.shape)}")
        _finite("features", self.features)
        for name in ("targets", "weights"):
            _finite(name, getattr(self, name))
            if (getattr(self, name) < 0).any():
                raise ValueError(f"{name}[{int(np.argmin(getattr(self, name)))}] is negative")
        self._check_sums()
        if self.outside is not None and self.log_base is None:
            many = np.diff(self.ptr)
            text, query = np.repeat(self.outside.texts, many), np.repeat(self.outside.query, many)
            object.__setattr__(self, "log_base", self.outside.bases.log_at(text, query, self.outside.token))
        if self.log_base is not None and (never := (self.targets > 0) & ~np.isfinite(self.log_base)).any():
            raise ValueError(f"candidate {int(np.argmax(never))} has a target, but P0 gives it no probability")
        if self.outside is not None and not np.isfinite(self.outside.log_base).all():
            first = int(np.argmin(np.isfinite(self.outside.log_base)))
            raise ValueError(f"choice {first} has a target outside its candidates to which P0 gives no probability")

    @property
    def log_p0(self) -> FloatArray:
        """[N] log P0 of the candidates, 0 where there is no P0."""
        return np.zeros(len(self.targets)) if self.log_base is None else self.log_base

    @cached_property
    def terms(self) -> Terms:
        """The same as arrays for the solver."""
        count = len(self)
        if self.outside is None:
            nothing = np.zeros(count)
            base, row_of, beyond, mass = None, np.full(count, -1, np.int64), nothing, nothing
        else:
            base, beyond, mass = self.outside.bases, self.outside.log_base, self.outside.target
            row_of = base.rows(self.outside.texts, self.outside.query)
        return Terms(
            self.ptr, self.features, self.offsets, self.log_p0, self.targets, self.weights, base, row_of, beyond, mass,
            None if self.outside is None else partial(_ends, self.outside, self.ptr),
        )  # fmt: skip

    def _check_sums(self) -> None:
        sums = np.add.reduceat(self.targets, self.ptr[:-1])
        sums = sums if self.outside is None else sums + self.outside.target
        wrong = np.flatnonzero(~(np.abs(sums - 1) <= 1e-4))
        if len(wrong):
            raise ValueError(f"targets of choice {wrong[0]} sum to {sums[wrong[0]]:.6g}, not to 1")
        lost = (self.targets > 0) & ~np.isfinite(self.offsets)
        if lost.any() or np.isnan(self.offsets).any() or (self.offsets == np.inf).any():
            first = int(np.argmax(lost | np.isnan(self.offsets) | (self.offsets == np.inf)))
            raise ValueError(
                f"candidate {first} has the offset {self.offsets[first]} and the target {self.targets[first]:.6g}"
            )

    def __len__(self) -> int:
        return len(self.ptr) - 1

    @classmethod
    def of(
        cls,
        features: Iterable[ArrayLike],
        targets: Iterable[ArrayLike],
        offsets: Iterable[ArrayLike] | None = None,
        weights: ArrayLike | None = None,
        names: Sequence[str] | None = None,
    ) -> ChoiceRows:
        """From one array per choice, or dense arrays.

        Args:
            features: [n, C, D], or n arrays [C_r, D].
            targets: [n, C] distributions, or [n] the place of the chosen candidate; or n arrays [C_r].
            offsets: [n, C] or n arrays [C_r]; -inf takes a candidate away. None: 0.
            weights: [n], None: 1.
            names: of the features; None: x0, x1, ...

        Raises:
            ValueError: shapes do not agree, targets are no distributions, or values are not finite.
        """
        blocks = [np.atleast_2d(np.asarray(block)) for block in features]
        if not blocks or len({block.shape[1] for block in blocks}) > 1:
            raise ValueError("features must be [n, C, D] or n arrays [C, D] with the same D, n at least 1")
        sizes = [len(block) for block in blocks]
        aims = [_target(target, size, index) for index, (target, size) in enumerate(zip(targets, sizes, strict=True))]
        shifts = (
            [np.zeros(size) for size in sizes]
            if offsets is None
            else [np.asarray(o, dtype=np.float64) for o in offsets]
        )
        kept = [
            np.isfinite(shift) | np.isnan(shift) | (shift > 0) | (aim > 0)
            for shift, aim in zip(shifts, aims, strict=True)
        ]
        ptr = np.concatenate([[0], np.cumsum([int(keep.sum()) for keep in kept])]).astype(np.int64)
        x = np.concatenate([block[keep] for block, keep in zip(blocks, kept, strict=True)])
        return cls(
            x if x.dtype in (np.float32, np.float64) else x.astype(np.float64),
            np.concatenate([aim[keep] for aim, keep in zip(aims, kept, strict=True)]),
            ptr,
            np.concatenate([shift[keep] for shift, keep in zip(shifts, kept, strict=True)]),
            np.ones(len(blocks)) if weights is None else np.asarray(weights, dtype=np.float64),
            tuple(names) if names is not None else tuple(f"x{d}" for d in range(x.shape[1])),
        )


def _ends(outside: Outside, ptr: IntArray) -> FloatArray:
    """[n, 2] the least and the largest log P0 outside the candidates of each choice."""
    from ccmc._logit.separation import ends_outside

    return ends_outside(outside.bases, outside.texts, outside.query, outside.token, ptr)


def _finite(name: str, values: np.ndarray[Any, Any]) -> None:
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"{name}{where.tolist()} is {values[tuple(where)]}: values must be finite")


def _target(target: ArrayLike, size: int, index: int) -> FloatArray:
    value = np.asarray(target)
    if value.ndim == 1:
        if len(value) != size:
            raise ValueError(f"choice {index} has {size} candidates and {len(value)} targets")
        return value.astype(np.float64)
    if not np.issubdtype(value.dtype, np.integer) or not 0 <= int(value) < size:
        raise ValueError(f"the target of choice {index} must be a candidate below {size}, got {value}")
    hard = np.zeros(size)
    hard[int(value)] = 1.0
    return hard


@dataclass(frozen=True, eq=False)
class LogitFit:
    """A fitted conditional logit and how it was reached."""

    weights: FloatArray
    """[W] fitted weights, in the order of `names`."""
    names: tuple[str, ...]
    """W names; the first is `base` where there is one."""
    log_likelihood: float
    """Sum of weight x target x log p, in nats, without the ridge term."""
    iterations: int
    """Newton steps."""
    converged: bool
    """Whether `gradient_norm` reached the tolerance."""
    gradient_norm: float
    """max |gradient_j| / (weight of all choices x standard deviation of feature j under the fit)."""
    ridge: float
    """The ridge of the objective."""
    rows: ChoiceRows
    """What was fitted."""
    groups: IntArray | None
    """[n] the group of each choice, for `standard_errors`."""
    free: BoolArray
    """[1 + D] which of (base, features) were fitted."""
    full: FloatArray
    """[1 + D] weight of the base, and of every feature."""
    curvature: FloatArray
    """[1 + D, 1 + D] second derivatives of the loss at these weights, without the ridge."""

    def __repr__(self) -> str:
        reached = "converged" if self.converged else "not converged"
        shown = ", ".join(f"{name}={value:.4g}" for name, value in zip(self.names, self.weights, strict=True))
        return f"LogitFit({shown}; log_likelihood={self.log_likelihood:.6g}, {reached} after {self.iterations} steps)"

    @cached_property
    def covariance(self) -> FloatArray:
        """[W, W] of the weights: inverse curvature, or clustered by group (G / (G - 1) times the sandwich).

        Raises:
            ValueError: there is one group only.
        """
        from ccmc._logit.newton import scores

        of_free = self.curvature[np.ix_(self.free, self.free)] + self.ridge * np.eye(int(self.free.sum()))
        inverse = np.asarray(np.linalg.inv(of_free), dtype=np.float64)
        if self.groups is None:
            return inverse
        labels, place = np.unique(self.groups, return_inverse=True)
        if len(labels) < 2:
            raise ValueError("errors clustered by group need two groups at least")
        each = np.zeros((len(labels), int(self.free.sum())))
        np.add.at(each, place, scores(self.rows.terms, self.full)[:, self.free])
        clustered: FloatArray = inverse @ (each.T @ each) @ inverse * (len(labels) / (len(labels) - 1))
        return clustered

    def standard_errors(self) -> FloatArray:
        """[W] standard errors of the weights, clustered by group where groups were given."""
        errors: FloatArray = np.sqrt(np.diag(self.covariance))
        return errors

    def log_probabilities(self, rows: ChoiceRows | None = None) -> tuple[FloatArray, FloatArray]:
        """Log probabilities [N] of candidates and [n] of everything else (-inf where there is nothing else)."""
        from ccmc._logit.newton import log_probabilities

        of, rest = log_probabilities((self.rows if rows is None else rows).terms, self.full)
        return of, rest[:, 0]


def fit_context_logit(
    rows: ChoiceRows,
    groups: ArrayLike | None = None,
    ridge: float = 0.0,
    *,
    fixed: dict[str, float] | None = None,
    start: FloatArray | None = None,
    tol: float = 1e-9,
) -> LogitFit:
    """Fit the weights of a conditional logit by maximum likelihood.

    Args:
        rows: the choices.
        groups: [n] what the choices share, such as their prompt: standard errors are clustered by it. None: each alone.
        ridge: adds ridge/2 (|w|^2 + (a - 1)^2).
        fixed: weights that are not fitted, by name (`base` is that of log P0).
        start: [1 + D] weights to start at; None: 1 for the base, 0 for features.
        tol: of `LogitFit.gradient_norm`.

    Returns:
        The fit; `converged` says whether it reached the tolerance.

    Raises:
        NoMaximumLikelihoodEstimate: without a ridge, where the likelihood grows for ever along a direction of the
            weights; it names the features of the direction.
        ValueError: a feature, or a sum of some, is alike for all candidates of every choice and has no ridge: its
            weight is not determined; groups do not agree with rows; a name is unknown.

    Source: McFadden 1974.
    """
    from ccmc._logit.newton import solve

    if not np.isfinite(ridge) or ridge < 0:
        raise ValueError(f"ridge must be finite and not negative, got {ridge}")
    labels = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    if labels is not None and labels.shape != (len(rows),):
        raise ValueError(f"groups must name one group for each of {len(rows)} choices, got {labels.shape}")
    names = (BASE, *rows.names)
    free = np.ones(len(names), dtype=bool)
    free[0] = rows.log_base is not None
    w = np.zeros(len(names)) if start is None else np.array(start, dtype=np.float64)
    if start is None:
        w[0] = 1.0
    for name, value in (fixed or {}).items():
        if name not in names:
            raise ValueError(f"no weight is called {name!r}; there are {', '.join(names)}")
        free[names.index(name)], w[names.index(name)] = False, value
    chosen = np.flatnonzero(free)
    fitted = tuple(names[c] for c in chosen)
    found = solve(rows.terms, w, free, fitted, float(ridge), tol)
    if found.direction is not None:
        raise NoFiniteWeights(fitted, found.direction)
    return LogitFit(
        found.weights[chosen], fitted, -found.loss, found.steps, found.gradient_norm <= tol,
        found.gradient_norm, float(ridge), rows, labels, free, found.weights, found.hessian,
    )  # fmt: skip


class NoFiniteWeights(NoMaximumLikelihoodEstimate):
    """The likelihood of a conditional logit grows for ever along `direction` [W], by name in `features`."""

    def __init__(self, names: Sequence[str], direction: FloatArray) -> None:
        self.direction, self.diverging = direction, []
        self.features = {name: float(value) for name, value in zip(names, direction, strict=True) if abs(value) > 1e-6}
        shown = ", ".join(f"{value:+.3g} {name}" for name, value in self.features.items())
        ValueError.__init__(
            self,
            "no maximum-likelihood estimate exists: the likelihood grows for ever along the direction "
            f"({shown}), in which no candidate is ever better than the target; pass ridge > 0 for a finite fit, or "
            "leave a feature out",
        )
