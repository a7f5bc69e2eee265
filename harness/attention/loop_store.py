"""Static heads and terms of surrogates as arrays in files: fits and passes of a running model can be apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.attention.capture import FloatArray, IntArray, LayerCall, ask
from harness.attention.loop_terms import FittedOdds, LoopTerms, PairForm, PairTable
from harness.attention.static_inputs import FallBack, StaticHeads

Arrays = dict[str, np.ndarray[Any, Any]]


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Leave named arrays in a file."""
    with file.open("wb") as out:
        np.savez(out, **arrays)  # type: ignore[arg-type]


def read_arrays(file: Path) -> Arrays:
    """The arrays of a file."""
    with np.load(file, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def static_arrays(static: StaticHeads) -> Arrays:
    """What static heads are made of, the model and how it is called left out."""
    found: Arrays = {"inputs": static.inputs.cpu().numpy()}
    if static.effect is not None:
        found["effect"] = static.effect.cpu().numpy()
    if static.places is not None:
        found["places"] = static.places
    if static.fall_back is not None:
        of_others = static.fall_back
        found |= {"centre_x": of_others.centre_x, "centre_y": of_others.centre_y, "linear": of_others.linear}
    return found


def static_of(model: Any, call: LayerCall, ids: IntArray, arrays: Arrays, sides: bool) -> StaticHeads:
    """The static heads again.

    Args:
        model: the model that they were read from.
        call: a call of the layer over a text as long as the longest that will be needed.
        ids: [K] the local vocabulary in the model's own ids.
        arrays: as `static_arrays` made them.
        sides: whether queries and keys without positions are wanted; they take more room than all the rest.
    """
    hidden = torch.as_tensor(arrays["inputs"], device=call.query.device)
    if sides:
        at_start = replace(ask(model, call, hidden, np.zeros(len(hidden), dtype=np.int64)), hidden=None)
    else:
        heads, groups = call.query.shape[0], call.key.shape[0]
        query, key = (hidden.new_zeros(n, len(hidden), 0) for n in (heads, groups))
        at_start = replace(call, query=query, key=key, hidden=None)
    effect = torch.as_tensor(arrays["effect"], device=hidden.device) if "effect" in arrays else None
    of_others = None
    if "linear" in arrays:
        of_others = FallBack(arrays["centre_x"], arrays["centre_y"], arrays["linear"])
    return StaticHeads(model, call.bare(), ids, hidden, effect, at_start, arrays.get("places"), of_others)


def term_arrays(terms: LoopTerms, length: int) -> Arrays:
    """Terms without their static heads, for texts of at most so many tokens.

    Raises:
        ValueError: a profile by query token: it is no term of a surrogate that is fitted.
    """
    if terms.of_query is not None:
        raise ValueError("profiles by query token are not stored")
    found: Arrays = {name: np.array(getattr(terms, name) or "") for name in ("query", "key", "sink")}
    found["static"] = np.array(terms.static is not None)
    if terms.channels is not None:
        found["of_query"], found["of_key"] = terms.channels
    for name in ("scale", "level"):
        if getattr(terms, name) is not None:
            found[name] = getattr(terms, name)
    for name in ("profile", "place"):
        values = getattr(terms, name)
        if values is not None:
            found[name] = values(max(64, 2 * length))  # rows ask for twice what they need
    if terms.pairs is not None:
        found |= {"codes": terms.pairs.codes, "pairs": terms.pairs.values.astype(np.float32)}
        found["size"] = np.array(terms.pairs.size)
    if terms.form is not None:
        found |= {"form_level": terms.form.level, "form_matrix": terms.form.matrix}
        found["form_constant"] = np.array(terms.form.constant)
    if terms.odds is not None:
        found |= {"odds_a": terms.odds.a, "odds_c": terms.odds.c, "odds_effect": terms.odds.effect}
    return found


def terms_of(arrays: Arrays, static: StaticHeads | None) -> LoopTerms:
    """The terms again, with the static heads that they read.

    Raises:
        ValueError: they read static heads, and there are none.
    """
    if bool(arrays["static"]) and static is None:
        raise ValueError("these terms read static heads")
    query, key, sink = (str(arrays[name]) or None for name in ("query", "key", "sink"))
    pairs = form = odds = None
    if "codes" in arrays:
        pairs = PairTable(arrays["codes"], arrays["pairs"], int(arrays["size"]))
    if "form_level" in arrays:
        form = PairForm(arrays["form_level"], arrays["form_matrix"], float(arrays["form_constant"]))
    if "odds_a" in arrays:
        odds = FittedOdds(arrays["odds_a"], arrays["odds_c"], arrays["odds_effect"])
    return LoopTerms(
        static if bool(arrays["static"]) else None,
        query,  # type: ignore[arg-type]
        key,  # type: ignore[arg-type]
        (arrays["of_query"], arrays["of_key"]) if "of_query" in arrays else None,
        scale=arrays.get("scale"),
        profile=_upto(arrays["profile"]) if "profile" in arrays else None,
        place=_upto(arrays["place"]) if "place" in arrays else None,
        pairs=pairs,
        form=form,
        sink=sink,  # type: ignore[arg-type]
        level=arrays.get("level"),
        odds=odds,
    )


def _upto(values: FloatArray) -> Callable[[int], FloatArray]:
    """[H, T] values of places 0 ... T - 1; beyond those that were stored, the last one's."""

    def of(length: int) -> FloatArray:
        return values[:, np.minimum(np.arange(length), values.shape[1] - 1)]

    return of


def wants_sides(arrays: Arrays) -> bool:
    """Do terms read queries and keys without positions?"""
    return "token" in {str(arrays["query"]), str(arrays["key"])} or "form_level" in arrays
