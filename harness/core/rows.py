"""Rows: the one table that every experiment writes and every table, comparison and gate reads."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd

from harness.core import registry

SCHEMA_VERSION = 1

# Values of `surrogate` in rows of the model itself: its own text, with another seed, and of another prompt.
MODEL, RESEEDED, SHUFFLED = "model", "model-reseeded", "model-shuffled"

COLUMNS: dict[str, str] = {
    "experiment": "string",  # one-layer, heads, generation
    "model": "string",  # as named in the config
    "revision": "string",
    "strategy": "string",  # how the text was decoded: greedy, temperature=1, temperature=0.7,top_p=0.9
    "layer": "Int64",
    "head": "Int64",
    "surrogate": "string",  # its name; MODEL, RESEEDED or SHUFFLED for the model itself
    "condition": "string",  # JSON of the other factors
    "split": "string",  # train or held_out; "pooled" for what was pooled over repetitions, with a verdict
    "fold": "Int64",  # in which the prompt was judged; missing where there are no folds
    "prompt": "string",
    "group": "string",  # of prompts that share a subject; missing where the prompt is a group of its own
    "metric": "string",
    "value": "Float64",  # missing where the quantity is undefined; the reason is in `missing`
    "low": "Float64",
    "high": "Float64",
    "n": "Int64",  # how many observations the value is a mean of
    "seed": "Int64",
    "prediction": "Float64",  # what the theory says the value is
    "verdict": "string",  # agrees, differs; holds, does not hold
    "missing": "string",
}

LATER = frozenset({"fold", "group"})
"""Columns that rows of older runs lack; they are read as missing values."""

LARGEST = 1e100
"""No figure is larger: squares of it must be finite."""
INFINITE = "infinite"
"""A reason in `missing` that begins so: the value exists and is infinite. All other reasons: it is undefined."""


def is_infinite(reason: str | None) -> bool:
    """Is a value missing because it is infinite?"""
    return (reason or "").startswith(INFINITE)


REFERENCES = frozenset({"base-rate", "position-only", "constant", "never-repeats"})
"""Laws and forecasts that know nothing of a text, in rows of `repetition`."""


def frames() -> frozenset[str]:
    """Floor, ceiling and controls: they frame a figure, and a change of theirs is neither better nor worse."""
    return registry.controls() | REFERENCES | {RESEEDED, SHUFFLED}


class Rows:
    """Collects rows that share some columns.

    Args:
        **shared: columns that every row gets unless it says otherwise.
    """

    def __init__(self, **shared: Any) -> None:
        self._shared = shared
        self._rows: list[dict[str, Any]] = []

    def add(self, metric: str, value: float | None, *, missing: str | None = None, **columns: Any) -> None:
        """Add one row.

        Raises:
            ValueError: unknown column, a value that is not finite, or a missing value without a reason.
        """
        row = {**self._shared, **columns, "metric": metric, "missing": missing}
        unknown = set(row) - set(COLUMNS)
        if unknown:
            raise ValueError(f"row of {metric!r}: unknown columns {sorted(unknown)}")
        if (value is None) == (missing is None):
            raise ValueError(f"row of {metric!r}: exactly one of value and reason for a missing value is needed")
        for name, number in (("value", value), *((k, row.get(k)) for k in ("low", "high", "prediction"))):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"row of {metric!r}: {name} is {number}; at {row}")
        row["value"] = None if value is None else float(value)
        if isinstance(row.get("condition"), dict):
            row["condition"] = json.dumps(row["condition"], sort_keys=True)
        self._rows.append(row)

    def frame(self) -> pd.DataFrame:
        """The rows as a table with every column of the schema, in its order and type."""
        return to_schema(pd.DataFrame(self._rows, columns=list(COLUMNS)))


def to_schema(frame: pd.DataFrame) -> pd.DataFrame:
    """Cast a table to the columns and types of the schema."""
    return frame.reindex(columns=list(COLUMNS)).astype(COLUMNS)


def completed(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows as read from disk, with the columns that older runs lack, without values, at their places in the schema."""
    order, names = list(COLUMNS), list(frame.columns)
    lacking = [name for name in order if name in LATER and name not in frame]
    for name in lacking:
        before = order[order.index(name) - 1]
        names.insert(names.index(before) + 1 if before in names else len(names), name)
    return frame.reindex(columns=names).astype({name: COLUMNS[name] for name in lacking}) if lacking else frame


def type_problems(frame: pd.DataFrame) -> list[str]:
    """What readers of rows cannot work with: columns that are missing or of another type, conditions that are no JSON
    mapping, numbers that are not finite.

    Args:
        frame: as read from disk; columns beyond the schema are not looked at, and those of `LATER` may be missing.

    Returns:
        One line for each column that is wrong.
    """
    if lacking := [name for name in COLUMNS if name not in frame and name not in LATER]:
        return [f"columns are missing: {', '.join(lacking)}"]
    problems = []
    for name, kind in COLUMNS.items():
        if name not in frame:
            continue
        column = frame[name]
        if column.dtype.kind != pd.Series([], dtype=kind).dtype.kind and not column.isna().all():
            held = "string" if isinstance(column.dtype, pd.CategoricalDtype) else column.dtype
            problems.append(f"column {name!r} holds {held}, not {kind}")
    if not problems and (wrong := [text for text in frame["condition"].dropna().unique() if not _is_mapping(text)]):
        problems.append(f"column 'condition' holds {str(wrong[0])[:40]!r}, which is no JSON mapping")
    return problems or _beyond(frame)


def _beyond(frame: pd.DataFrame) -> list[str]:
    """Numbers that no measure has: not finite, or so large that only a damaged file holds them."""
    problems = []
    for name in ("value", "low", "high", "prediction", "n"):
        numbers = np.abs(frame[name].astype("Float64").fillna(0.0).to_numpy(dtype=float))
        if wrong := np.flatnonzero(~(numbers <= LARGEST)).tolist():
            problems.append(f"row {wrong[0]} has {name} {frame[name].iloc[wrong[0]]}")
    return problems


def _is_mapping(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def with_factors(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with each factor of `condition` as a column of its own, named `at_` and the factor."""
    factors = pd.DataFrame([json.loads(text) for text in frame["condition"]], index=frame.index)
    return pd.concat([frame, factors.add_prefix("at_")], axis=1)
