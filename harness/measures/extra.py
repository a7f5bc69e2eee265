"""Measures that a config names beside those that an experiment always computes, such as a plugin's.

A measure declares what it sees: `sees="continuation"` is a function of the tokens [T] of one continuation,
`sees="distributions"` one of true and predicted probabilities, both [n, U], with one number for each of n contexts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.core import registry
from harness.core.declarations import MeasureDeclaration
from harness.core.errors import UsageError, one_line
from harness.measures.measurement import Measurement
from harness.measures.sequences import as_tokens


def measure_continuation(names: Iterable[str], tokens: ArrayLike) -> dict[str, Measurement]:
    """Apply the named measures that see one continuation.

    Args:
        names: of measures; those that see something else are left out.
        tokens: [T] token ids.

    Returns:
        Name -> what was measured; missing where the function returns None or NaN, an infinity, or raises a ValueError,
        whose message is the reason.

    Raises:
        UsageError: a measure cannot be imported, or returns no number.
    """
    given = as_tokens(tokens, "continuation").copy()
    given.setflags(write=False)
    return {one.name: _measured(one, partial(function, given)) for one, function in _loaded(names, "continuation")}


def measure_distributions(names: Iterable[str], truth: ArrayLike, predicted: ArrayLike) -> dict[str, Measurement]:
    """Apply the named measures that see distributions, and take their means over the contexts.

    Args:
        names: of measures; those that see something else are left out.
        truth, predicted: [n, U] probabilities.

    Returns:
        Name -> mean over the n contexts; missing as in `measure_continuation`.

    Raises:
        UsageError: a measure cannot be imported, or returns something else than n numbers.
    """
    p, q = (np.array(rows, dtype=np.float64) for rows in (truth, predicted))
    for rows in (p, q):
        rows.setflags(write=False)

    def mean(one: MeasureDeclaration, function: Callable[..., Any]) -> float:
        found = np.asarray(function(p, q), dtype=np.float64)
        if found.shape != (len(p),):
            raise UsageError(f"{_named(one)} returns shape {found.shape} for {len(p)} contexts, not ({len(p)},)")
        return float(found.mean())

    return {one.name: _measured(one, partial(mean, one, f)) for one, f in _loaded(names, "distributions")}


def _loaded(names: Iterable[str], sees: str) -> Iterator[tuple[MeasureDeclaration, Callable[..., Any]]]:
    known = registry.measures()
    for name in names:
        if known[name].sees == sees:
            yield known[name], registry.load(known[name])


def _named(one: MeasureDeclaration) -> str:
    return f"measure {one.name!r} of {one.package}"


def _measured(one: MeasureDeclaration, compute: Callable[[], Any]) -> Measurement:
    try:
        found = compute()
    except UsageError:
        raise
    except ValueError as error:
        return Measurement(None, one_line(error) or "undefined")
    if isinstance(found, Measurement):
        return found
    if found is None:
        return Measurement(None, "undefined")
    try:
        value = float(found)
    except (TypeError, ValueError):
        raise UsageError(f"{_named(one)} returns {type(found).__name__}, not a number") from None
    if not math.isfinite(value):
        return Measurement(None, "undefined" if math.isnan(value) else "infinite")
    return Measurement(value)
