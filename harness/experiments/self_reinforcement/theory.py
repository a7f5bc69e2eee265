"""What the theory says of a repeated sentence: how steep the curve of a closed chain can be.

After m0 of a preamble and k repetitions of a sentence with counts s, a token of the next repetition, before which the
sentence has c <= s, is emitted with probability proportional to (m0 + k s + c) P[query]. Scaling counts changes
nothing. So without a preamble the first token of a repetition (c = 0) has the same probability for every k >= 1:

    p_k = s_j P_ij / sum_l s_l P_il.

Inside the repetition c / k fades, and log p_k moves by f_r(k) - f_q(k), where f_r(k) = log(1 + r) - log(1 + r / k),
r = sum c P / sum s P and q = c_j / s_j, both in [0, 1]. The slope of f_r on log k grows with r. So *whatever P is*, the
slope of log p is at most that of f_1, and at least its negative. With a preamble the curve rises or falls towards the
same limit, k -> infinity.
"""

from __future__ import annotations

import numpy as np

from harness.core.format import number
from harness.data.texts import FloatArray


def doublings(repetitions: int) -> FloatArray:
    """[K] log2 of k = 1 .. K."""
    return np.log2(np.arange(1, repetitions + 1))


def slope_of(curve: FloatArray) -> float:
    """Least-squares slope per doubling of k of a curve [K] over k = 1 .. K; not finite where the curve is not."""
    x = doublings(len(curve))
    x = x - x.mean()
    return float(x @ curve / (x @ x))


def steepest(repetitions: int) -> float:
    """The largest slope, per doubling, of the log-probability of a token that any closed chain can have."""
    k = np.arange(1, repetitions + 1)
    return slope_of(np.log(2.0) - np.log1p(1.0 / k))


def largest_slope(repetitions: int, length: int) -> float:
    """The same of the mean over the tokens of a sentence: its first token's is 0."""
    return steepest(repetitions) * (length - 1) / length


def about(repetitions: int, length: int) -> str:
    """The two predictions in words."""
    bound = number(largest_slope(repetitions, length))
    return (
        "A closed chain, whatever its base transitions: 0 at the first token of a repetition, since scaling counts "
        f"changes nothing; at most {bound} nats per doubling over all tokens, from the part of the sentence that the "
        "current repetition has already written."
    )
