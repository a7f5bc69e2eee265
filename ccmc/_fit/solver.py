"""Kernels that decide which point a fit tries next: accelerated minorise-maximise, then Newton where that lingers.

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
from ccmc._fit.newton import LONGEST_STEP, begin_conjugate, begin_trial, conjugate, descends, measure, shorten
from ccmc._fit.workspace import (
    BEST,
    COARSE,
    DEPTH,
    DIRECTION,
    DONE,
    DROPS,
    ENOUGH,
    EXACT,
    FAILURES,
    GRADIENT,
    HESSIAN,
    KEPT,
    LAST,
    LAST_MOVE,
    LIKELIHOOD,
    MEASURE,
    MOVE,
    NOISE,
    OBJECTIVE,
    PASSES,
    PHASE,
    PLAIN,
    POINT,
    PRODUCT,
    REQUEST,
    SINCE,
    SIZES,
    SLACK,
    SLOPE,
    SLOT,
    STARTED,
    STEP,
    TRACE,
    TRIALS,
    WORK,
)

_MM, _AT_POINT, _CONJUGATE, _TRIAL = 0, 1, 2, 3

_FACTORISED = 400
_PATIENCE = 10
_LINGERS = 6.0
# Relative error of an objective after a coarse pass; and the measure from which passes are exact.
_COARSE_SLACK = 1e-7
_NEAR = 3e-5


@kernel
def factorised(size: int) -> bool:
    """Whether Newton steps of a problem of this size ask for the Hessian rather than for products with it."""
    return size <= _FACTORISED


@kernel
def may_be_coarse(numbers: FloatArray, state: IntArray, max_passes: int) -> bool:
    """Whether seven digits are enough for the pass that was requested. Only exact passes end a fit."""
    return bool(state[PHASE] == _MM and not state[EXACT] and state[PASSES] + 1 < max_passes)


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

    After a pass: total, slope and expected [tokens], and squares [tokens, tokens] if the Hessian was requested. After a
    product: `expected` holds sum_r w_r p_r (p_r . direction), and the other arguments do not matter.
    """
    state[PASSES] += 1
    if state[REQUEST] == PRODUCT:
        image = vectors[MOVE] * vectors[DIRECTION] - expected
        if conjugate(vectors, numbers, state, image, state[PASSES] < max_passes):
            return PRODUCT
        centre(vectors[STEP], component, components, vectors[WORK], vectors[SIZES])
        return _try_step(vectors, numbers, state, GRADIENT, max_passes)
    # Directions need not be more exact than the answer.
    numbers[ENOUGH] = 0.1 * tol
    z = prior + vectors[POINT]
    delta, gradient = vectors[POINT], vectors[SLOPE]
    gradient[:] = expected - wins + ridge * delta
    likelihood = wins @ (z - z.max()) - total
    objective = 0.5 * ridge * (delta @ delta) - likelihood
    now = measure(gradient, wins, ridge)
    noise = _COARSE_SLACK if state[COARSE] else SLACK
    slack = max(noise, numbers[NOISE]) * (abs(objective) + wins.sum() + ridge)
    if now <= max(_NEAR, tol):
        state[EXACT] = 1
    phase = state[PHASE]
    if phase == _TRIAL:
        if not descends(numbers, objective, gradient @ vectors[STEP], slack):
            shorten(vectors, numbers, state)
            if state[TRIALS] < 8 and state[PASSES] < max_passes:
                return int(state[REQUEST])
            return _back_to_mm(vectors, state, max_passes)
        if objective >= numbers[OBJECTIVE] and now >= numbers[MEASURE]:
            state[FAILURES] += 1
    elif phase == _MM and state[STARTED]:
        worse = objective > numbers[OBJECTIVE] + slack
        stuck = objective >= numbers[OBJECTIVE] - slack and now > 4 * numbers[MEASURE]
        if (worse or stuck) and noise + numbers[NOISE] > _COARSE_SLACK:
            # Perhaps coarse passes are to blame: begin anew at the best point, exactly.
            vectors[POINT] = vectors[BEST]
            state[EXACT], state[STARTED], state[KEPT] = 1, 0, 0
            return GRADIENT
        if worse or stuck:
            state[DROPS] += 1
            if state[PLAIN]:
                # A plain step cannot make F worse: what is left is rounding.
                state[FAILURES] += 1
                state[DROPS] += 3
            state[KEPT] = 0
            if state[FAILURES] >= 3 or state[PASSES] >= max_passes:
                state[REQUEST] = DONE
            elif state[DROPS] >= 3:
                delta[:] = vectors[BEST]
                state[PHASE] = _AT_POINT
                state[REQUEST] = HESSIAN if factorised(delta.shape[0]) else GRADIENT
            else:
                delta[:] = vectors[BEST] + vectors[MOVE]
                state[PLAIN] = 1
            return int(state[REQUEST])

    before = numbers[MEASURE]
    numbers[OBJECTIVE], numbers[LIKELIHOOD], numbers[MEASURE] = objective, likelihood, now
    numbers[NOISE] = noise
    vectors[BEST] = delta
    if state[COARSE] and now <= tol:
        # Perhaps the answer: look at this point again, exactly.
        state[STARTED], state[KEPT] = 0, 0
        return GRADIENT
    if now <= tol or state[PASSES] >= max_passes or state[FAILURES] >= 3:
        state[REQUEST] = DONE
        return DONE
    if phase != _MM:
        if factorised(delta.shape[0]):
            return _newton(vectors, numbers, state, wins, ridge, component, components, expected, squares, max_passes)
        return _by_products(vectors, numbers, state, ridge, expected)

    if state[STARTED]:
        # The mean rate is that of the last few passes, the recent ones counting more.
        rate = np.log(now / before)
        numbers[TRACE] = rate if state[SINCE] <= 1 else 0.7 * numbers[TRACE] + 0.3 * rate
    state[STARTED] = 1
    state[SINCE] += 1
    if state[SINCE] > _PATIENCE and np.log(tol / now) < _LINGERS * min(numbers[TRACE], -1e-6):
        state[PHASE] = _AT_POINT
        state[REQUEST] = HESSIAN if factorised(delta.shape[0]) else GRADIENT
        if not factorised(delta.shape[0]) and not state[COARSE]:
            # The pass that was just made is the one that conjugate gradients start from.
            return _by_products(vectors, numbers, state, ridge, expected)
        return int(state[REQUEST])
    _mm_step(z, slope, expected, wins, delta, ridge, vectors[MOVE])
    centre(vectors[MOVE], component, components, vectors[WORK], vectors[SIZES])
    _extrapolate(vectors, history, state, wins, ridge)
    state[REQUEST] = GRADIENT
    return GRADIENT


@kernel
def _back_to_mm(vectors: FloatArray, state: IntArray, max_passes: int) -> int:
    """MM always descends: look at the best point again and take a few of its steps, then Newton's again."""
    state[FAILURES] += 1
    state[PHASE], state[KEPT], state[DROPS], state[STARTED] = _MM, 0, 0, 0
    state[SINCE] = _PATIENCE - 3
    vectors[POINT] = vectors[BEST]
    state[REQUEST] = DONE if state[FAILURES] >= 3 or state[PASSES] >= max_passes else GRADIENT
    return int(state[REQUEST])


@kernel
def _extrapolate(vectors: FloatArray, history: FloatArray, state: IntArray, wins: FloatArray, ridge: float) -> None:
    """The next point: BEST + MOVE, less the combination of former differences that explains MOVE best.

    history holds DEPTH differences of points, DEPTH differences of moves, and in its last two rows nothing.
    """
    size = vectors.shape[1]
    x, f = vectors[BEST], vectors[MOVE]
    kept = state[KEPT]
    if kept > 0:
        slot = state[SLOT] % DEPTH
        for c in range(size):
            history[slot, c] = x[c] - vectors[LAST, c]
            history[DEPTH + slot, c] = f[c] - vectors[LAST_MOVE, c]
        state[SLOT] += 1
    vectors[LAST] = x
    vectors[LAST_MOVE] = f
    state[KEPT] = min(kept + 1, DEPTH + 1)
    vectors[POINT] = x + f
    state[PLAIN] = 1
    used = min(kept, DEPTH)
    if used == 0:
        return
    gram, right = np.zeros((used, used)), np.zeros(used)
    for a in range(used):
        at = (state[SLOT] - 1 - a) % DEPTH
        for c in range(size):
            right[a] += (wins[c] + ridge) * history[DEPTH + at, c] * f[c]
        for b in range(a + 1):
            to = (state[SLOT] - 1 - b) % DEPTH
            for c in range(size):
                gram[a, b] += (wins[c] + ridge) * history[DEPTH + at, c] * history[DEPTH + to, c]
    share = scaled_cholesky(gram, right)
    for a in range(used):
        at = (state[SLOT] - 1 - a) % DEPTH
        for c in range(size):
            vectors[POINT, c] -= share[a] * (history[at, c] + history[DEPTH + at, c])
    furthest = 0.0
    for c in range(size):
        furthest = max(furthest, abs(vectors[POINT, c] - x[c]))
    if furthest <= LONGEST_STEP + np.abs(f).max():
        state[PLAIN] = 0
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
    step, root, sums = vectors[STEP], vectors[WORK], vectors[SIZES]
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
        step[a] = -vectors[SLOPE, a] / root[a]
    step[:] = scaled_cholesky(squares, step) / root
    centre(step, component, components, vectors[WORK], sums)
    return _try_step(vectors, numbers, state, HESSIAN, max_passes)


@kernel
def _by_products(vectors: FloatArray, numbers: FloatArray, state: IntArray, ridge: float, expected: FloatArray) -> int:
    """Newton's direction by conjugate gradients with diag(e) + ridge in front."""
    begin_conjugate(vectors, numbers, state, expected + ridge)
    state[PHASE] = _CONJUGATE
    state[REQUEST] = PRODUCT
    return PRODUCT


@kernel
def _try_step(vectors: FloatArray, numbers: FloatArray, state: IntArray, request: int, max_passes: int) -> int:
    if not begin_trial(vectors, numbers, state, np.abs(vectors[STEP]).max()):
        return _back_to_mm(vectors, state, max_passes)
    state[PHASE] = _TRIAL
    state[REQUEST] = request
    return request
