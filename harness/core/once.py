"""What is read off a frame that nobody changes any more is computed once, for tables, answers and figures alike."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
_settled: dict[int, weakref.ref[pd.DataFrame]] = {}
_kept: dict[int, dict[Callable[..., object], object]] = {}


def settle(frame: pd.DataFrame) -> pd.DataFrame:
    """Declare that a frame, which nobody else holds, will not be changed; returns it."""
    name = id(frame)
    _settled[name] = weakref.ref(frame)
    _kept[name] = {}
    weakref.finalize(frame, _forget, name)
    return frame


def _forget(name: int) -> None:
    _settled.pop(name, None)
    _kept.pop(name, None)


def once(make: Callable[[pd.DataFrame], T]) -> Callable[[pd.DataFrame], T]:
    """A function of a frame whose result is kept as long as a settled frame is; for other frames it runs every time."""

    @wraps(make)
    def kept(frame: pd.DataFrame) -> T:
        known = _settled.get(id(frame))
        if known is None or known() is not frame:
            return make(frame)
        found = _kept[id(frame)]
        if make not in found:
            found[make] = make(frame)
        return found[make]  # type: ignore[return-value]

    return kept


def once_of(make: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A function of an object that nobody changes: its results are kept in it, by its other arguments."""

    @wraps(make)
    def kept(of: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        results: dict[object, T] = vars(of).setdefault("_results", {})
        key = (make, args, tuple(sorted(kwargs.items())))
        if key not in results:
            results[key] = make(of, *args, **kwargs)
        return results[key]

    return kept
