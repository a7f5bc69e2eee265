"""Loss, gradient and curvature of a conditional logit, summed over choices.

A choice has explicit candidates, and may have one more outcome that stands for all other tokens of a vocabulary: its
weight is the sum of P0^a over them, taken as the sum over all tokens less that over the explicit ones.

Features lie column by column, so that all loops run over the candidates of a choice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import summing_kernel
from ccmc._data.exponentials import exponentials
from ccmc._data.types import FloatArray, IntArray

Features = NDArray[np.float32] | NDArray[np.float64]


@summing_kernel
def longest(rows: IntArray, ptr: IntArray) -> int:
    """Most candidates of a choice."""
    most = 0
    for r in rows:
        most = max(most, ptr[r + 1] - ptr[r])
    return most


@summing_kernel
def gathered(low: int, high: int, x: Features, base: FloatArray, out: FloatArray, live: IntArray) -> int:
    """log P0 (0 where it is -inf) and the features of a choice into rows of `out`; `live` gets those that are not 0."""
    many = high - low
    own, first = base[low:high], out[0]
    for c in range(many):
        first[c] = own[c] if own[c] > -np.inf else 0.0
    live[0] = 0
    count = 1
    for d in range(len(x)):
        column, copy = x[d][low:high], out[d + 1]
        size = 0.0
        for c in range(many):
            value = np.float64(column[c])
            copy[c] = value
            size += abs(value)
        if size > 0.0:
            live[count] = d + 1
            count += 1
    return count


@summing_kernel
def utilities(
    low: int, high: int, offset: FloatArray, base: FloatArray, rows: FloatArray, live: IntArray, count: int,
    w: FloatArray, u: FloatArray,
) -> float:  # fmt: skip
    """Utilities of the candidates low .. high - 1 into `u`; w holds the weight of the base first. Their largest.

    `rows`, `live` and `count` are what `gathered` has found.
    """
    many = high - low
    shift, own = offset[low:high], base[low:high]
    for c in range(many):
        u[c] = shift[c] + w[0] * own[c]
    for i in range(1, count):
        row, weight = rows[live[i]], w[live[i]]
        for c in range(many):
            u[c] += weight * row[c]
    top = -np.inf
    for c in range(many):
        top = max(top, u[c])
    return top


@summing_kernel
def outside(
    low: int, high: int, base: FloatArray, finite: FloatArray, a: float, moment: FloatArray, found: FloatArray,
    e: FloatArray, scratch: FloatArray, bits: IntArray,
) -> None:  # fmt: skip
    """What the explicit candidates leave of a row's sums of P0^a, as shares of the sum over all: [3].

    Args:
        low, high: the candidates.
        base: [N] log P0; `finite` has that of the candidates, 0 where it is -inf.
        a: weight of the base.
        moment: [3] of the row.
        found: [3].
        e, scratch, bits: as of `exponentials`.
    """
    many, own, log_sum = high - low, base[low:high], moment[0]
    for c in range(many):
        e[c] = a * own[c] - log_sum
    exponentials(e, many, scratch, bits)
    left0, left1, left2 = 1.0, moment[1], moment[2]
    for c in range(many):
        b = finite[c]
        left0 -= e[c]
        left1 -= e[c] * b
        left2 -= e[c] * b * b
    if left0 <= 1e-14:  # rounding: nothing is left
        left0, left1, left2 = 0.0, 0.0, 0.0
    found[0], found[1], found[2] = left0, left1, left2


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
        x: [D, N] features of candidates.
        offset, base, target: [N] of candidates; base is log P0, 0 without one.
        weight: [n] of choices.
        beyond: [n] sum of target x log P0 over the tokens that are no candidates.
        row_of: [n] row of `moments`; -1 where there is nothing but the candidates.
        moments: [R + 1, 3] of the base at its weight w[0].
        w: [1 + D] weights, of the base first.
        curvature: add to `hessian` [1 + D, 1 + D], its lower triangle, too.
        per_row: `loss` and `gradient` have a row for each choice; otherwise all are added to row 0.
        loss: [n or 1] gets weight x cross-entropy.
        gradient: [n or 1, 1 + D].
    """
    most, wide = longest(rows, ptr), len(x) + 1
    u, gap, left, scratch = np.empty(most), np.empty(most), np.zeros(3), np.empty(most)
    values, scaled, mean, live = np.empty((wide, most)), np.empty(most), np.empty(wide), np.empty(wide, np.int64)
    bits = scratch.view(np.int64)
    for r in rows:
        low, high = ptr[r], ptr[r + 1]
        many = high - low
        if weight[r] == 0.0:
            continue
        open_row = row_of[r] >= 0
        count = gathered(low, high, x, base, values, live)
        top = utilities(low, high, offset, base, values, live, count, w, u)
        aim = w[0] * beyond[r] if open_row and w[0] != 0.0 else 0.0
        wanted = target[low:high]
        for c in range(many):
            if wanted[c] > 0.0:
                aim += wanted[c] * u[c]
        share = 0.0
        if open_row:
            moment = moments[row_of[r]]
            outside(low, high, base, values[0], w[0], moment, left, gap, scratch, bits)
            if left[0] > 0.0 and moment[0] > top:
                top = moment[0]
            share = np.exp(moment[0] - top)
        for c in range(many):
            u[c] -= top
        exponentials(u, many, scratch, bits)
        z = share * left[0] if open_row else 0.0
        for c in range(many):
            z += u[c]
        put = r if per_row else 0
        loss[put] += weight[r] * (np.log(z) + top - aim)
        heft = weight[r]
        for c in range(many):
            u[c] /= z
            gap[c] = heft * (u[c] - wanted[c])
        for i in range(count):
            row, total = values[live[i]], 0.0
            for c in range(many):
                total += gap[c] * row[c]
            gradient[put, live[i]] += total
        if open_row:
            gradient[put, 0] += weight[r] * (share * left[1] / z - beyond[r])
        if curvature:
            beside = share * left[1] / z if open_row else 0.0
            bend(many, values, live, count, u, beside, weight[r], scaled, mean, hessian)
            if open_row:
                hessian[0, 0] += weight[r] * share * left[2] / z


@summing_kernel
def bend(
    many: int, rows: FloatArray, live: IntArray, count: int, p: FloatArray, beside: float, weight: float,
    scaled: FloatArray, mean: FloatArray, hessian: FloatArray,
) -> None:  # fmt: skip
    """Add the curvature of one choice, lower triangle; the second moment of what lies outside is left to the caller.

    Args:
        many: candidates.
        rows: [1 + D, many] log P0 and features.
        live: the first `count` are the rows that are not 0, rising.
        p: [many] probabilities.
        beside: what lies outside adds to the mean of log P0.
        weight: of the choice.
        scaled, mean: scratch.
    """
    for i in range(count):
        d = live[i]
        row = rows[d]
        total = 0.0
        for c in range(many):
            value = p[c] * row[c]
            scaled[c] = value
            total += value
        mean[i] = total + (beside if d == 0 else 0.0)
        j = 0
        while j + 3 <= i:  # four at once: what was scaled is loaded once
            r0, r1, r2, r3 = rows[live[j]], rows[live[j + 1]], rows[live[j + 2]], rows[live[j + 3]]
            s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
            for c in range(many):
                value = scaled[c]
                s0 += value * r0[c]
                s1 += value * r1[c]
                s2 += value * r2[c]
                s3 += value * r3[c]
            hessian[d, live[j]] += weight * (s0 - mean[i] * mean[j])
            hessian[d, live[j + 1]] += weight * (s1 - mean[i] * mean[j + 1])
            hessian[d, live[j + 2]] += weight * (s2 - mean[i] * mean[j + 2])
            hessian[d, live[j + 3]] += weight * (s3 - mean[i] * mean[j + 3])
            j += 4
        while j <= i:
            other, total = rows[live[j]], 0.0
            for c in range(many):
                total += scaled[c] * other[c]
            hessian[d, live[j]] += weight * (total - mean[i] * mean[j])
            j += 1


@summing_kernel
def spreads(
    rows: IntArray, ptr: IntArray, x: Features, base: FloatArray, weight: FloatArray, row_of: IntArray, out: FloatArray
) -> None:
    """[1 + D] gets weight x squares of log P0 and of each feature around their means over the candidates of a choice,
    and over one outcome more, with 0, where there is one outside."""
    values, live = np.empty((len(x) + 1, longest(rows, ptr))), np.empty(len(x) + 1, np.int64)
    for r in rows:
        many = ptr[r + 1] - ptr[r]
        count = gathered(ptr[r], ptr[r + 1], x, base, values, live)
        share = 1.0 / (many + 1.0 if row_of[r] >= 0 else many)
        for i in range(count):
            row, total, squares = values[live[i]], 0.0, 0.0
            for c in range(many):
                total += row[c]
                squares += row[c] * row[c]
            out[live[i]] += weight[r] * (squares - share * total * total)


@summing_kernel
def probabilities(
    rows: IntArray, ptr: IntArray, x: Features, offset: FloatArray, base: FloatArray,
    row_of: IntArray, moments: FloatArray, w: FloatArray, out: FloatArray, rest: FloatArray,
) -> None:  # fmt: skip
    """Log probabilities of the candidates of some choices into `out` [N], and of everything else into `rest` [n, 2]:
    its log probability in all, and the log of the sum of weights (to which a token outside has a log P0)."""
    most, wide = longest(rows, ptr), len(x) + 1
    u, e, left, scratch = np.empty(most), np.empty(most), np.zeros(3), np.empty(most)
    values, live, bits = np.empty((wide, most)), np.empty(wide, np.int64), scratch.view(np.int64)
    for r in rows:
        low, high = ptr[r], ptr[r + 1]
        many = high - low
        count = gathered(low, high, x, base, values, live)
        top = utilities(low, high, offset, base, values, live, count, w, u)
        share = 0.0
        if row_of[r] >= 0:
            moment = moments[row_of[r]]
            outside(low, high, base, values[0], w[0], moment, left, e, scratch, bits)
            if left[0] > 0.0 and moment[0] > top:
                top = moment[0]
            share = np.exp(moment[0] - top) * left[0]
        for c in range(many):
            e[c] = u[c] - top
        exponentials(e, many, scratch, bits)
        z = share
        for c in range(many):
            z += e[c]
        log_z = np.log(z) + top
        own = out[low:high]
        for c in range(many):
            own[c] = u[c] - log_z
        rest[r, 0] = np.log(share) + top - log_z if share > 0.0 else -np.inf
        rest[r, 1] = log_z
