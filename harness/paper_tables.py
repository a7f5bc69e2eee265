"""Tables of the paper's experiments: every pooled measurement beside its prediction, and the verdicts as one table."""

from __future__ import annotations

import json

import pandas as pd

from harness.measures.statistics import Interval
from harness.paper_settings import PAPER_KINDS
from harness.tables import Table, interval, number

HEADER = ["claim", "where", "measured", "predicted", "n", "verdict"]
COLUMNS = ["predicted", "measured", "verdict"]
NAMES = {"model": "trained model"}
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
        return None if pd.isna(row[name]) else float(row[name]) + 0.0  # no -0

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
    """The claims of all experiments, each over all its conditions: what was predicted, measured and said."""
    body = []
    judged = rows[(rows["split"] == "pooled") & rows["verdict"].notna()]
    judged = judged.assign(claim=[json.loads(text)["claim"] for text in judged["condition"]])
    for kind in PAPER_KINDS:
        of_kind = judged[judged["experiment"] == kind]
        for claim in of_kind["claim"].unique():
            of_claim = of_kind[of_kind["claim"] == claim]
            for surrogate in of_claim["surrogate"].unique() if of_claim["surrogate"].notna().all() else [None]:
                part = of_claim if surrogate is None else of_claim[of_claim["surrogate"] == surrogate]
                name = claim if surrogate in (None, "ccmc-fit") else f"{claim} ({NAMES.get(surrogate, surrogate)})"
                body.append([kind, name, _range(part, "prediction"), _range(part, "value"), _counted(part)])
    note = (
        "Each claim over all conditions of its experiment, smallest to largest; every single comparison with its "
        "interval is in the tables of the runs. A comparison agrees where the prediction is inside the 95 % interval: "
        "one in twenty right predictions is outside by chance. A bound holds where the largest value keeps it."
    )
    return Table("What the theory says and what was measured", ["experiment", "claim", *COLUMNS], body, note)


def _range(part: pd.DataFrame, column: str) -> str:
    """The smallest and the largest value of a column; of a bound, the bound."""
    bounds = [json.loads(text).get("bound") for text in part["condition"]]
    if column == "prediction" and bounds[0] is not None:
        return f"at most {number(max(bounds))}"
    values = part[column].dropna().astype(float)
    if values.empty:
        return "–"
    low, high = number(values.min() + 0.0), number(values.max() + 0.0)  # no -0
    return low if low == high else f"{low} to {high}"


def _counted(part: pd.DataFrame) -> str:
    """How many comparisons came out as predicted."""
    said = part["verdict"]
    kept = said.isin(["holds", "does not hold"]).any()
    right = int((said == ("holds" if kept else "agrees")).sum())
    word = ("holds" if len(part) == 1 else "hold") if kept else ("agrees" if len(part) == 1 else "agree")
    without = int(said.isin(["no value", "no interval"]).sum())
    return f"{right} of {len(part)} {word}" + (f", {without} without an interval" if without else "")
