"""Kernels that decide where a fit looks next: accelerated minorise-maximise, then Newton where that lingers.

For the tokens c of one query, with logits z = prior + delta, weights w_r, wins y, and S_r as in `passes.py`,

    F(delta) = sum_r w_r log S_r - sum_c y_c z_c + ridge/2 sum_c delta_c^2,    gradient = e - y + ridge delta.

A step of minorise-maximise (MM) bounds each log by its tangent, which splits F into scalar problems
e_c exp(x_c) - y_c x_c + ridge/2 (delta_c + x_c)^2, each solved exactly: it never makes F worse, and jumps over any
distance. Its steps are extrapolated from the last eight (Anderson 1965), in the metric of the wins. Where F rises,
the plain step is taken instead. Where the steps linger, as for groups of tokens that are rarely seen together, Newton
steps follow: factorised up to a few hundred tokens, by conjugate gradients beyond.

F does not change when z moves by a constant on a component, so steps are centred on each component; with ridge this
is where the optimum lies: the derivatives of the likelihood sum to zero there, hence so does ridge x delta.

The solver never reads rows. `advance` takes the answer to its last request and returns the next one, so the same code
serves passes over rows in memory, passes in portions on several threads, and passes along a trajectory.
"""

from __future__ import annotations

import numpy as np

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray
from ccmc._fit.linear import centre, scaled_cholesky

# What `advance` asks for: nothing, or a pass at `vectors[POINT]`, or a product with `vectors[DIRECTION]`.
DONE, GRADIENT, HESSIAN, PRODUCT = 0, 1, 2, 3

# Rows of `vectors` [_VECTORS, tokens].
POINT, DIRECTION, BEST = 0, 1, 2
_GRADIENT, _MOVE, _LAST, _LAST_MOVE, _STEP, _RESIDUAL, _WORK, _SIZES = 3, 4, 5, 6, 7, 8, 9, 10
_VECTORS = 11

# Entries of `numbers`.
OBJECTIVE, LIKELIHOOD, MEASURE = 0, 1, 2
_FALL, _LENGTH, _RHO, _GOAL, _TRACE, _ENOUGH, _NOISE = 3, 4, 5, 6, 7, 8, 9
_NUMBERS = 12

# Entries of `state`.
REQUEST, PASSES = 0, 1
_PHASE, _KEPT, _SLOT, _FAILURES, _DROPS, _SINCE, _TRIALS, _PRODUCTS, _PLAIN, _STARTED = 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
# Whether the last pass was coarse, whether none may be any more.
COARSE, _EXACT = 12, 13
_STATES = 14

_MM, _AT_POINT, _CONJUGATE, _TRIAL = 0, 1, 2, 3

DEPTH = 8
_FACTORISED = 400
_PATIENCE = 10
_LINGERS = 6.0
_LONGEST_STEP = 5.0
# Relative error of an objective, of exact and of coarse passes; and the measure from which passes are exact.
_SLACK, _COARSE_SLACK = 1e-13, 1e-7
_NEAR = 3e-5


@kernel
def workspace(size: int) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
    """vectors, history [2 DEPTH + 2, tokens or DEPTH], numbers and state of a problem of `size` tokens, at delta 0."""
    history = np.zeros((2 * DEPTH + 2, max(size, DEPTH)))
    state = np.zeros(_STATES, np.int64)
    state[REQUEST] = GRADIENT
    return np.zeros((_VECTORS, size)), history, np.zeros(_NUMBERS), state


@kernel
def factorised(size: int) -> bool:
    """Whether Newton steps of a problem of this size ask for the Hessian rather than for products with it."""
    return size <= _FACTORISED


@kernel
def may_be_coarse(numbers: FloatArray, state: IntArray, max_passes: int) -> bool:
    """Whether seven digits are enough for the pass that was asked for. Only exact passes end a fit."""
    return bool(state[_PHASE] == _MM and not state[_EXACT] and state[PASSES] + 1 < max_passes)


@kernel
def advance(
    vectors: FloatArray,
    history: FloatArray,
    numbers: FloatArray,
    state: IntArray,
    prior: FloatArray,
    wins: FloatArray,
    ridge: float,
    component: IntArray,
    components: int,
    tol: float,
    max_passes: int,
    total: float,
    slope: FloatArray,
    expected: FloatArray,
    squares: FloatArray,
) -> int:
    """Take the answer to the last request and return the next.

    After a pass: total, slope and expected [tokens], and squares [tokens, tokens] if the Hessian was asked for. After a
    product: `expected` holds sum_r w_r p_r (p_r . direction), and the other arguments do not matter.
    """
    state[PASSES] += 1
    if state[REQUEST] == PRODUCT:
        state[REQUEST] = _conjugate(vectors, numbers, state, ridge, component, components, max_passes, expected)
        return int(state[REQUEST])
    # Directions need not be more exact than the answer.
    numbers[_ENOUGH] = 0.1 * tol
    z = prior + vectors[POINT]
    delta, gradient = vectors[POINT], vectors[_GRADIENT]
    gradient[:] = expected - wins + ridge * delta
    likelihood = wins @ (z - z.max()) - total
    objective = 0.5 * ridge * (delta @ delta) - likelihood
    measure = _measure(gradient, wins, ridge)
    noise = _COARSE_SLACK if state[COARSE] else _SLACK
    slack = max(noise, numbers[_NOISE]) * (abs(objective) + wins.sum() + ridge)
    if measure <= max(_NEAR, tol):
        state[_EXACT] = 1
    phase = state[_PHASE]
    if phase == _TRIAL:
        fall, onward = numbers[_FALL], gradient @ vectors[_STEP]
        # In a convex function a slope that is still falling proves descent even where F itself is rounded.
        if not (
            objective <= numbers[OBJECTIVE] + 1e-4 * numbers[_LENGTH] * fall
            or (onward <= -0.8 * fall and objective <= numbers[OBJECTIVE] + slack)
        ):
            state[_TRIALS] += 1
            numbers[_LENGTH] *= 0.25
            if state[_TRIALS] < 8 and state[PASSES] < max_passes:
                delta[:] = vectors[BEST] + numbers[_LENGTH] * vectors[_STEP]
                return int(state[REQUEST])
            return _back_to_mm(vectors, state, max_passes)
        if objective >= numbers[OBJECTIVE] and measure >= numbers[MEASURE]:
            state[_FAILURES] += 1
    elif phase == _MM and state[_STARTED]:
        worse = objective > numbers[OBJECTIVE] + slack
        stuck = objective >= numbers[OBJECTIVE] - slack and measure > 4 * numbers[MEASURE]
        if (worse or stuck) and noise + numbers[_NOISE] > _COARSE_SLACK:
            # Perhaps coarse passes are to blame: begin anew at the best point, exactly.
            vectors[POINT] = vectors[BEST]
            state[_EXACT], state[_STARTED], state[_KEPT] = 1, 0, 0
            return GRADIENT
        if worse or stuck:
            state[_DROPS] += 1
            if state[_PLAIN]:
                # A plain step cannot make F worse: what is left is rounding.
                state[_FAILURES] += 1
                state[_DROPS] += 3
            state[_KEPT] = 0
            if state[_FAILURES] >= 3 or state[PASSES] >= max_passes:
                state[REQUEST] = DONE
            elif state[_DROPS] >= 3:
                delta[:] = vectors[BEST]
                state[_PHASE] = _AT_POINT
                state[REQUEST] = HESSIAN if factorised(delta.shape[0]) else GRADIENT
            else:
                delta[:] = vectors[BEST] + vectors[_MOVE]
                state[_PLAIN] = 1
            return int(state[REQUEST])

    before = numbers[MEASURE]
    numbers[OBJECTIVE], numbers[LIKELIHOOD], numbers[MEASURE] = objective, likelihood, measure
    numbers[_NOISE] = noise
    vectors[BEST] = delta
    if state[COARSE] and measure <= tol:
        # Perhaps the answer: look at this point again, exactly.
        state[_STARTED], state[_KEPT] = 0, 0
        return GRADIENT
    if measure <= tol or state[PASSES] >= max_passes or state[_FAILURES] >= 3:
        state[REQUEST] = DONE
        return DONE
    if phase != _MM:
        if factorised(delta.shape[0]):
            return _newton(vectors, numbers, state, wins, ridge, component, components, expected, squares, max_passes)
        return _begin_conjugate(vectors, numbers, state, ridge, expected)

    if state[_STARTED]:
        # The mean rate is that of the last few passes, the recent ones counting more.
        rate = np.log(measure / before)
        numbers[_TRACE] = rate if state[_SINCE] <= 1 else 0.7 * numbers[_TRACE] + 0.3 * rate
    state[_STARTED] = 1
    state[_SINCE] += 1
    if state[_SINCE] > _PATIENCE and np.log(tol / measure) < _LINGERS * min(numbers[_TRACE], -1e-6):
        state[_PHASE] = _AT_POINT
        state[REQUEST] = HESSIAN if factorised(delta.shape[0]) else GRADIENT
        if not factorised(delta.shape[0]) and not state[COARSE]:
            # The pass that was just made is the one that conjugate gradients start from.
            return _begin_conjugate(vectors, numbers, state, ridge, expected)
        return int(state[REQUEST])
    _mm_step(z, slope, expected, wins, delta, ridge, vectors[_MOVE])
    centre(vectors[_MOVE], component, components, vectors[_WORK], vectors[_SIZES])
    _extrapolate(vectors, history, state, wins, ridge)
    state[REQUEST] = GRADIENT
    return GRADIENT


@kernel
def _back_to_mm(vectors: FloatArray, state: IntArray, max_passes: int) -> int:
    """MM always descends: look at the best point again and take a few of its steps, then Newton's again."""
    state[_FAILURES] += 1
    state[_PHASE], state[_KEPT], state[_DROPS], state[_STARTED] = _MM, 0, 0, 0
    state[_SINCE] = _PATIENCE - 3
    vectors[POINT] = vectors[BEST]
    state[REQUEST] = DONE if state[_FAILURES] >= 3 or state[PASSES] >= max_passes else GRADIENT
    return int(state[REQUEST])


@kernel
def _extrapolate(vectors: FloatArray, history: FloatArray, state: IntArray, wins: FloatArray, ridge: float) -> None:
    """The next point: BEST + MOVE, less the combination of former differences that explains MOVE best.

    history holds DEPTH differences of points, DEPTH differences of moves, and in its last two rows nothing.
    """
    size = vectors.shape[1]
    x, f = vectors[BEST], vectors[_MOVE]
    kept = state[_KEPT]
    if kept > 0:
        slot = state[_SLOT] % DEPTH
        for c in range(size):
            history[slot, c] = x[c] - vectors[_LAST, c]
            history[DEPTH + slot, c] = f[c] - vectors[_LAST_MOVE, c]
        state[_SLOT] += 1
    vectors[_LAST] = x
    vectors[_LAST_MOVE] = f
    state[_KEPT] = min(kept + 1, DEPTH + 1)
    vectors[POINT] = x + f
    state[_PLAIN] = 1
    used = min(kept, DEPTH)
    if used == 0:
        return
    gram, right = np.zeros((used, used)), np.zeros(used)
    for a in range(used):
        at = (state[_SLOT] - 1 - a) % DEPTH
        for c in range(size):
            right[a] += (wins[c] + ridge) * history[DEPTH + at, c] * f[c]
        for b in range(a + 1):
            to = (state[_SLOT] - 1 - b) % DEPTH
            for c in range(size):
                gram[a, b] += (wins[c] + ridge) * history[DEPTH + at, c] * history[DEPTH + to, c]
    share = scaled_cholesky(gram, right)
    for a in range(used):
        at = (state[_SLOT] - 1 - a) % DEPTH
        for c in range(size):
            vectors[POINT, c] -= share[a] * (history[at, c] + history[DEPTH + at, c])
    furthest = 0.0
    for c in range(size):
        furthest = max(furthest, abs(vectors[POINT, c] - x[c]))
    if furthest <= _LONGEST_STEP + np.abs(f).max():
        state[_PLAIN] = 0
    else:
        vectors[POINT] = x + f


@kernel
def _mm_step(
    z: FloatArray,
    slope: FloatArray,
    expected: FloatArray,
    wins: FloatArray,
    delta: FloatArray,
    ridge: float,
    x: FloatArray,
) -> None:
    """x_c = root of e_c exp(x) - wins_c + ridge (delta_c + x), a rising convex function of x."""
    top = z.max()
    for c in range(z.shape[0]):
        if expected[c] > 1e-290:
            log_e = np.log(expected[c])
        elif slope[c] > 0:
            log_e = z[c] - top + np.log(slope[c])
        else:
            log_e = -700.0
        if ridge == 0.0:
            x[c] = np.log(wins[c]) - log_e if wins[c] > 0 else 0.0
            continue
        pull = wins[c] - ridge * delta[c]
        e = np.exp(log_e)
        root = 0.0
        if e < pull:
            # Two upper bounds of the root; Newton on a convex rising function comes down from there.
            root = (pull - e) / (e + ridge)
            if pull > 0:
                root = min(root, np.log(pull) - log_e)
        for _ in range(50):
            up = np.exp(log_e + root)
            move = (up - pull + ridge * root) / (up + ridge)
            root -= move
            if abs(move) <= 1e-8 * (1.0 + abs(root)):
                break
        x[c] = root


@kernel
def _measure(gradient: FloatArray, wins: FloatArray, ridge: float) -> float:
    """max_c |g_c| / (wins_c + ridge), the stopping rule."""
    worst = 0.0
    for c in range(gradient.shape[0]):
        scale = wins[c] + ridge
        if scale > 0:
            worst = max(worst, abs(gradient[c]) / scale)
        elif gradient[c] != 0:
            worst = np.inf
    return worst


@kernel
def _newton(
    vectors: FloatArray,
    numbers: FloatArray,
    state: IntArray,
    wins: FloatArray,
    ridge: float,
    component: IntArray,
    components: int,
    expected: FloatArray,
    squares: FloatArray,
    max_passes: int,
) -> int:
    """Solve (diag(e) - squares + ridge) step = -gradient; `squares` is overwritten."""
    size = expected.shape[0]
    step, root, sums = vectors[_STEP], vectors[_WORK], vectors[_SIZES]
    for c in range(size):
        root[c] = np.sqrt(expected[c] + ridge)
    if not root.min() > 0:
        return _back_to_mm(vectors, state, max_passes)
    sums[:components] = 0.0
    for c in range(size):
        sums[component[c]] += root[c] * root[c]
    # Unit diagonal; constants on a component, which change nothing, are given the curvature 1.
    for a in range(size):
        for b in range(a + 1):
            squares[a, b] /= -root[a] * root[b]
            if component[a] == component[b]:
                squares[a, b] += root[a] * root[b] / sums[component[a]]
        squares[a, a] += 1.0
        step[a] = -vectors[_GRADIENT, a] / root[a]
    step[:] = scaled_cholesky(squares, step) / root
    centre(step, component, components, vectors[_WORK], sums)
    return _try_step(vectors, numbers, state, HESSIAN, max_passes)


@kernel
def _try_step(vectors: FloatArray, numbers: FloatArray, state: IntArray, request: int, max_passes: int) -> int:
    step = vectors[_STEP]
    numbers[_FALL] = vectors[_GRADIENT] @ step
    if not numbers[_FALL] < 0:
        return _back_to_mm(vectors, state, max_passes)
    numbers[_LENGTH] = min(1.0, _LONGEST_STEP / max(np.abs(step).max(), 1e-300))
    vectors[POINT] = vectors[BEST] + numbers[_LENGTH] * step
    state[_TRIALS] = 0
    state[_PHASE] = _TRIAL
    state[REQUEST] = request
    return request


@kernel
def _begin_conjugate(
    vectors: FloatArray, numbers: FloatArray, state: IntArray, ridge: float, expected: FloatArray
) -> int:
    """Newton's direction by conjugate gradients with diag(e) + ridge in front."""
    diagonal = vectors[_MOVE]
    diagonal[:] = expected + ridge
    vectors[_STEP] = 0.0
    vectors[_RESIDUAL] = -vectors[_GRADIENT]
    vectors[DIRECTION] = vectors[_RESIDUAL] / np.maximum(diagonal, 1e-300)
    rho = vectors[_RESIDUAL] @ vectors[DIRECTION]
    numbers[_RHO] = rho
    # Solved more tightly the closer the optimum is.
    numbers[_GOAL] = rho * min(0.1, np.sqrt(rho / diagonal.sum())) ** 2
    state[_PRODUCTS] = 0
    state[_PHASE] = _CONJUGATE
    state[REQUEST] = PRODUCT
    return PRODUCT


@kernel
def _conjugate(
    vectors: FloatArray,
    numbers: FloatArray,
    state: IntArray,
    ridge: float,
    component: IntArray,
    components: int,
    max_passes: int,
    squares_times_direction: FloatArray,
) -> int:
    direction, residual, image, diagonal = vectors[DIRECTION], vectors[_RESIDUAL], vectors[_WORK], vectors[_MOVE]
    image[:] = diagonal * direction - squares_times_direction
    curvature, rho = direction @ image, numbers[_RHO]
    state[_PRODUCTS] += 1
    if curvature > 1e-15 * rho:
        along = rho / curvature
        vectors[_STEP] += along * direction
        residual -= along * image
        image[:] = residual / np.maximum(diagonal, 1e-300)
        numbers[_RHO] = residual @ image
        if (
            numbers[_RHO] > numbers[_GOAL]
            and _measure(residual, diagonal, 0.0) > numbers[_ENOUGH]
            and state[PASSES] < max_passes
            and state[_PRODUCTS] < 2 * direction.shape[0] + 10
        ):
            direction *= numbers[_RHO] / rho
            direction += image
            return PRODUCT
    centre(vectors[_STEP], component, components, vectors[_WORK], vectors[_SIZES])
    return _try_step(vectors, numbers, state, GRADIENT, max_passes)
