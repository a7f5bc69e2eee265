"""What is read off a frame that nobody changes any more is computed once, for tables, answers and figures alike."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
_settled: dict[int, weakref.ref[pd.DataFrame]] = {}
_kept: dict[int, dict[Callable[..., object], object]] = {}
_numbered: dict[int, dict[str, tuple[NDArray[np.intp], pd.Index]]] = {}


def settle(
    frame: pd.DataFrame, numbered: Mapping[str, tuple[NDArray[np.intp], pd.Index]] | None = None
) -> pd.DataFrame:
    """Declare that a frame, which nobody else holds, will not be changed; returns it.

    Args:
        frame: [n] rows.
        numbered: of columns that were numbered already, the number of each row and the texts, as `pandas.factorize`.
    """
    name = id(frame)
    _settled[name] = weakref.ref(frame)
    _kept[name] = {}
    _numbered[name] = dict(numbered or {})
    weakref.finalize(frame, _forget, name)
    return frame


def _forget(name: int) -> None:
    _settled.pop(name, None)
    _kept.pop(name, None)
    _numbered.pop(name, None)


def among(frame: pd.DataFrame, column: str, *texts: str) -> NDArray[np.bool_]:
    """Which rows have one of some texts in a column; a settled frame's texts are numbered once, and numbers compared.

    Args:
        frame: [n] rows.
        column: of texts; a missing one is none of them.
        texts: what is looked for.

    Returns:
        [n] true where the row has one of them.
    """
    import numpy as np
    import pandas as pd

    known = _settled.get(id(frame))
    if known is None or known() is not frame:
        found: NDArray[np.bool_] = frame[column].isin(texts).to_numpy(dtype=bool)
        return found
    numbered = _numbered[id(frame)]
    if column not in numbered:
        codes, names = pd.factorize(frame[column])
        numbered[column] = codes, pd.Index(names, dtype=object)
    codes, names = numbered[column]
    wanted = names.get_indexer(pd.Index(texts, dtype=object))
    wanted = wanted[wanted >= 0]
    return codes == wanted[0] if len(wanted) == 1 else np.isin(codes, wanted)


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
