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
THINNED = 8  # one choice of so many is read until their minimum is near
FEWEST = 1000  # such choices
ROUGH = 1e-3  # the gradient norm at which it is
SLACK = 1e-3  # least ridge of the thinned loss: they may leave a weight open
DAMPING = 1e-2  # share of the largest curvature there can be that is added at first
LEAST, MOST = 1e-9, 1e9  # damping below is none; above, no step lowers the objective


Sums = tuple[float, FloatArray, FloatArray]
"""Loss, gradient and curvature."""


@dataclass(frozen=True)
class Solution:
    """Weights [1 + D], the loss without ridge, the gradient norm, and how many steps were made.

    `hessian` [1 + D, 1 + D]: the curvature of the loss there, without the ridge.
    `direction` [free weights]: where there is no maximum, one along which the likelihood grows for ever.
    """

    weights: FloatArray
    loss: float
    gradient_norm: float
    steps: int
    hessian: FloatArray
    direction: FloatArray | None = None


def _portions(choices: IntArray) -> list[IntArray]:
    return [part for part in np.array_split(choices, PORTIONS) if len(part)]


def _all(rows: Terms) -> IntArray:
    return np.arange(len(rows), dtype=np.int64)


def sums(
    rows: Terms, w: FloatArray, curvature: bool, choices: IntArray | None = None
) -> tuple[float, FloatArray, FloatArray]:
    """Loss, gradient [1 + D] and curvature [1 + D, 1 + D] (zeros where it is not wanted), of all choices or of some."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.sums import add_up

    moments = rows.moments(float(w[0]))
    parts, many = _portions(_all(rows) if choices is None else choices), len(w)
    loss, gradient = np.zeros((len(parts), 1)), np.zeros((len(parts), 1, many))
    hessian = np.zeros((len(parts), many, many))

    def work(tasks: IntArray) -> None:
        for k in tasks:
            add_up(
                parts[k], rows.ptr, rows.columns, rows.offsets, rows.log_p0, rows.targets, rows.weights,
                rows.beyond, rows.row_of, moments, w, curvature, False, loss[k], gradient[k], hessian[k],
            )  # fmt: skip

    run_tasks(work, [float((rows.ptr[part + 1] - rows.ptr[part]).sum()) for part in parts])
    lower = hessian.sum(axis=0)
    return float(loss.sum()), gradient.sum(axis=0)[0], np.tril(lower) + np.tril(lower, -1).T


def scores(rows: Terms, w: FloatArray) -> FloatArray:
    """[n, 1 + D] gradient of each choice."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.sums import add_up

    moments, parts = rows.moments(float(w[0])), _portions(_all(rows))
    loss, gradient, nothing = np.zeros(len(rows)), np.zeros((len(rows), len(w))), np.zeros((1, 1))

    def work(tasks: IntArray) -> None:
        for k in tasks:
            add_up(
                parts[k], rows.ptr, rows.columns, rows.offsets, rows.log_p0, rows.targets, rows.weights,
                rows.beyond, rows.row_of, moments, w, False, True, loss, gradient, nothing,
            )  # fmt: skip

    run_tasks(work, np.ones(len(parts)))
    return gradient


def log_probabilities(rows: Terms, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """[N] of candidates; [n, 2] of everything else, and log of the sum of weights."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.sums import probabilities

    moments = rows.moments(float(w[0]))
    out, rest, parts = np.empty(len(rows.targets)), np.empty((len(rows), 2)), _portions(_all(rows))

    def work(tasks: IntArray) -> None:
        for k in tasks:
            probabilities(
                parts[k],
                rows.ptr,
                rows.columns,
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
    nothing = np.zeros((len(w), len(w)))
    if not asked and rows.features.size <= SMALL:
        asked = True
        if (direction := receding(rows, chosen)) is not None:
            return Solution(w, np.inf, np.inf, 0, nothing, direction)
    if ridge == 0:
        _check_determined(sums(rows, w, True)[2][np.ix_(chosen, chosen)], _sizes(rows)[chosen], names)
    problem = _Problem(rows, chosen, ridge, anchor, total, _bound(rows)[chosen])
    w, found = _approached(problem, w)
    steps, damping = 0, DAMPING
    while True:
        loss, _, hessian = found
        g, h, spread = problem.derivatives(w, found)
        norm = float(np.max(np.abs(g) / (total * np.maximum(spread, 1e-150)), initial=0.0))
        far = norm > tol and float((np.abs((w - anchor)[chosen]) * spread).max(initial=0.0)) > DOUBTFUL
        if not asked and (far or (steps >= MAX_STEPS and norm > tol)):
            asked = True
            if (direction := receding(rows, chosen)) is not None:
                return Solution(w, loss, norm, steps, hessian, direction)
        if norm <= tol or steps >= MAX_STEPS:
            return Solution(w, loss, norm, steps, hessian)
        moved = problem.moved(w, loss, g, h, damping)
        if moved is None:
            return Solution(w, loss, norm, steps, hessian)
        (w, found, damping), steps = moved, steps + 1


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is minimised: the loss of some choices plus ridge/2 |w - anchor|^2, over the weights `chosen`.

    `total` is the weight of the choices, `bound` [chosen] how large the diagonal of their curvature can be, `choices`
    which they are (None: all).
    """

    rows: Terms
    chosen: IntArray
    ridge: float
    anchor: FloatArray
    total: float
    bound: FloatArray
    choices: IntArray | None = None

    def derivatives(self, w: FloatArray, found: Sums) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Gradient and curvature of the objective, and the standard deviation of each feature under the weights."""
        _, gradient, hessian = found
        g = gradient[self.chosen] + self.ridge * (w - self.anchor)[self.chosen]
        h = hessian[np.ix_(self.chosen, self.chosen)] + self.ridge * np.eye(len(self.chosen))
        spread: FloatArray = np.sqrt(np.maximum(np.diag(h), 0.0) / self.total)
        return g, h, spread

    def moved(
        self, w: FloatArray, loss: float, g: FloatArray, h: FloatArray, damping: float
    ) -> tuple[FloatArray, Sums, float] | None:
        """A damped Newton step: weights, their sums, and the damping of the next step. None: no step lowers it.

        Without damping a feature that is rarely there, and then decides, is moved far too much: its curvature is small
        because its choices are certain. Damping adds a share of the curvature that they would have if they were not.
        """
        before = loss + self.pull(w)
        whole = self.rows.base is None or self.rows.base.positive  # P0^a of a token that never comes needs a > 0
        while damping <= MOST:
            steep = h + np.diag(damping * self.bound + 1e-12 * np.diag(h) + 1e-300)
            move = np.asarray(-np.linalg.solve(steep, g), dtype=np.float64)
            tried, expected = w.copy(), -float(g @ move + 0.5 * move @ h @ move)
            tried[self.chosen] += move
            if tried[0] > 0 or 0 not in self.chosen or whole:
                found = sums(self.rows, tried, True, self.choices)
                fell = before - found[0] - self.pull(tried)
                if np.isfinite(fell) and fell >= 0.1 * expected - 1e-13 * abs(before):
                    lower = damping / 10 if fell >= 0.7 * expected else damping
                    return tried, found, lower if lower >= LEAST else 0.0
            damping = max(10 * damping, 1e-5)
        return None

    def pull(self, w: FloatArray) -> float:
        """The ridge's part of the objective."""
        return 0.5 * self.ridge * float(((w - self.anchor) ** 2).sum())


def _approached(problem: _Problem, w: FloatArray) -> tuple[FloatArray, Sums]:
    """Weights near the minimum, from a part of the choices; those that were given where these do worse, or are few."""
    rows, given = problem.rows, sums(problem.rows, w, True)
    some = np.flatnonzero(rows.weights > 0)[::THINNED].astype(np.int64)
    if len(some) < FEWEST:
        return w, given
    weight = float(rows.weights[some].sum())
    ridge = max(problem.ridge * weight / problem.total, SLACK)
    bound = problem.bound * weight / problem.total
    thin = _Problem(rows, problem.chosen, ridge, problem.anchor, weight, bound, some)
    near, found, damping = w, sums(rows, w, True, some), DAMPING
    for _ in range(MAX_STEPS):
        g, h, spread = thin.derivatives(near, found)
        if float(np.max(np.abs(g) / (weight * np.maximum(spread, 1e-150)), initial=0.0)) <= ROUGH:
            break
        moved = thin.moved(near, found[0], g, h, damping)
        if moved is None:
            break
        near, found, damping = moved
    whole = sums(rows, near, True)
    better = whole[0] + problem.pull(near) < given[0] + problem.pull(w)
    return (near, whole) if better else (w, given)


def _bound(rows: Terms) -> FloatArray:
    """[1 + D] largest diagonal of the curvature: half the sum of squares around the mean (Boehning 1992)."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.sums import spreads

    parts = np.zeros((PORTIONS, 1 + len(rows.columns)))
    tasks = _portions(_all(rows))

    def work(own: IntArray) -> None:
        for k in own:
            spreads(tasks[k], rows.ptr, rows.columns, rows.log_p0, rows.weights, rows.row_of, parts[k])

    run_tasks(work, np.ones(len(tasks)))
    found: FloatArray = parts.sum(axis=0) / 2
    return found


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
