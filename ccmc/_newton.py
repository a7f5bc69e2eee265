"""Kernels of the fit: one convex problem per query.

For the tokens c seen with one query, with logits z = prior + delta, rows r with counts m and weights w_r, and wins y,

    F(delta) = sum_r w_r log sum_c m_rc exp(z_c) - sum_c y_c z_c + ridge/2 sum_c delta_c^2.

One pass over the rows gives F and the expected wins e_c = sum_r w_r p_rc. Logits are per token, not per entry, so a
pass takes one exponential per token and one multiplication and addition, twice, per entry.

Far from the optimum a step of minorise-maximise (MM) is taken: bounding each log by its tangent splits F into scalar
problems e_c exp(x_c) - y_c x_c + ridge/2 (delta_c + x_c)^2, each solved exactly; it never makes F worse and jumps
over any distance. Near the optimum Newton steps follow, solved by conjugate gradients with diag(e) + ridge in front.
That leaves the identity less one rank-one term per row, so a query seen in few rows needs few products.

F does not change when z moves by a constant on a component, so steps are centred on each component; with ridge this
is where the optimum lies: the derivatives of the likelihood sum to zero there, hence so does ridge x delta.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._numba import kernel, summing_kernel
from ccmc._types import FloatArray, IntArray

# Below this, a row's sum over exp(z - max z) nears underflow and is taken relative to the row's own maximum. Products
# may be reordered, so its inverse must still be squarable.
_TINY = 1e-100
# Newton steps are trusted once MM wants to move no logit by more than this.
_CLOSE = 0.7
_MM_STEPS = 12
_LONGEST_STEP = 5.0
_SLACK = 1e-14


@summing_kernel
def _pass(
    rows: IntArray,
    indptr: IntArray,
    local: NDArray[np.uint32],
    counts: FloatArray,
    weight: FloatArray,
    z: FloatArray,
    w: FloatArray,
    inverse: FloatArray,
    shift: FloatArray,
    slope: FloatArray,
    expected: FloatArray,
) -> float:
    """Sum of w_r (log normaliser - max z) over the rows, filling what a product with the Hessian needs.

    w = exp(z - max z); inverse[r] = 1 / S_r, the normaliser over exp(max z); slope_c = sum_r w_r m_rc / S_r;
    expected = w * slope. Rows that underflow are taken over exp(shift[r]) instead; shift[r] is infinite elsewhere.
    """
    top = z.max()
    for c in range(z.shape[0]):
        w[c] = np.exp(z[c] - top)
        slope[c] = 0.0
        expected[c] = 0.0
    total = 0.0
    for r in range(rows.shape[0]):
        row = rows[r]
        first, last = indptr[row], indptr[row + 1]
        s = 0.0
        for k in range(first, last):
            s += counts[k] * w[local[k]]
        if s > _TINY:
            shift[r] = np.inf
            inverse[r] = 1.0 / s
            total += weight[row] * np.log(s)
            share = weight[row] / s
            for k in range(first, last):
                slope[local[k]] += share * counts[k]
        else:
            total += weight[row] * _shifted_row(
                r, first, last, local, counts, weight[row], z, top, inverse, shift, expected
            )
    for c in range(z.shape[0]):
        expected[c] += w[c] * slope[c]
    return total


@kernel
def _shifted_row(
    r: int,
    first: int,
    last: int,
    local: NDArray[np.uint32],
    counts: FloatArray,
    weight: float,
    z: FloatArray,
    top: float,
    inverse: FloatArray,
    shift: FloatArray,
    expected: FloatArray,
) -> float:
    """One row whose tokens all lie hundreds of nats below the query's best: log normaliser - max z."""
    best = -np.inf
    for k in range(first, last):
        best = max(best, z[local[k]])
    s = 0.0
    for k in range(first, last):
        s += counts[k] * np.exp(z[local[k]] - best)
    shift[r] = best
    inverse[r] = 1.0 / s
    for k in range(first, last):
        expected[local[k]] += weight * counts[k] * np.exp(z[local[k]] - best) / s
    return float(np.log(s) + (best - top))


@summing_kernel
def _hessian_product(
    rows: IntArray,
    indptr: IntArray,
    local: NDArray[np.uint32],
    counts: FloatArray,
    weight: FloatArray,
    z: FloatArray,
    w: FloatArray,
    inverse: FloatArray,
    shift: FloatArray,
    expected: FloatArray,
    ridge: float,
    v: FloatArray,
    y: FloatArray,
    sums: FloatArray,
    out: FloatArray,
) -> None:
    """out = (diag(e) - sum_r w_r p_r p_r^T + ridge) v, at the point of the last `_pass`."""
    for c in range(v.shape[0]):
        y[c] = w[c] * v[c]
        sums[c] = 0.0
        out[c] = (expected[c] + ridge) * v[c]
    for r in range(rows.shape[0]):
        row = rows[r]
        first, last = indptr[row], indptr[row + 1]
        s = 0.0
        if shift[r] == np.inf:
            for k in range(first, last):
                s += counts[k] * y[local[k]]
            share = weight[row] * s * inverse[r] * inverse[r]
            for k in range(first, last):
                sums[local[k]] += share * counts[k]
        else:
            for k in range(first, last):
                s += counts[k] * np.exp(z[local[k]] - shift[r]) * v[local[k]]
            share = weight[row] * s * inverse[r] * inverse[r]
            for k in range(first, last):
                out[local[k]] -= share * counts[k] * np.exp(z[local[k]] - shift[r])
    for c in range(v.shape[0]):
        out[c] -= w[c] * sums[c]


@kernel
def _centre(x: FloatArray, component: IntArray, components: int, sums: FloatArray, sizes: FloatArray) -> None:
    """Take the mean over its component off each entry."""
    if components == 1:
        x -= x.mean()
        return
    sums[:components] = 0.0
    sizes[:components] = 0.0
    for c in range(x.shape[0]):
        sums[component[c]] += x[c]
        sizes[component[c]] += 1.0
    for c in range(x.shape[0]):
        x[c] -= sums[component[c]] / sizes[component[c]]


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
            # Three upper bounds of the root; Newton on a convex rising function comes down from there.
            root = (pull - e) / (e + ridge)
            if pull > 0:
                root = min(root, np.log(pull) - log_e)
        for _ in range(50):
            up = np.exp(log_e + root)
            move = (up - pull + ridge * root) / (up + ridge)
            root -= move
            if abs(move) <= 1e-6 * (1.0 + abs(root)):
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
def _solve(
    rows: IntArray,
    indptr: IntArray,
    local: NDArray[np.uint32],
    counts: FloatArray,
    weight: FloatArray,
    component: IntArray,
    components: int,
    prior: FloatArray,
    wins: FloatArray,
    ridge: float,
    tol: float,
    max_passes: int,
    delta: FloatArray,
) -> tuple[float, float, float, int]:
    """Minimise F from the given delta, in place; returns (F, log-likelihood, measure, passes over the rows)."""
    size, number = delta.shape[0], rows.shape[0]
    z, w, slope, expected, gradient = np.empty(size), np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    inverse, shift = np.empty(number), np.empty(number)
    step, trial, y, sums = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    residual, direction, image = np.empty(size), np.empty(size), np.empty(size)

    _centre(delta, component, components, y, sums)
    passes, failures, mm_left = 0, 0, _MM_STEPS
    stale = True
    objective = likelihood = measure = 0.0
    while True:
        if stale:
            passes += 1
            z[:] = prior + delta
            total = _pass(rows, indptr, local, counts, weight, z, w, inverse, shift, slope, expected)
            gradient[:] = expected - wins + ridge * delta
            likelihood = wins @ (z - z.max()) - total
            objective = 0.5 * ridge * (delta @ delta) - likelihood
            measure = _measure(gradient, wins, ridge)
            stale = False
        if measure <= tol or passes >= max_passes or failures >= 3:
            return objective, likelihood, measure, passes
        if mm_left > 0:
            _mm_step(z, slope, expected, wins, delta, ridge, step)
            if np.abs(step).max() > _CLOSE:
                mm_left -= 1
                delta += step
                _centre(delta, component, components, y, sums)
                stale = True
                continue
            mm_left = 0

        # Newton direction by preconditioned conjugate gradients, solved more tightly the closer the optimum is.
        step[:] = 0.0
        residual[:] = -gradient
        image[:] = residual / np.maximum(expected + ridge, 1e-300)
        direction[:] = image
        rho = residual @ image
        scale = (expected + ridge).sum()
        goal = rho * min(0.1, np.sqrt(rho / scale)) ** 2
        for _ in range(2 * size + 10):
            _hessian_product(
                rows, indptr, local, counts, weight, z, w, inverse, shift, expected, ridge, direction, y, sums, image
            )
            passes += 1
            curvature = direction @ image
            if not curvature > 1e-15 * rho:
                break
            along = rho / curvature
            step += along * direction
            residual -= along * image
            image[:] = residual / np.maximum(expected + ridge, 1e-300)
            previous, rho = rho, residual @ image
            if rho <= goal or passes >= max_passes:
                break
            direction *= rho / previous
            direction += image
        _centre(step, component, components, y, sums)

        fall = gradient @ step
        length = min(1.0, _LONGEST_STEP / max(np.abs(step).max(), 1e-300))
        accepted = False
        new = new_likelihood = np.inf
        if fall < 0:
            slack = _SLACK * (abs(objective) + scale)
            for _ in range(8):
                passes += 1
                trial[:] = delta + length * step
                z[:] = prior + trial
                total = _pass(rows, indptr, local, counts, weight, z, w, inverse, shift, slope, expected)
                gradient[:] = expected - wins + ridge * trial
                new_likelihood = wins @ (z - z.max()) - total
                new = 0.5 * ridge * (trial @ trial) - new_likelihood
                # In a convex function a slope that is still falling proves descent even where F itself is rounded.
                onward = gradient @ step
                if new <= objective + 1e-4 * length * fall or (onward <= -0.8 * fall and new <= objective + slack):
                    accepted = True
                    break
                length *= 0.25
        if accepted:
            new_measure = _measure(gradient, wins, ridge)
            if new >= objective and new_measure >= measure:
                failures += 1
            delta[:] = trial
            objective, likelihood, measure = new, new_likelihood, new_measure
        else:
            # MM always descends; a few of its steps, then Newton again.
            failures += 1
            mm_left = 3
            z[:] = prior + delta
            _pass(rows, indptr, local, counts, weight, z, w, inverse, shift, slope, expected)
            passes += 1
            _mm_step(z, slope, expected, wins, delta, ridge, step)
            delta += step
            _centre(delta, component, components, y, sums)
            stale = True


@kernel
def solve_tasks(
    tasks: IntArray,
    order: IntArray,
    query_ptr: IntArray,
    pair_ptr: IntArray,
    component: IntArray,
    components: IntArray,
    indptr: IntArray,
    local: NDArray[np.uint32],
    counts: FloatArray,
    weight: FloatArray,
    prior: FloatArray,
    wins: FloatArray,
    ridge: FloatArray,
    tol: float,
    max_passes: int,
    delta: FloatArray,
    objective: FloatArray,
    likelihood: FloatArray,
    measure: FloatArray,
    passes: IntArray,
) -> None:
    """Solve the problems `tasks`; task t is query t mod K of head t div K.

    Shapes: weight [1 or H, n]; prior, wins, delta [H, pairs]; ridge [H]; objective, likelihood, measure, passes
    [H, K]. `delta` holds the start and receives the answer.
    """
    vocab_size = query_ptr.shape[0] - 1
    for t in range(tasks.shape[0]):
        head, query = tasks[t] // vocab_size, tasks[t] % vocab_size
        first, last = pair_ptr[query], pair_ptr[query + 1]
        answer = _solve(
            order[query_ptr[query] : query_ptr[query + 1]],
            indptr,
            local,
            counts,
            weight[head % weight.shape[0]],
            component[first:last],
            components[query],
            prior[head, first:last],
            wins[head, first:last],
            ridge[head],
            tol,
            max_passes,
            delta[head, first:last],
        )
        objective[head, query] = answer[0]
        likelihood[head, query] = answer[1]
        measure[head, query] = answer[2]
        passes[head, query] = answer[3]
