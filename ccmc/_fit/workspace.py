"""What a fit keeps between two passes: the layout of the arrays that the solver and Newton's steps share."""

from __future__ import annotations

import numpy as np

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray

# Requests of a solver: nothing, or a pass at `vectors[POINT]`, or a product with `vectors[DIRECTION]`.
DONE, GRADIENT, HESSIAN, PRODUCT = 0, 1, 2, 3

# Rows of `vectors` [_VECTORS, tokens].
POINT, DIRECTION, BEST = 0, 1, 2
SLOPE, MOVE, LAST, LAST_MOVE, STEP, RESIDUAL, WORK, SIZES = 3, 4, 5, 6, 7, 8, 9, 10
_VECTORS = 11

# Entries of `numbers`.
OBJECTIVE, LIKELIHOOD, MEASURE = 0, 1, 2
FALL, LENGTH, RHO, GOAL, TRACE, ENOUGH, NOISE = 3, 4, 5, 6, 7, 8, 9
_NUMBERS = 12

# Entries of `state`.
REQUEST, PASSES = 0, 1
PHASE, KEPT, SLOT, FAILURES, DROPS, SINCE, TRIALS, PRODUCTS, PLAIN, STARTED = 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
# Whether the last pass was coarse, whether none may be any more.
COARSE, EXACT = 12, 13
_STATES = 14

# Steps that the extrapolation remembers.
DEPTH = 8
# Relative error of an objective after an exact pass.
SLACK = 1e-13


@kernel
def workspace(size: int) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
    """vectors, history [2 DEPTH + 2, tokens or DEPTH], numbers and state of a problem of `size` tokens, at delta 0."""
    history = np.zeros((2 * DEPTH + 2, max(size, DEPTH)))
    state = np.zeros(_STATES, np.int64)
    state[REQUEST] = GRADIENT
    return np.zeros((_VECTORS, size)), history, np.zeros(_NUMBERS), state
