"""What is read off a frame that nobody changes any more is computed once, for tables, answers and figures alike."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


@dataclass
class _Settled:
    """What is known of a settled frame: results by function, and the texts of columns that were numbered."""

    frame: weakref.ref[pd.DataFrame]
    numbered: dict[str, tuple[NDArray[np.intp], pd.Index]]
    results: dict[Callable[..., object], object] = field(default_factory=dict)


_settled: dict[int, _Settled] = {}


def _known(frame: pd.DataFrame) -> _Settled | None:
    """What is known of a frame; None where it is not settled."""
    known = _settled.get(id(frame))
    return known if known is not None and known.frame() is frame else None


def settle(
    frame: pd.DataFrame, numbered: Mapping[str, tuple[NDArray[np.intp], pd.Index]] | None = None
) -> pd.DataFrame:
    """Declare that a frame, which nobody else holds, will not be changed; returns it.

    Args:
        frame: [n] rows.
        numbered: of columns that were numbered already, the number of each row and the texts, as `pandas.factorize`.
    """
    _settled[id(frame)] = _Settled(weakref.ref(frame), dict(numbered or {}))
    weakref.finalize(frame, _settled.pop, id(frame), None)
    return frame


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

    known = _known(frame)
    if known is None:
        found: NDArray[np.bool_] = frame[column].isin(texts).to_numpy(dtype=bool)
        return found
    if column not in known.numbered:
        codes, names = pd.factorize(frame[column])
        known.numbered[column] = codes, pd.Index(names, dtype=object)
    codes, names = known.numbered[column]
    wanted = names.get_indexer(pd.Index(texts, dtype=object))
    wanted = wanted[wanted >= 0]
    return codes == wanted[0] if len(wanted) == 1 else np.isin(codes, wanted)


def once(make: Callable[[pd.DataFrame], T]) -> Callable[[pd.DataFrame], T]:
    """A function of a frame whose result is kept as long as a settled frame is; for other frames it runs every time."""

    @wraps(make)
    def kept(frame: pd.DataFrame) -> T:
        known = _known(frame)
        if known is None:
            return make(frame)
        if make not in known.results:
            known.results[make] = make(frame)
        return known.results[make]  # type: ignore[return-value]

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
