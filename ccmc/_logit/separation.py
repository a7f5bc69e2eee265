"""Has the likelihood of a conditional logit a maximum?

There is none where some direction of the weights lets no outcome ever gain on the target and lets one lose. Tokens that
are no candidates differ in log P0 alone, so of all of them the least and the likeliest stand for the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.terms import Bases, Terms


def receding(rows: Terms, chosen: IntArray) -> FloatArray | None:
    """A direction of the chosen weights along which no outcome ever gains on the target, and somewhere one loses.

    Found by cutting planes: d in [-1, 1]^W maximises the mean gain of the target over the mean outcome, subject to
    the constraints that earlier directions broke. None: the maximum exists.
    """
    from scipy.optimize import linprog

    gap, scale = _leads(rows, chosen)
    gain, many = -gap.mean(axis=0), len(chosen)
    bounds = [(-1.0, 1.0)] * many
    if rows.base is not None and not rows.base.positive and 0 in chosen:
        bounds[0] = (0.0, 1.0)  # tokens that never come keep the weight of P0 positive
    cuts: FloatArray = np.empty((0, many))
    for _ in range(200):
        limits: dict[str, Any] = {"A_ub": cuts, "b_ub": np.zeros(len(cuts))} if len(cuts) else {}
        found: Any = linprog(-gain, bounds=bounds, method="highs", **limits)
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


def _leads(rows: Terms, chosen: IntArray) -> tuple[FloatArray, FloatArray]:
    """[outcomes, W] by how much each is ahead of the target in every feature, in units of [W]."""
    weighs_base = 0 in chosen
    z = np.column_stack([rows.log_p0, rows.features])[:, chosen] if weighs_base else rows.features[:, chosen - 1]
    z = np.where(np.isfinite(z), z, 0.0).astype(np.float64)
    scale: FloatArray = np.where(z.std(axis=0) > 0, z.std(axis=0), 1.0)
    z /= scale
    aim = np.add.reduceat(rows.targets[:, None] * z, rows.ptr[:-1])
    if rows.base is not None and weighs_base:
        aim[:, 0] += rows.beyond / scale[0]
    there = np.isfinite(rows.offsets) & np.isfinite(rows.log_p0)
    live = np.repeat(rows.weights > 0, np.diff(rows.ptr)) & there
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.ptr))
    gaps = [(z - aim[owner])[live]]
    if rows.base is not None and rows.ends is not None:
        ends = rows.ends()
        for end in ends.T if weighs_base else ends.T[:1]:
            other = -aim  # features of all other tokens are 0
            if weighs_base:
                other[:, 0] += np.where(np.isfinite(end), end, 0.0) / scale[0]
            gaps.append(other[(rows.weights > 0) & np.isfinite(end)])
    return np.concatenate(gaps), scale


def ends_outside(bases: Bases, text: IntArray, query: IntArray, token: IntArray, ptr: IntArray) -> FloatArray:
    """[n, 2] the least and the largest log P0 among tokens that are no candidates; -inf, inf where there are none.

    Args:
        bases: P0 text by text.
        text, query: [n] of the choices.
        token: [N] the candidates of all choices, which begin at ptr [n + 1].
    """
    found = np.tile([-np.inf, np.inf], (len(query), 1))
    alike: dict[tuple[int, int], list[int]] = {}
    for choice, (of, last) in enumerate(zip(text.tolist(), query.tolist(), strict=True)):
        alike.setdefault((id(bases[of]), last), []).append(choice)
    for (_, last), choices in alike.items():
        log = bases[int(text[choices[0]])].log_row(last)
        order = np.argsort(log, kind="stable")
        order = order[np.isfinite(log[order])]
        for choice in choices:
            own = token[ptr[choice] : ptr[choice + 1]]
            for place, some in enumerate((order[: len(own) + 1], order[: -len(own) - 2 : -1])):
                if len(others := some[~np.isin(some, own)]):
                    found[choice, place] = log[others[0]]
    return found
