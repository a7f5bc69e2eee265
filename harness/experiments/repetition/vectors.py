"""The figures of a continuation, and the energy score of their vector: of judged prompts and of training prompts alike.

Each figure is divided by its standard deviation over the model's continuations of training prompts, so that figures in
tokens and in shares weigh the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.measures.measurement import Measurement
from harness.measures.repetition import repetition_measures
from harness.stats.proper import Score, energy, euclidean

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]

FIGURES = ("seq_rep_1", "seq_rep_2", "seq_rep_3", "seq_rep_4", "rep_32", "loop_share", "new_tokens")
"""Figures of the energy score; each also has a CRPS."""
SHOWN = (*FIGURES, "above_half", "loop_onset", "loop_period", "length")


def figures(continuation: IntArray, before: IntArray) -> dict[str, Measurement]:
    """What is measured of one continuation.

    Args:
        continuation: [T] tokens.
        before: the prompt, and where a surrogate took over later the model's own tokens until then.
    """
    found = repetition_measures(continuation)
    seq_rep_4 = found["seq_rep_4"]
    found["above_half"] = seq_rep_4 if seq_rep_4.value is None else Measurement(float(seq_rep_4.value > 0.5))
    text = np.concatenate([before, continuation])
    first = np.zeros(len(text), dtype=bool)
    first[np.unique(text, return_index=True)[1]] = True
    new = first[len(before) :]
    found["new_tokens"] = Measurement(float(new.mean())) if len(new) else Measurement(None, "the model ended at once")
    return {name: found[name] for name in SHOWN}


def vector(found: Mapping[str, Measurement]) -> FloatArray:
    """[figures] for the energy score; NaN where one is not defined."""
    values = [found[name].value for name in FIGURES]
    return np.array([np.nan if value is None else value for value in values])


def vectors(texts: Sequence[tuple[IntArray, IntArray]]) -> FloatArray:
    """[n, figures] of continuations, each with what stands before it; zeros of one where there are none."""
    return np.stack([vector(figures(*text)) for text in texts]) if texts else np.zeros((1, len(FIGURES)))


def spreads(known: FloatArray) -> FloatArray:
    """[figures] standard deviations over continuations [n, figures]; 1 of a figure that does not vary.

    A figure that no continuation has is given 1 as well.
    """
    there = np.isfinite(known)
    filled = np.where(there, known, 0.0)
    count = np.maximum(there.sum(axis=0), 1)
    rest = np.where(there, filled - filled.sum(axis=0) / count, 0.0)
    spread = np.sqrt((rest**2).sum(axis=0) / count)
    return np.where(spread > 1e-9, spread, 1.0)


def defined(*several: FloatArray) -> NDArray[np.bool_]:
    """[figures] which every continuation of all sides has: a short one lacks some."""
    return np.logical_and.reduce(np.isfinite(np.concatenate(several)), axis=0)  # type: ignore[no-any-return]


def distances(a: FloatArray, b: FloatArray, scale: FloatArray, there: NDArray[np.bool_]) -> FloatArray:
    """[n_a, n_b] scaled distances over the figures that are there."""
    if not there.any():
        return np.zeros((len(a), len(b)))
    return euclidean(a[:, there], b[:, there], scale[there])


def energy_of(x: FloatArray, y: FloatArray, scale: FloatArray, deterministic: bool = False) -> Score:
    """Energy score of draws [n_x, figures] of a law against the model's continuations [n_y, figures].

    Args:
        x, y: vectors of figures; NaN where one is not defined.
        scale: [figures] of `spreads`.
        deterministic: the law is a point.
    """
    there = defined(x, y)  # the same figures in both terms: the score of anything else is not proper
    within = None if len(x) == 1 and not deterministic else distances(x, x, scale, there)
    return energy(distances(x, y, scale, there), within, deterministic)
