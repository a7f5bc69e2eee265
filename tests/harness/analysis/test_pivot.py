"""Tables of any factors: figures by hand, what is bold, every format."""

from __future__ import annotations

import csv
import io
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.analysis.pivot import Pivot, frame, pivots
from harness.cli.app import invoke
from harness.core.errors import UsageError
from harness.core.rows import Rows
from harness.report.render import render
from harness.report.render.layout import fits, layout, plain
from harness.runs.run import Run, load_run

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "results" / "reference" / "quickstart"


class Fake:
    """As much of a run as a pivot needs."""

    def __init__(self, rows: pd.DataFrame, name: str = "a", seed: int = 0, prompts: str = "p") -> None:
        self.rows, self.path = rows, Path(name)
        self.manifest = {
            "state": "complete",
            "config": {"seed": seed, "experiments": [{"kind": "heads"}], "generation": {}},
            "models": [{"name": "m", "weights_sha256": "w", "revision": None}],
            "prompts": {"sha256": prompts},
            "packages": {},
            "machine": {},
            "git": {"commit": "c", "dirty": False},
        }


def rows(shift: float, noise: float, n: int = 12) -> pd.DataFrame:
    """counts at 1, better by `shift` with noise that prompts share and noise of its own."""
    made = Rows(experiment="heads", model="m", strategy="greedy", split="held_out", layer=0, head=0)
    rng = np.random.default_rng(0)
    for index in range(n):
        base = 1.0 + rng.normal(0.0, 0.3)
        for surrogate, value in (("counts", base), ("distance", base - shift + noise * rng.normal())):
            made.add("kl", value, surrogate=surrogate, prompt=f"p{index}", n=10)
            made.add("top_token", 1.0 - value / 10, surrogate=surrogate, prompt=f"p{index}", n=10)
            made.add("entropy_like", value, surrogate=surrogate, prompt=f"p{index}", n=10)
        made.add("kl", -9.0, surrogate="shuffled-weights", prompt=f"p{index}", n=10)
    return made.frame()


def bold(pivot: Pivot) -> set[tuple[str, ...]]:
    return {(*row, *column) for (row, column), cell in pivot.cells.items() if cell.best}


def one(found: list[Pivot]) -> Pivot:
    assert len(found) == 1
    return found[0]


def test_bold_only_where_the_paired_difference_excludes_zero() -> None:
    # far smaller than the spread of prompts, but the same in each: sure
    assert bold(one(pivots([Fake(rows(0.05, 0.01))], metrics=["kl"]))) == {("distance",)}
    assert bold(one(pivots([Fake(rows(0.05, 0.5))], metrics=["kl"]))) == set()
    # higher is better here; the control is the best of all and takes no part
    assert bold(one(pivots([Fake(rows(0.05, 0.01))], metrics=["top_token"]))) == {("distance",)}


def test_a_metric_without_a_direction_has_no_best() -> None:
    pivot = one(pivots([Fake(rows(0.5, 0.01))], metrics=["entropy_like"]))
    assert bold(pivot) == set()
    assert "neither direction is better" in pivot.note


def test_runs_on_other_prompts_are_two_samples() -> None:
    a, same = Fake(rows(0.05, 0.01), "x/a"), Fake(rows(0.15, 0.01), "x/b")
    other = Fake(rows(0.15, 0.01), "x/b", prompts="q")
    where = ["surrogate=distance"]
    paired = one(pivots([a, same], rows=["run"], metrics=["kl"], where=where))
    few = Fake(rows(0.15, 0.01, n=8), "x/b", prompts="q")
    assert "bootstrap over 8 to 12 prompts" in one(pivots([a, few], metrics=["kl"], where=where)).note
    assert bold(paired) == {("b",)}
    assert bold(one(pivots([a, other], rows=["run"], metrics=["kl"], where=where))) == set()


def test_a_surrogate_of_infinite_kl_is_never_best() -> None:
    frame = rows(0.05, 0.01)
    chosen = (frame["surrogate"] == "distance") & (frame["prompt"] == "p0") & (frame["metric"] == "kl")
    frame.loc[chosen, "value"] = pd.NA
    frame.loc[chosen, "missing"] = "infinite: probability 0 for a token that the model gives some"
    pivot = one(pivots([Fake(frame)], metrics=["kl"]))
    assert bold(pivot) == set()
    assert "1 of 36 rows have no value" in pivot.note


def test_the_defaults_are_the_headlines() -> None:
    run = load_run(REFERENCE)
    found = {pivot.title: pivot for pivot in pivots([run])}
    assert set(found) == {"one-layer: excess_risk", "heads: explained", "generation: kl"}
    assert found["generation: kl"].rows[0] == ("counts",)
    layers = one(pivots([run], rows=["layer"], columns=["surrogate"], metrics=["explained"], where=["strategy=greedy"]))
    assert layers.rows == [("0",), ("1",), ("5",), ("12",), ("18",), ("29",)]
    assert layers.cells[("0",), ("pccmc-weights",)].interval.value == pytest.approx(1.0)
    factor = one(pivots([run], rows=["surrogate"], columns=["K"], metrics=["excess_risk"]))
    assert factor.columns == [("16",)]


def test_every_format_says_the_same(finished: Any) -> None:
    run: Run = finished[0]
    found = pivots([run], metrics=["kl", "top_token"], where=["experiment=heads"])
    lines = list(csv.DictReader(io.StringIO(frame(found).to_csv(index=False))))
    assert len(lines) == 7 * 2 * 2
    assert {line["metric"] for line in lines} == {"kl", "top_token"}
    value = float(next(line["value"] for line in lines if line["surrogate"] == "counts" and line["metric"] == "kl"))
    own = run.rows[(run.rows["metric"] == "kl") & (run.rows["surrogate"] == "counts")]
    own = own[(own["experiment"] == "heads") & (own["strategy"] == lines[0]["strategy"])]
    assert value == pytest.approx(float(own.groupby("prompt")["value"].mean().mean()))
    wide = [pivot.wide() for pivot in found]
    for format_ in ("markdown", "latex", "html"):
        assert render(wide, format_).count("pccmc") == 2  # weights and fit
    assert render(wide, "latex").count(r"top\_token") == 4
    with pytest.raises(UsageError, match="is given twice"):
        pivots([run, run])


def test_a_pivot_is_long_where_it_is_too_wide() -> None:
    pivot = one(pivots([Fake(rows(0.05, 0.01))], columns=["surrogate"], metrics=["kl", "top_token"]))
    wide, long = pivot.wide(), pivot.long()
    assert [column.name for column in wide.columns][:2] == ["counts kl", "counts top_token"]
    assert [column.name for column in long.columns] == ["surrogate", "metric", "value"]
    assert not fits(wide, 80)
    assert fits(long, 80)
    best = {
        long.rows[row][:2] == ["distance", "kl"] or long.rows[row][:2] == ["distance", "top_token"]
        for row, column in long.marked
        if column == 2
    }
    assert best == {True}
    assert len(long.marked) == len(wide.marked) == 2
    text = "\n".join(map(plain, layout(long, 80)))
    assert "*: better than every other of its group" in text


def test_texts_of_others_are_escaped(finished: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished[0].path, folder, ignore=shutil.ignore_patterns("units"))
    frame = pd.read_parquet(folder / "rows.parquet")
    frame["surrogate"] = frame["surrogate"].replace("distance", "<script>|_$&\\")
    frame.to_parquet(folder / "rows.parquet", index=False)
    found = pivots([load_run(folder)], metrics=["kl"], where=["experiment=heads"])

    class Tags(HTMLParser):
        seen: set[str] = set()  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.seen.add(tag)

    parser = Tags()
    wide = [pivot.wide() for pivot in found]
    parser.feed(render(wide, "html"))
    assert "script" not in parser.seen
    assert r"<script>\_" not in render(wide, "markdown")
    assert r"\|\_$&\\" in render(wide, "markdown")
    assert r"|\_\$\&\textbackslash{}" in render(wide, "latex")


@pytest.mark.parametrize("format_", ["rich", "markdown", "latex", "csv", "html"])
def test_the_command(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["table", str(REFERENCE), "--rows", "surrogate,layer", "--metric", "kl", "--format", format_]) == 0
    out = capsys.readouterr().out
    assert "ccmc-fit" in out
    assert "nan" not in out.lower()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "explaned"], "--metric 'explaned'; did you mean 'explained'"),
        (["--metric", "loser_exponent"], "--metric 'loser_exponent' (not in these runs)"),
        (["--rows", "layer", "--columns", "layer"], "--rows and --columns: 'layer' is given twice"),
        (["--rows", "surogate"], "--rows 'surogate'; did you mean 'surrogate'"),
        (["--columns", "lair"], "--columns 'lair'; did you mean 'layer'"),
        (["--where", "layer"], "write it as factor=value"),
        (["--where", "surrogate=cmc-fit"], "no such row; did you mean 'ccmc-fit'"),
        (["--where", "layer=0", "--metric", "excess_risk"], "no row is left"),
    ],
)
def test_wrong_use(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["table", str(REFERENCE), *arguments]) == 2
    assert message in capsys.readouterr().err
