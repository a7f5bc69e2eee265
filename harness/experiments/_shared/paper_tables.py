"""Tables of the paper's experiments: every pooled measurement beside its prediction, and the verdicts as one table."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from harness.config.paper import PAPER_KINDS
from harness.core.format import interval, number
from harness.core.records import Interval
from harness.core.rows import with_factors
from harness.experiments._shared.tables import Table

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


def _plain(value: Any) -> float | None:
    return None if pd.isna(value) else float(value) + 0.0  # no -0


def _interval(row: pd.Series) -> Interval:
    return Interval(_plain(row["value"]), _plain(row["low"]), _plain(row["high"]), int(row["n"]))


def _line(row: pd.Series) -> list[str]:
    factors = json.loads(row["condition"])
    found = _interval(row)
    predicted = number(_plain(row["prediction"]))
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
    return tables + gap_table(rows)


GAP = (
    ("explained by ccmc-weights", "explained", "ccmc-weights"),
    ("by ccmc-fit", "explained", "ccmc-fit"),
    ("by bigram-restricted", "explained", "bigram-restricted"),
    ("by in-context-bigram", "explained", "in-context-bigram"),
    ("winners, ccmc-fit", "winner_jaccard", "ccmc-fit"),
    ("ceiling", "winner_jaccard", "model-reseeded"),
    ("floor", "winner_jaccard", "model-shuffled"),
    ("repeats, ccmc-fit", "rep_32", "ccmc-fit"),
    ("model", "rep_32", "model"),
)


def gap_table(rows: pd.DataFrame) -> list[Table]:
    """Where the theory stops: the ladder of models, one line each; none without the experiment `theory-gap`."""
    part = rows[(rows["experiment"] == "theory-gap") & (rows["split"] == "pooled")]
    if part.empty:
        return []
    frame = with_factors(part)
    body = []
    for (data, rung), of in frame.groupby(["at_data", "at_rung"], sort=False):
        line = [str(data), str(rung)]
        for _, metric, surrogate in GAP:
            found = of[(of["metric"] == metric) & (of["surrogate"] == surrogate)]
            line.append("–" if found.empty or pd.isna(found["value"].iloc[0]) else interval(_interval(found.iloc[0])))
        body.append(line)
    note = (
        "Models trained on the same sequences, each rung a step further from the assumptions, means over repetitions "
        "with 95 % intervals. Explained: share of KL(counts) on held-out sequences. Winners: overlap of the winner "
        "sets of rollouts with the model's; ceiling: the model with another seed; floor: the model on other prompts. "
        "Repeats: share of tokens among the 32 before. –: no single chain stands in the weights."
    )
    return [Table("Where the theory stops", ["data", "model", *(label for label, _, _ in GAP)], body, note)]


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
