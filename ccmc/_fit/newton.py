"""Newton's method for convex functions: directions by conjugate gradients, and steps that are checked to descend.

The solver of a table of logits (`solver.py`) takes such steps, query by query, where its own linger; a bilinear fit
(`bilinear.py`) takes no others. Both keep their point, direction and step in the arrays of `workspace.py`, and both
read the observations themselves: nothing here does.
"""

from __future__ import annotations

import numpy as np

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray
from ccmc._fit.workspace import (
    BEST,
    DIRECTION,
    ENOUGH,
    FALL,
    GOAL,
    LENGTH,
    MOVE,
    OBJECTIVE,
    POINT,
    PRODUCTS,
    RESIDUAL,
    RHO,
    SLOPE,
    STEP,
    TRIALS,
    WORK,
)

# No logit moves farther in one step.
LONGEST_STEP = 5.0


@kernel
def measure(gradient: FloatArray, scale: FloatArray, ridge: float) -> float:
    """max_c |g_c| / (scale_c + ridge), the stopping rule."""
    worst = 0.0
    for c in range(gradient.shape[0]):
        size = scale[c] + ridge
        if size > 0:
            worst = max(worst, abs(gradient[c]) / size)
        elif gradient[c] != 0:
            worst = np.inf
    return worst


@kernel
def begin_conjugate(vectors: FloatArray, numbers: FloatArray, state: IntArray, diagonal: FloatArray) -> None:
    """Start on Newton's direction at BEST by conjugate gradients, with `diagonal` in front of the Hessian."""
    vectors[MOVE] = diagonal
    vectors[STEP] = 0.0
    vectors[RESIDUAL] = -vectors[SLOPE]
    vectors[DIRECTION] = vectors[RESIDUAL] / np.maximum(diagonal, 1e-300)
    rho = vectors[RESIDUAL] @ vectors[DIRECTION]
    numbers[RHO] = rho
    # Solved more tightly the closer the optimum is.
    numbers[GOAL] = rho * min(0.1, np.sqrt(rho / diagonal.sum())) ** 2
    state[PRODUCTS] = 0


@kernel
def conjugate(vectors: FloatArray, numbers: FloatArray, state: IntArray, image: FloatArray, more: bool) -> bool:
    """Take the Hessian times DIRECTION; whether STEP needs a further product, which `more` permits."""
    direction, residual, diagonal = vectors[DIRECTION], vectors[RESIDUAL], vectors[MOVE]
    curvature, rho = direction @ image, numbers[RHO]
    state[PRODUCTS] += 1
    if not curvature > 1e-15 * rho:
        return False
    along = rho / curvature
    vectors[STEP] += along * direction
    residual -= along * image
    scaled = vectors[WORK]
    scaled[:] = residual / np.maximum(diagonal, 1e-300)
    numbers[RHO] = residual @ scaled
    further = (
        more
        and numbers[RHO] > numbers[GOAL]
        and measure(residual, diagonal, 0.0) > numbers[ENOUGH]
        and state[PRODUCTS] < 2 * direction.shape[0] + 10
    )
    if further:
        direction *= numbers[RHO] / rho
        direction += scaled
    return bool(further)


@kernel
def begin_trial(vectors: FloatArray, numbers: FloatArray, state: IntArray, furthest: float) -> bool:
    """Set POINT along STEP, which moves some logit by `furthest`; False where STEP does not lead down."""
    numbers[FALL] = vectors[SLOPE] @ vectors[STEP]
    if not numbers[FALL] < 0:
        return False
    numbers[LENGTH] = min(1.0, LONGEST_STEP / max(furthest, 1e-300))
    vectors[POINT] = vectors[BEST] + numbers[LENGTH] * vectors[STEP]
    state[TRIALS] = 0
    return True


@kernel
def descends(numbers: FloatArray, objective: float, onward: float, slack: float) -> bool:
    """Whether a trial point may be taken, given its objective and the slope there along STEP."""
    # In a convex function a slope that is still falling proves descent even where the objective itself is rounded.
    return bool(
        objective <= numbers[OBJECTIVE] + 1e-4 * numbers[LENGTH] * numbers[FALL]
        or (onward <= -0.8 * numbers[FALL] and objective <= numbers[OBJECTIVE] + slack)
    )


@kernel
def shorten(vectors: FloatArray, numbers: FloatArray, state: IntArray) -> None:
    """Set POINT to a quarter of the length that was tried."""
    state[TRIALS] += 1
    numbers[LENGTH] *= 0.25
    vectors[POINT] = vectors[BEST] + numbers[LENGTH] * vectors[STEP]
