"""The one normalisation: probabilities in proportion to counts x exp(log weights), in the log domain.

A chain's next token, a row of attention and a table of logits are all normalised here,

    p_j = m_j exp(theta_j) / sum_k m_k exp(theta_k),

relative to the largest term, so that weights of any size neither overflow nor vanish together. Rows are those of a
dense array, or stretches of different lengths of a flat one, as the entries of a CSR matrix are. Compiled passes
over many rows (`_fit/passes.py`) compute the same sums.

Source: Ildiz et al. 2024, for the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccmc._data.types import FloatArray


def normalised(log_weights: ArrayLike, counts: ArrayLike | None = None) -> FloatArray:
    """Probabilities proportional to counts x exp(log_weights) along the last axis.

    Args:
        log_weights: [..., K] logits, each row up to a constant.
        counts: non-negative, of a shape that broadcasts with `log_weights`, each row with one positive count at
            least; None where every token counts once.

    Returns:
        Probabilities of the common shape; 0 where a count is 0.

    Source: Ildiz et al. 2024.
    """
    weights = _scores(log_weights, counts)
    weights -= weights.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def log_normalised(
    log_weights: ArrayLike, counts: ArrayLike | None = None, starts: NDArray[np.integer[Any]] | None = None
) -> FloatArray:
    """The logarithm of what `normalised` gives, exact where probabilities underflow.

    Args:
        log_weights: [..., K] logits; or flat [entries] with `starts`.
        counts: as for `normalised`.
        starts: [rows] first entry of each row of a flat array, ascending and without empty rows; None for dense rows.

    Returns:
        Log-probabilities of the common shape; minus infinity where a count is 0.

    Source: Ildiz et al. 2024.
    """
    scores = _scores(log_weights, counts)
    # Largest first, then the logarithm: subtracting it from small shifted scores loses nothing.
    if starts is None:
        scores -= scores.max(axis=-1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        return scores
    size = _sizes(starts, len(scores))
    scores -= np.repeat(np.maximum.reduceat(scores, starts), size)
    scores -= np.repeat(np.log(np.add.reduceat(np.exp(scores), starts)), size)
    return scores


def log_sums(log_weights: ArrayLike, starts: NDArray[np.integer[Any]], counts: ArrayLike | None = None) -> FloatArray:
    """Log of the sum of counts x exp(log_weights) over each row of a flat array.

    Args:
        log_weights: [entries].
        starts: [rows] first entry of each row, ascending and without empty rows.
        counts: [entries] positive, or None for 1 each.

    Returns:
        [rows].
    """
    scores = _scores(log_weights, counts)
    top = np.maximum.reduceat(scores, starts)
    shifted = scores - np.repeat(top, _sizes(starts, len(scores)))
    total: FloatArray = top + np.log(np.add.reduceat(np.exp(shifted), starts))
    return total


def _scores(log_weights: ArrayLike, counts: ArrayLike | None) -> FloatArray:
    """log m + theta, in an array of its own."""
    if counts is None:
        return np.array(log_weights, dtype=np.float64)
    with np.errstate(divide="ignore"):
        scores: FloatArray = np.log(np.asarray(counts, dtype=np.float64)) + np.asarray(log_weights, dtype=np.float64)
    return scores


def _sizes(starts: NDArray[np.integer[Any]], entries: int) -> NDArray[np.integer[Any]]:
    """[rows] how many of the entries each row has."""
    sizes = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=sizes[:-1])
    sizes[-1:] = entries - starts[-1:]
    return sizes
