"""Many smooth convex functions at once, minimised by limited-memory BFGS (Nocedal 1980), each at its own pace.

All functions that are not yet done are evaluated together, so that what they share is read once. What one does never
depends on the others. Directions, which need not be exact, are in float32: most of the time goes into reading them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.data.texts import FloatArray, IntArray

Direction = np.ndarray[Any, np.dtype[np.float32]]
Objective = Callable[[IntArray, FloatArray], tuple[FloatArray, FloatArray]]
KEPT = 4  # steps whose curvature is remembered; reading more of them costs more than it saves
ENOUGH = 1e-4  # share of the fall promised by the slope that a step must reach (Armijo 1966)
MOST_TRIALS = 20


@dataclass
class _Search:
    """Where the minimisation of one function stands.

    Attributes:
        x, value, gradient: the best point so far.
        steps: (step, change of gradient, 1 / their product) of the last moves.
        direction: where to look next; slope: of the function along it; length: how far.
        trials: points tried along it.
    """

    x: FloatArray
    value: float
    gradient: FloatArray
    steps: deque[tuple[Direction, Direction, float]] = field(default_factory=lambda: deque(maxlen=KEPT))
    direction: Direction = field(init=False)
    slope: float = field(init=False)
    length: float = 1.0
    trials: int = 0
    moves: int = 0

    def __post_init__(self) -> None:
        self.aim()

    def aim(self) -> None:
        """Choose a direction by the two-loop recursion."""
        gradient = self.gradient.astype(np.float32)
        d, weights = -gradient, []
        for step, change, inverse in reversed(self.steps):
            weights.append(inverse * float(step @ d))
            d -= np.float32(weights[-1]) * change
        if self.steps:
            _, change, inverse = self.steps[-1]
            d /= np.float32(inverse * float(change @ change))
        for (step, change, inverse), weight in zip(self.steps, reversed(weights), strict=True):
            d += np.float32(weight - inverse * float(change @ d)) * step
        self.direction, self.slope, self.trials = d, float(d @ gradient), 0
        self.length = 1.0 if self.steps else min(1.0, 1.0 / max(float(np.abs(self.gradient).sum()), 1e-300))

    @property
    def trial(self) -> FloatArray:
        return self.x + self.length * self.direction

    def take(self, value: float, gradient: FloatArray, tol: float, fall: float) -> bool:
        """Use what was found at the trial point; True where the minimisation is done."""
        self.trials += 1
        promised = self.length * self.slope
        if not value <= self.value + ENOUGH * promised:
            curved = value - self.value - promised
            shorter = -0.5 * promised / curved if np.isfinite(curved) and curved > 0 else 0.1
            self.length *= min(max(shorter, 0.1), 0.5)
            return self.trials >= MOST_TRIALS  # round-off hides any further fall
        x, fell = self.trial, self.value - value
        step, change = np.float32(self.length) * self.direction, (gradient - self.gradient).astype(np.float32)
        product = float(step @ change)
        if product > 1e-12 * float(change @ change):
            self.steps.append((step, change, 1.0 / product))
        self.x, self.value, self.gradient = x, value, gradient
        self.moves += 1
        if np.abs(gradient).max(initial=0.0) <= tol or fell <= fall * max(abs(value), 1.0):
            return True
        self.aim()
        return False


def minimise_each(objective: Objective, start: FloatArray, tol: float, fall: float, most: int) -> FloatArray:
    """Minimise functions of n numbers each.

    Args:
        objective: takes the numbers of some functions [A] and a point for each [A, n]; gives values [A] and gradients
            [A, n].
        start: [H, n] a point for each function.
        tol: done where no entry of the gradient is larger.
        fall: done where a step lowers the value by no more than this share of it.
        most: steps at most.

    Returns:
        [H, n] the best points.
    """
    every = np.arange(len(start))
    values, gradients = objective(every, start)
    found = [_Search(x.copy(), float(v), g.copy()) for x, v, g in zip(start, values, gradients, strict=True)]
    going = [number for number in every.tolist() if np.abs(found[number].gradient).max(initial=0.0) > tol]
    while going:
        values, gradients = objective(np.array(going), np.stack([found[number].trial for number in going]))
        results = zip(going, values.tolist(), gradients, strict=True)
        done = {n for n, value, gradient in results if found[n].take(value, gradient.copy(), tol, fall)}
        going = [number for number in going if number not in done and found[number].moves < most]
    return np.stack([search.x for search in found])
