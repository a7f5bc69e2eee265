"""Compare the rows that `record.py` kept before a change with those after it.

    python tests/identity/compare.py BEFORE AFTER            # equal to the last bit, or exit code 1
    python tests/identity/compare.py BEFORE AFTER --within 1e-4   # relative; verdicts, integers and tokens stay exact

Prints one line per case and metric that moved: how many rows, the largest absolute and relative change.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

KEY = (
    "experiment",
    "model",
    "strategy",
    "layer",
    "head",
    "surrogate",
    "condition",
    "split",
    "prompt",
    "metric",
    "seed",
)
NUMBERS = ("value", "low", "high", "prediction")
EXACT = ("n", "verdict", "missing")


def _keyed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows under their factors; those with the same factors are told apart by their order."""
    frame = rows.copy()
    for name in KEY:
        frame[name] = frame[name].astype("string").fillna("-")
    frame["repeat"] = frame.groupby(list(KEY)).cumcount().astype("string")
    return frame.set_index([*KEY, "repeat"]).sort_index()


def _changes(before: pd.DataFrame, after: pd.DataFrame, within: float) -> tuple[dict[str, list[float]], list[str]]:
    """Metric -> [rows that moved, largest absolute change, largest relative change]; and what may never differ."""
    found: dict[str, list[float]] = {}
    wrong: list[str] = []
    metric = np.asarray(before.index.get_level_values("metric"))
    for name in EXACT:
        a, b = (frame[name].astype("string").fillna("-") for frame in (before, after))
        wrong += [f"{name} of {m}" for m in sorted(set(metric[np.asarray(a != b)]))]
    for name in NUMBERS:
        a, b = (frame[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan) for frame in (before, after))
        gone = np.isnan(a) != np.isnan(b)
        wrong += [f"{name} of {m}: a value on one side only" for m in sorted(set(metric[gone]))]
        moved = ~np.isnan(a) & ~np.isnan(b) & (a != b)
        scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), 1e-300)
        for place in np.flatnonzero(moved):
            size = abs(a[place] - b[place])
            entry = found.setdefault(str(metric[place]), [0, 0.0, 0.0])
            entry[0] += 1
            entry[1], entry[2] = max(entry[1], size), max(entry[2], size / scale[place])
            if size > within * max(scale[place], 1.0) or within == 0.0:
                wrong.append(f"{name} of {metric[place]}")
    return found, list(dict.fromkeys(wrong))


def _trajectories(before: Path, after: Path) -> list[str]:
    """What differs between the continuations of two runs."""
    files = [folder / "trajectories.parquet" for folder in (before, after)]
    if not any(file.is_file() for file in files):
        return []
    if not all(file.is_file() for file in files):
        return ["continuations on one side only"]
    a, b = (pd.read_parquet(file) for file in files)
    if len(a) != len(b):
        return [f"{len(a)} and {len(b)} continuations"]
    order = ["experiment", "model", "strategy", "source", "seed", "split", "prompt"]
    a, b = (frame.sort_values(order, kind="stable", ignore_index=True) for frame in (a, b))
    differ = sum(list(x) != list(y) for x, y in zip(a["continuation"], b["continuation"], strict=True))
    return [f"{differ} of {len(a)} continuations differ"] if differ else []


def compare(before: Path, after: Path, within: float = 0.0) -> tuple[list[str], bool]:
    """Lines about every case that both folders hold, and whether nothing moved further than allowed."""
    lines, same = [], True
    cases = sorted(path.name for path in before.iterdir() if (path / "rows.parquet").is_file())
    for case in cases:
        if not (after / case / "rows.parquet").is_file():
            lines.append(f"{case}: not run on the second side")
            same = False
            continue
        a, b = (_keyed(pd.read_parquet(folder / case / "rows.parquet")) for folder in (before, after))
        wrong = _trajectories(before / case, after / case)
        if not a.index.equals(b.index):
            only = len(a.index.difference(b.index)), len(b.index.difference(a.index))
            lines.append(f"{case}: {only[0]} rows only before, {only[1]} only after")
            same = False
            continue
        found, more = _changes(a, b, within)
        wrong += more
        lines += [
            f"{case}: {metric}: {int(rows)} figures moved, at most {size:.2g} ({share:.2g} relative)"
            for metric, (rows, size, share) in sorted(found.items())
        ]
        lines += [f"{case}: NOT ALLOWED: {what}" for what in wrong]
        lines.append(f"{case}: {len(a)} rows, {'the same' if not found and not wrong else 'see above'}")
        same = same and not wrong
    return lines, same and bool(cases)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--within", type=float, default=0.0, help="largest change, relative above 1, absolute below")
    given = parser.parse_args()
    said, unmoved = compare(given.before, given.after, given.within)
    sys.stdout.write("\n".join(said) + "\n")
    raise SystemExit(0 if unmoved else 1)
