"""Has the likelihood of a conditional logit a maximum?"""

from __future__ import annotations

from typing import Any

import numpy as np

from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.terms import Terms


def receding(rows: Terms, chosen: IntArray) -> FloatArray | None:
    """A direction of the chosen weights along which no candidate ever gains on the target, and somewhere loses.

    Found by cutting planes: d in [-1, 1]^W maximises the mean gain of the target over the mean candidate, subject to
    the constraints that earlier directions broke. None: the maximum exists.
    """
    from scipy.optimize import linprog

    gap, scale = _leads(rows, chosen)
    if gap is None:
        return None
    gain, many = -gap.mean(axis=0), len(chosen)
    cuts: FloatArray = np.empty((0, many))
    for _ in range(200):
        limits: dict[str, Any] = {"A_ub": cuts, "b_ub": np.zeros(len(cuts))} if len(cuts) else {}
        found: Any = linprog(-gain, bounds=[(-1, 1)] * many, method="highs", **limits)
        if -found.fun <= 1e-9:
            return None
        lead = gap @ found.x
        if lead.max() <= 1e-9:
            back: FloatArray = found.x / scale
            back /= np.abs(back).max()
            return back
        worst = np.argsort(-lead)[: 4 * many]
        cuts = np.concatenate([cuts, gap[worst[lead[worst] > 1e-9]]])
    return None


def _leads(rows: Terms, chosen: IntArray) -> tuple[FloatArray | None, FloatArray]:
    """[candidates, W] by how much each is ahead of the target in every feature, in units of [W]; None: no direction."""
    z = np.column_stack([rows.log_p0, rows.features])[:, chosen] if 0 in chosen else rows.features[:, chosen - 1]
    z = np.where(np.isfinite(z), z, 0.0).astype(np.float64)
    scale: FloatArray = np.where(z.std(axis=0) > 0, z.std(axis=0), 1.0)
    z /= scale
    aim = np.add.reduceat(rows.targets[:, None] * z, rows.ptr[:-1])
    if rows.base is not None and 0 in chosen:
        if (rows.beyond_target > 0).all():
            return None, scale  # targets on tokens outside everywhere: every direction loses somewhere
        aim[:, 0] += rows.beyond / scale[0]
    live = np.repeat(rows.weights > 0, np.diff(rows.ptr)) & np.isfinite(rows.offsets)
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.ptr))
    gap = z - aim[owner]
    if rows.base is not None and 0 not in chosen:
        gap = np.concatenate([gap, -aim])  # features of all other tokens are 0
        live = np.concatenate([live, rows.weights > 0])
    ahead: FloatArray = gap[live]
    return ahead, scale
