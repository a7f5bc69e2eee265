"""The maximum-likelihood fit of a two-token chain along one path, fast enough for a million tokens on many paths.

With two tokens each query has one free logit z = theta[i, 1] - theta[i, 0], and the chance of token 1 after counts m is
the logistic function of z + log(m_1 / m_0). One Newton iteration is one pass over the path. `fit_mle` finds the same,
and tests hold the two together.
"""

from __future__ import annotations

import numpy as np

from harness.experiments._shared.sampling import FloatArray, IntArray


def two_token_fit(sequence: IntArray, start: int, tol: float = 1e-10) -> FloatArray:
    """theta[i, 1] - theta[i, 0] for both queries i.

    Args:
        sequence: [T] of 0 and 1.
        start: length of the first context; both tokens are in it.
        tol: of the gradient per observation.

    Returns:
        [2].

    Raises:
        ValueError: a context without both tokens, or a query after which only one token came: no maximum exists.
    """
    ones = np.cumsum(sequence)[start - 1 : -1].astype(float)
    length = np.arange(start, len(sequence), dtype=float)
    query, target = sequence[start - 1 : -1], sequence[start:]
    if ones[0] == 0 or ones[0] == start:
        raise ValueError(f"the first {start} tokens are all equal: both must be in every context")
    offset = np.log(ones) - np.log(length - ones)
    found = np.zeros(2)
    for i in range(2):
        at, won = offset[query == i], target[query == i]
        wins, n = float(won.sum()), len(won)
        if wins in (0.0, float(n)):
            raise ValueError(f"after token {i} only one token came ({n} times): no maximum-likelihood estimate exists")
        z, low, high = 0.0, -np.inf, np.inf
        for _ in range(200):
            p = 1 / (1 + np.exp(-(at + z)))
            gradient = float(p.sum()) - wins
            if abs(gradient) <= tol * n:
                break
            low, high = (z, high) if gradient < 0 else (low, z)
            step = z - gradient / max(float((p * (1 - p)).sum()), 1e-300)
            if not low < step < high:  # Newton left the bracket: halve it, or double the way out
                step = 0.5 * (low + high) if np.isfinite(low + high) else z - np.sign(gradient) * max(1.0, abs(z))
            z = float(step)
        found[i] = z
    return found
