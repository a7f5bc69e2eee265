"""Newton's method for a conditional logit, and the question whether its likelihood has a maximum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ccmc._data.types import BoolArray, FloatArray, IntArray
from ccmc._logit.separation import receding
from ccmc._logit.terms import Terms

MAX_STEPS = 100
PORTIONS = 64  # of the choices, whatever the number of threads: sums are added in one order
DOUBTFUL = 40.0  # nats that the weights move between candidates one standard deviation apart: maxima lie nearer
SMALL = 200_000  # features times candidates for which the question is always asked


@dataclass(frozen=True)
class Solution:
    """Weights [1 + D], the loss without ridge, the gradient norm, and how many steps were made.

    `direction` [free weights]: where there is no maximum, one along which the likelihood grows for ever.
    """

    weights: FloatArray
    loss: float
    gradient_norm: float
    steps: int
    direction: FloatArray | None = None


def _portions(count: int) -> list[IntArray]:
    return [part for part in np.array_split(np.arange(count, dtype=np.int64), PORTIONS) if len(part)]


def sums(rows: Terms, w: FloatArray, curvature: bool) -> tuple[float, FloatArray, FloatArray]:
    """Loss, gradient [1 + D] and curvature [1 + D, 1 + D] (zeros where it is not asked for)."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.sums import add_up

    moments = rows.moments(float(w[0]))
    parts, many = _portions(len(rows)), len(w)
    loss, gradient = np.zeros((len(parts), 1)), np.zeros((len(parts), 1, many))
    hessian = np.zeros((len(parts), many, many))

    def work(tasks: IntArray) -> None:
        for k in tasks:
            add_up(
                parts[k], rows.ptr, rows.features, rows.offsets, rows.log_p0, rows.targets, rows.weights,
                rows.beyond, rows.row_of, moments, w, curvature, False, loss[k], gradient[k], hessian[k],
            )  # fmt: skip

    run_tasks(work, [float(rows.ptr[part[-1] + 1] - rows.ptr[part[0]]) for part in parts])
    lower = hessian.sum(axis=0)
    return float(loss.sum()), gradient.sum(axis=0)[0], np.tril(lower) + np.tril(lower, -1).T


def scores(rows: Terms, w: FloatArray) -> FloatArray:
    """[n, 1 + D] gradient of each choice."""
    from ccmc._logit.sums import add_up

    moments = rows.moments(float(w[0]))
    loss, gradient = np.zeros(len(rows)), np.zeros((len(rows), len(w)))
    add_up(
        np.arange(len(rows), dtype=np.int64), rows.ptr, rows.features,
        rows.offsets, rows.log_p0, rows.targets, rows.weights, rows.beyond, rows.row_of, moments, w, False, True,
        loss, gradient, np.zeros((1, 1)),
    )  # fmt: skip
    return gradient


def log_probabilities(rows: Terms, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """[N] of candidates; [n, 2] of everything else, and log of the sum of weights."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.sums import probabilities

    moments = rows.moments(float(w[0]))
    out, rest, parts = np.empty(len(rows.targets)), np.empty((len(rows), 2)), _portions(len(rows))

    def work(tasks: IntArray) -> None:
        for k in tasks:
            probabilities(
                parts[k],
                rows.ptr,
                rows.features,
                rows.offsets,
                rows.log_p0,
                rows.row_of,
                moments,
                w,
                out,
                rest,
            )

    run_tasks(work, np.ones(len(parts)))
    return out, rest


def solve(rows: Terms, w: FloatArray, free: BoolArray, names: Sequence[str], ridge: float, tol: float) -> Solution:
    """Minimise the loss plus ridge/2 |w - (1, 0, ...)|^2 over the free weights, whose names are given."""
    anchor = np.zeros(len(w))
    anchor[0] = 1.0
    chosen = np.flatnonzero(free)
    total = float(rows.weights.sum())
    if total <= 0:
        raise ValueError("no choice has a positive weight: there is nothing to fit")
    asked = ridge > 0  # whether it is known that the maximum exists
    if not asked and rows.features.size <= SMALL:
        asked = True
        if (direction := receding(rows, chosen)) is not None:
            return Solution(w, np.inf, np.inf, 0, direction)
    steps = 0
    loss, gradient, hessian = sums(rows, w, curvature=True)
    if ridge == 0:
        _check_determined(hessian[np.ix_(chosen, chosen)], _sizes(rows)[chosen], names)
    while True:
        g = gradient[chosen] + ridge * (w - anchor)[chosen]
        h = hessian[np.ix_(chosen, chosen)] + ridge * np.eye(len(chosen))
        spread = np.sqrt(np.maximum(np.diag(h), 0.0) / total)
        norm = float(np.max(np.abs(g) / (total * np.maximum(spread, 1e-150)), initial=0.0))
        far = norm > tol and float((np.abs((w - anchor)[chosen]) * spread).max(initial=0.0)) > DOUBTFUL
        if not asked and (far or (steps >= MAX_STEPS and norm > tol)):
            asked = True
            if (direction := receding(rows, chosen)) is not None:
                return Solution(w, loss, norm, steps, direction)
        if norm <= tol or steps >= MAX_STEPS:
            return Solution(w, loss, norm, steps)
        steep = h + 1e-12 * np.diag(np.diag(h)) + 1e-300 * np.eye(len(h))
        move = np.asarray(-np.linalg.solve(steep, g), dtype=np.float64)
        before = loss + _pull(w, anchor, ridge)
        moved, found = _searched(rows, w, chosen, move, before, float(g @ move), ridge, anchor)
        if moved is None:
            return Solution(w, loss, norm, steps)
        w, (loss, gradient, hessian), steps = moved, found, steps + 1


def _pull(w: FloatArray, anchor: FloatArray, ridge: float) -> float:
    return 0.5 * ridge * float(((w - anchor) ** 2).sum())


def _searched(
    rows: Terms, w: FloatArray, chosen: IntArray, move: FloatArray, before: float, slope: float, ridge: float,
    anchor: FloatArray,
) -> tuple[FloatArray | None, tuple[float, FloatArray, FloatArray]]:  # fmt: skip
    """Halve the step until the objective falls enough; None where no step lowers it (rounding)."""
    share = 1.0
    whole = rows.base is None or rows.base.positive  # P0^a of a token that never comes needs a > 0
    found = (0.0, np.empty(0), np.empty((0, 0)))
    for _ in range(40):
        tried = w.copy()
        tried[chosen] += share * move
        if tried[0] > 0 or 0 not in chosen or whole:
            found = sums(rows, tried, curvature=True)
            after = found[0] + _pull(tried, anchor, ridge)
            if np.isfinite(after) and after <= before + 1e-4 * share * slope + 1e-13 * abs(before):
                return tried, found
        share /= 2
    return None, found


def _sizes(rows: Terms) -> FloatArray:
    """[1 + D] root of the sum over choices of weight x mean square of log P0, and of each feature."""
    owner = np.repeat(rows.weights / np.diff(rows.ptr), np.diff(rows.ptr))
    squares = [owner @ np.where(np.isfinite(rows.log_p0), rows.log_p0, 0.0) ** 2]
    squares += [owner @ np.square(rows.features[:, d], dtype=np.float64) for d in range(rows.features.shape[1])]
    found: FloatArray = np.sqrt(np.array(squares))
    return found


def _check_determined(h: FloatArray, sizes: FloatArray, names: Sequence[str]) -> None:
    """Refuse features of which some sum is alike for all candidates; `sizes` as they would be if they were not."""
    if not len(h):
        return
    scale = np.sqrt(np.maximum(np.diag(h), 0.0))
    flat = np.flatnonzero(scale <= 1e-6 * sizes)
    if len(flat):
        raise ValueError(
            f"feature {names[flat[0]]!r} is alike for all candidates of every choice: leave it out, or pass ridge > 0"
        )
    value, vector = np.linalg.eigh(h / np.outer(scale, scale))
    if value[0] <= 1e-12:
        share = vector[:, 0] / scale
        share /= np.abs(share).max()
        shown = " ".join(f"{v:+.3g} {name}" for v, name in zip(share, names, strict=True) if abs(v) > 1e-6)
        raise ValueError(
            f"the sum {shown} is alike for all candidates of every choice: leave one out, or pass ridge > 0"
        )
