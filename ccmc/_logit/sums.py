"""Loss, gradient and curvature of a conditional logit, summed over choices.

A choice has explicit candidates, and may have one more outcome that stands for all other tokens of a vocabulary: its
weight is the sum of P0^a over them, taken as the sum over all tokens less that over the explicit ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import summing_kernel
from ccmc._data.types import FloatArray, IntArray

Features = NDArray[np.float32] | NDArray[np.float64]

_TINY = 1e-300


@summing_kernel
def utilities(
    low: int,
    high: int,
    x: Features,
    offset: FloatArray,
    base: FloatArray,
    w: FloatArray,
    u: FloatArray,
) -> float:
    """Utilities of the candidates low .. high - 1 into `u`; w holds the weight of the base first. Their largest."""
    top = -np.inf
    for c in range(low, high):
        total = offset[c] + w[0] * base[c]
        for d in range(x.shape[1]):
            total += w[d + 1] * x[c, d]
        u[c - low] = total
        if total > top:
            top = total
    return top


@summing_kernel
def outside(low: int, high: int, base: FloatArray, a: float, moment: FloatArray, found: FloatArray) -> None:
    """What the explicit candidates leave of a row's sums of P0^a, as shares of the sum over all: [3]."""
    found[0], found[1], found[2] = 1.0, moment[1], moment[2]
    for c in range(low, high):
        b = base[c]
        if b > -np.inf:
            e = np.exp(a * b - moment[0])
            found[0] -= e
            found[1] -= e * b
            found[2] -= e * b * b
    if found[0] <= 1e-14:  # rounding: nothing is left
        found[:] = 0.0


@summing_kernel
def add_up(
    rows: IntArray, ptr: IntArray, x: Features, offset: FloatArray, base: FloatArray,
    target: FloatArray, weight: FloatArray, beyond: FloatArray, row_of: IntArray, moments: FloatArray, w: FloatArray,
    curvature: bool, per_row: bool, loss: FloatArray, gradient: FloatArray, hessian: FloatArray,
) -> None:  # fmt: skip
    """Add the terms of some choices.

    Args:
        rows: [r] the choices.
        ptr: [n + 1] their candidates.
        x: [N, D] features of candidates.
        offset, base, target: [N] of candidates; base is log P0, 0 without one.
        weight: [n] of choices.
        beyond: [n] sum of target x log P0 over the tokens that are no candidates.
        row_of: [n] row of `moments`; -1 where there is nothing but the candidates.
        moments: [R + 1, 3] of the base at its weight w[0].
        w: [1 + D] weights, of the base first.
        curvature: add to `hessian` [1 + D, 1 + D] too.
        per_row: `loss` and `gradient` have a row for each choice; otherwise all are added to row 0.
        loss: [n or 1] gets weight x cross-entropy.
        gradient: [n or 1, 1 + D].
    """
    many = x.shape[1] + 1
    most = 0
    for r in rows:
        most = max(most, ptr[r + 1] - ptr[r])
    u, mean, wanted, left = np.empty(most), np.empty(many), np.empty(many), np.empty(3)
    for r in rows:
        low, high = ptr[r], ptr[r + 1]
        open_row = row_of[r] >= 0
        top = utilities(low, high, x, offset, base, w, u)
        share = 0.0
        if open_row:
            moment = moments[row_of[r]]
            outside(low, high, base, w[0], moment, left)
            if left[0] > 0.0 and moment[0] > top:
                top = moment[0]
            share = np.exp(moment[0] - top)
        z = 0.0
        for c in range(high - low):
            u[c] = np.exp(u[c] - top)
            z += u[c]
        if open_row:
            z += share * left[0]
        put = r if per_row else 0
        aim = 0.0
        mean[:] = 0.0
        wanted[:] = 0.0
        for c in range(high - low):
            p, t = u[c] / z, target[low + c]
            b = base[low + c]
            if p > 0.0 and b > -np.inf:
                mean[0] += p * b
            if t > 0.0:
                wanted[0] += t * b
                aim += t * offset[low + c]
            for d in range(x.shape[1]):
                value = x[low + c, d]
                mean[d + 1] += p * value
                wanted[d + 1] += t * value
        if open_row:
            mean[0] += share * left[1] / z
            wanted[0] += beyond[r]
        for d in range(many):
            if w[d] != 0.0:
                aim += w[d] * wanted[d]
            gradient[put, d] += weight[r] * (mean[d] - wanted[d])
        loss[put] += weight[r] * (np.log(z) + top - aim)
        if curvature:
            bend(low, high, x, base, u, z, mean, weight[r], hessian)
            if open_row:
                hessian[0, 0] += weight[r] * share * left[2] / z


@summing_kernel
def bend(
    low: int, high: int, x: Features, base: FloatArray, u: FloatArray, z: float, mean: FloatArray,
    weight: float, hessian: FloatArray,
) -> None:  # fmt: skip
    """Add the curvature of one choice, lower triangle; the second moment of what lies outside is left to the caller."""
    many = x.shape[1]
    for c in range(low, high):
        p = weight * u[c - low] / z
        if p < 1e-14 * weight:
            continue
        b = base[c]
        hessian[0, 0] += p * b * b
        for d in range(many):
            value = p * x[c, d]
            if value == 0.0:
                continue
            hessian[d + 1, 0] += value * b
            for e in range(d + 1):
                hessian[d + 1, e + 1] += value * x[c, e]
    for d in range(many + 1):
        for e in range(d + 1):
            hessian[d, e] -= weight * mean[d] * mean[e]


@summing_kernel
def probabilities(
    rows: IntArray, ptr: IntArray, x: Features, offset: FloatArray, base: FloatArray,
    row_of: IntArray, moments: FloatArray, w: FloatArray, out: FloatArray, rest: FloatArray,
) -> None:  # fmt: skip
    """Log probabilities of the candidates of some choices into `out` [N], and of everything else into `rest` [n, 2]:
    its log probability in all, and the log of the sum of weights (to which a token outside has a log P0)."""
    most = 0
    for r in rows:
        most = max(most, ptr[r + 1] - ptr[r])
    u, left = np.empty(most), np.zeros(3)
    for r in rows:
        low, high = ptr[r], ptr[r + 1]
        top = utilities(low, high, x, offset, base, w, u)
        share = 0.0
        if row_of[r] >= 0:
            moment = moments[row_of[r]]
            outside(low, high, base, w[0], moment, left)
            if left[0] > 0.0 and moment[0] > top:
                top = moment[0]
            share = np.exp(moment[0] - top) * left[0]
        z = share
        for c in range(high - low):
            z += np.exp(u[c] - top)
        log_z = np.log(z) + top
        for c in range(high - low):
            out[low + c] = u[c] - log_z
        rest[r, 0] = np.log(share) + top - log_z if share > 0.0 else -np.inf
        rest[r, 1] = log_z
