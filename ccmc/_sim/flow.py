"""Kernels of the mean field: the stationary distribution under fixed frequencies, and the flow that it drives.

With frequencies m and u_i = sum_j P[i, j] m_j the tokens follow the chain K_m[i, j] = m_j P[i, j] / u_i. Its
stationary distribution is mu_j = m_j r_j with

    r_j = sum_i mu_i P[i, j] / u_i,

so in logarithms y = log m the flow dm/ds = mu(m) - m is dy_j/ds = r_j - 1: no frequency ever underflows, and a token
that vanishes does so along a straight line. Rows of P may carry any factor, since u_i carries it too.

For few tokens mu comes from elimination without subtractions (Grassmann, Taksar and Heyman 1985), exact to rounding
even where K_m all but falls apart. For many it comes from a damped power iteration (the undamped one can cycle for
ever) that starts from the last r, which changes less than mu along the flow, and is accelerated by the secant through
its last two steps (Anderson 1965, depth 1); where that is slow elimination takes over. The one thing it can miss is a
chain that falls apart into parts which exchange less than the tolerance: it keeps the weights the parts had before.

The flow is integrated by the adaptive pair of Bogacki and Shampine 1989, orders 3 and 2. Where logits lie tens of nats
apart mu switches abruptly from one set of tokens to another and no step is short enough for it; there short steps with
mu held, m <- e^-h m + (1 - e^-h) mu, go on, which move m by no more than h however abrupt mu is.
"""

from __future__ import annotations

import numpy as np

from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.types import FloatArray

# Up to here elimination costs about as much as the iteration.
_FEW = 16
# Damping of the power iteration: quick where the chain mixes, and convergent where it flips between two sides.
_NEW = 0.9
_ITERATIONS = 25
# Rows with less of mu than this are left out of a sum; together they hold less than the integration's own error.
_NEGLIGIBLE = 1e-10
# No sweep is taken to shrink the error more than this: one lucky step proves nothing.
_QUICKEST = 0.3
# What one sweep is taken to shrink the error by before a second one has been measured.
_UNKNOWN = 0.9
# Tolerance of mu as a share of that of a step.
_INNER = 0.2
_FIRST_STEP = 0.02
_LONGEST_STEP = 8.0
# Steps that would get shorter than this many times the tolerance are taken with mu held.
_SHORTEST = 10.0


@summing_kernel
def _push(P: FloatArray, m: FloatArray, mu: FloatArray, r: FloatArray) -> None:
    """r_j = sum_i mu_i P[i, j] / u_i, in one pass over P: each row is used twice while it is in the cache."""
    n = m.shape[0]
    r[:] = 0.0
    for i in range(n):
        if mu[i] <= _NEGLIGIBLE:
            continue
        u = 0.0
        for j in range(n):
            u += P[i, j] * m[j]
        share = mu[i] / u
        for j in range(n):
            r[j] += share * P[i, j]


@summing_kernel
def relative_rates(P: FloatArray, m: FloatArray, mu: FloatArray, r: FloatArray, tol: float) -> int:
    """r = mu / m to an L1 error of about `tol` in mu; `mu` holds a guess and receives the answer.

    Returns the number of sweeps over P, negative where elimination was used.
    """
    n = m.shape[0]
    if n <= _FEW:
        _eliminate(P, m, mu)
        _push(P, m, mu, r)
        return -1
    previous = 0.0
    step, last_step, image, last_image = np.empty(n), np.zeros(n), np.empty(n), np.zeros(n)
    for sweep in range(_ITERATIONS):
        _push(P, m, mu, r)
        total = 0.0
        for j in range(n):
            total += m[j] * r[j]
        change, inner, norm = 0.0, 0.0, 0.0
        for j in range(n):
            r[j] /= total
            image[j] = m[j] * r[j]
            step[j] = image[j] - mu[j]
            change += abs(step[j])
            inner += step[j] * (step[j] - last_step[j])
            norm += (step[j] - last_step[j]) ** 2
        # The answer is nearer than the last change by what the changes shrink from one to the next.
        ratio = _UNKNOWN if sweep == 0 else max(_QUICKEST, min(change / previous, 1.0))
        if change * ratio <= tol * (1.0 - ratio) or change <= 1e-15:
            mu[:] = image
            return sweep + 1
        previous = change
        secant = inner / norm if sweep > 0 and norm > 0.0 else 0.0
        lowest = 0.0
        for j in range(n):
            lowest = min(lowest, image[j] - secant * (image[j] - last_image[j]))
        for j in range(n):
            if sweep > 0 and lowest >= 0.0:
                mu[j] = image[j] - secant * (image[j] - last_image[j])
            else:
                mu[j] = _NEW * image[j] + (1.0 - _NEW) * mu[j]
            last_step[j] = step[j]
            last_image[j] = image[j]
    _eliminate(P, m, mu)
    _push(P, m, mu, r)
    return -1


@summing_kernel
def _eliminate(P: FloatArray, m: FloatArray, mu: FloatArray) -> None:
    """Stationary distribution of K_m by elimination; sums, products and quotients of positive numbers only."""
    n = m.shape[0]
    flow = np.empty((n, n))
    for i in range(n):
        u = 0.0
        for j in range(n):
            flow[i, j] = P[i, j] * m[j]
            u += flow[i, j]
        for j in range(n):
            flow[i, j] /= u
    for k in range(n - 1, 0, -1):
        out = 0.0
        for j in range(k):
            out += flow[k, j]
        for i in range(k):
            flow[i, k] /= max(out, 1e-300)
            through = flow[i, k]
            for j in range(k):
                flow[i, j] += through * flow[k, j]
    mu[0] = 1.0
    for k in range(1, n):
        mass = 0.0
        for i in range(k):
            mass += mu[i] * flow[i, k]
        mu[k] = mass
        # Scaled as it grows: a chain that hardly ever leaves k has k hold nearly everything.
        if mass > 1e100:
            for i in range(k + 1):
                mu[i] /= mass
    total = mu.sum()
    for k in range(n):
        mu[k] /= total


@kernel
def _slope(P: FloatArray, y: FloatArray, mu: FloatArray, tol: float, m: FloatArray, slope: FloatArray) -> None:
    """slope = r(exp(y) / sum exp(y)) - 1; m and mu hold those of the last point and receive those of this one."""
    top = y.max()
    total = 0.0
    for j in range(y.shape[0]):
        mu[j] = mu[j] / m[j] if m[j] > 1e-290 else 0.0
        m[j] = np.exp(y[j] - top)
        total += m[j]
    held = 0.0
    for j in range(y.shape[0]):
        m[j] /= total
        mu[j] *= m[j]
        held += mu[j]
    for j in range(y.shape[0]):
        mu[j] = mu[j] / held if held > 0.0 else m[j]
    relative_rates(P, m, mu, slope, tol)
    for j in range(y.shape[0]):
        slope[j] -= 1.0


@kernel
def integrate(
    P: FloatArray, y: FloatArray, mu: FloatArray, at: FloatArray, tol: float, max_steps: int, out: FloatArray
) -> int:
    """Follow the flow from log-frequencies y at s = 0 to s = at[-1], writing log-frequencies at each `at` into out.

    Args:
        P: [n, n] positive, each row up to a factor.
        y: [n] start; receives the end.
        mu: [n] guess of the stationary distribution; receives that of the end.
        at: [times] increasing, not negative.
        tol: error of one step, as total variation.
        max_steps: most steps to take.
        out: [times, n] receives log m.

    Returns:
        Steps taken, or -1 where max_steps were too few.
    """
    n = y.shape[0]
    m, trial, error = np.exp(y), np.empty(n), np.empty(n)
    k1, k2, k3, k4 = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    inner, shortest = _INNER * tol, _SHORTEST * tol
    s, h, next_out, steps = 0.0, _FIRST_STEP, 0, 0
    end = at[-1]
    _slope(P, y, mu, inner, m, k1)
    while next_out < at.shape[0] and at[next_out] <= 0.0:
        out[next_out] = y
        next_out += 1
    while s < end:
        if steps >= max_steps:
            return -1
        steps += 1
        if h < shortest:
            h = min(shortest, end - s)
            trial[:] = y + np.log(np.exp(-h) - np.expm1(-h) * (k1 + 1.0))
            while next_out < at.shape[0] and at[next_out] <= s + h:
                out[next_out] = y + ((at[next_out] - s) / h) * (trial - y)
                next_out += 1
            s = end if h == end - s else s + h
            y[:] = trial - np.log(np.sum(np.exp(trial - trial.max()))) - trial.max()
            _slope(P, y, mu, inner, m, k1)
            h = shortest
            continue
        h = min(h, end - s)
        trial[:] = y + (0.5 * h) * k1
        _slope(P, trial, mu, inner, m, k2)
        trial[:] = y + (0.75 * h) * k2
        _slope(P, trial, mu, inner, m, k3)
        trial[:] = y + h * ((2.0 / 9.0) * k1 + (1.0 / 3.0) * k2 + (4.0 / 9.0) * k3)
        _slope(P, trial, mu, inner, m, k4)
        error[:] = (-5.0 / 72.0) * k1 + (1.0 / 12.0) * k2 + (1.0 / 9.0) * k3 - 0.125 * k4
        size = 0.0
        for j in range(n):
            size += 0.5 * abs(error[j]) * max(m[j], np.exp(min(y[j], 0.0)))
        if size <= tol:
            while next_out < at.shape[0] and at[next_out] <= s + h:
                x = (at[next_out] - s) / h
                # Cubic Hermite interpolation of log m between the ends of the step.
                a = x * x * (3.0 - 2.0 * x)
                out[next_out] = (1.0 - a) * y + a * trial + (h * x * (1.0 - x)) * ((1.0 - x) * k1 - x * k4)
                next_out += 1
            s = end if h == end - s else s + h
            y[:] = trial - np.log(np.sum(np.exp(trial - trial.max()))) - trial.max()
            k1[:] = k4
        h *= min(4.0, max(0.2, 0.9 * (tol / max(size, 1e-12)) ** (1.0 / 3.0)))
        h = min(h, _LONGEST_STEP)
    while next_out < at.shape[0]:
        out[next_out] = y
        next_out += 1
    return steps
