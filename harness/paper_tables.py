"""Tables of the paper's experiments: every pooled measurement beside its prediction, and the verdicts as one table."""

from __future__ import annotations

import json

import pandas as pd

from harness.measures.statistics import Interval
from harness.paper_settings import PAPER_KINDS
from harness.tables import Table, interval, number

HEADER = ["claim", "where", "measured", "predicted", "n", "verdict"]
NOTE = (
    "Intervals: 95 %, bootstrap over repetitions, of shares exact. agrees / differs: the prediction is inside / "
    "outside the interval; holds / does not hold: a bound fixed beforehand is kept / broken. One in "
    "twenty right predictions is outside its interval by chance."
)


def _where(factors: dict[str, object], surrogate: object) -> str:
    shown = [str(surrogate)] if isinstance(surrogate, str) else []
    for name, value in factors.items():
        if name in {"claim", "bound"}:
            continue
        shown.append(f"{name} = {value:,}" if isinstance(value, int) else f"{name} = {value}")
    return ", ".join(shown)


def _line(row: pd.Series) -> list[str]:
    factors = json.loads(row["condition"])

    def plain(name: str) -> float | None:
        return None if pd.isna(row[name]) else float(row[name])

    found = Interval(plain("value"), plain("low"), plain("high"), int(row["n"]))
    predicted = number(plain("prediction"))
    if "bound" in factors:
        predicted = f"at most {number(float(factors['bound']))}"
    measured = interval(found) if found.value is not None else f"– ({row['missing']})"
    said = "–" if pd.isna(row["verdict"]) else str(row["verdict"])
    return [str(factors["claim"]), _where(factors, row["surrogate"]), measured, predicted, str(found.n), said]


def paper_tables(rows: pd.DataFrame) -> list[Table]:
    """One table per experiment of the paper: all its pooled rows."""
    tables = []
    for kind in PAPER_KINDS:
        part = rows[(rows["experiment"] == kind) & (rows["split"] == "pooled")]
        if len(part):
            tables.append(Table(f"Paper, {kind}", HEADER, [_line(row) for _, row in part.iterrows()], NOTE))
    return tables


def verdict_table(rows: pd.DataFrame) -> Table:
    """The pooled rows of all experiments that have a verdict, as one table."""
    body = []
    for kind in PAPER_KINDS:
        part = rows[(rows["experiment"] == kind) & (rows["split"] == "pooled") & rows["verdict"].notna()]
        body += [[kind, *_line(row)] for _, row in part.iterrows()]
    return Table("The theory's claims and what was measured", ["experiment", *HEADER], body, NOTE)
