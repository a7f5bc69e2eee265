"""Tables, answers and figures of heads, on made-up rows with known truth."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.core.records import Answer, Interval, Table
from harness.core.rows import Rows
from harness.core.style import context
from harness.experiments.heads.answers import LEAST, MOST, SHRUNK, WORSE, answers
from harness.experiments.heads.figures import explained_maps, figures
from harness.experiments.heads.single_heads import heads_of
from harness.experiments.heads.tables import FIRST, LAST, head_tables, tables
from harness.measures.head_kinds import KINDS, PATTERNS
from harness.report.render.layout import layout, plain
from harness.stats.pooling import Observed, difference


def made(
    shares: Mapping[str, float],
    prompts: int = 12,
    heads: int = 8,
    noise: float = 0.03,
    counts: bool = True,
    model: str = "m",
    strategy: str = "greedy",
    of_head: Mapping[int, float] | None = None,
) -> pd.DataFrame:
    """Rows of surrogates that explain a share of every head, give or take noise by prompt.

    Args:
        shares: surrogate -> what it explains.
        prompts, heads: how many.
        noise: standard deviation of the share of a prompt.
        counts: whether counts were run.
        model, strategy: of all rows.
        of_head: head -> what is taken off the share of every surrogate.
    """
    rng = np.random.default_rng(0)
    rows = Rows(experiment="heads", model=model, strategy=strategy, split="held_out", seed=0)
    totals: dict[tuple[int, str], list[float]] = {}
    for prompt in range(prompts):
        errors = {name: noise * rng.normal() for name in shares}
        for head in range(heads):
            shared: dict[str, Any] = {"layer": head // 4, "head": head % 4, "prompt": f"p{prompt}", "n": 10 + prompt}
            base = float(rng.gamma(20.0, 0.05))
            rows.add("sink_share", 0.1, surrogate="model", **shared)
            scores = dict.fromkeys(PATTERNS, 0.05) | ({"induction_score": 0.9} if head == 0 else {})
            for name, value in scores.items():
                rows.add(name, value, surrogate="model", **shared)
            if counts:
                rows.add("kl", base, surrogate="counts", **shared)
            for name, share in shares.items():
                off = (of_head or {}).get(head, 0.0)
                kl = base * max(1 - share + off + errors[name], 0.0)
                rows.add("kl", kl, surrogate=name, **shared)
                rows.add("top_token", 0.5, surrogate=name, **shared)
                totals.setdefault((head, name), []).append(1 - kl / base)
    if counts:
        for (head, name), found in totals.items():
            value = float(np.mean(found))
            place: dict[str, Any] = {"layer": head // 4, "head": head % 4, "n": prompts}
            rows.add("explained", value, surrogate=name, low=value - 0.02, high=value + 0.02, **place)
    for head in range(heads):
        rows.add("content_score", 0.5, surrogate="model", layer=head // 4, head=head % 4, low=0.4, high=0.6)
    return rows.frame()


def said(rows: pd.DataFrame, question: str) -> list[Answer]:
    return [answer for answer in answers(rows) if answer.question == question]


def named(found: list[Table], name: str) -> Table:
    return next(table for table in found if table.name == name)


def test_the_best_surrogate_leads_the_runner_up() -> None:
    (answer,) = said(made({"distance": 0.3, "pccmc-weights": 0.6, "ccmc-weights": 0.1}), MOST)
    assert answer.answered
    assert re.match(r"m, greedy: pccmc-weights explains (59|60|61|62) % \[", answer.text)
    assert "of what attention does beyond counting (8 heads, 12 held-out prompts)" in answer.text
    assert "points more than distance, the runner-up" in answer.text
    assert answer.estimate is not None
    assert answer.estimate.value == pytest.approx(0.6, abs=0.02)


def test_no_difference_found_says_what_could_have_been() -> None:
    rows = made({"distance": 0.5, "pccmc-weights": 0.5}, noise=0.1)
    (answer,) = said(rows, MOST)
    assert answer.answered
    samples = {key[0]: s for key, s in Observed(rows).cells(("surrogate",), metric="explained")}
    best, other = sorted(samples, key=lambda name: -(samples[name].value or 0.0))
    lead = difference(samples[best], samples[other], "explained", paired=True).interval
    assert lead.low is not None
    assert lead.high is not None
    assert lead.low < 0 < lead.high
    assert f"no difference found to {other} (" in answer.text
    least = 100 * (lead.high - lead.low) / 2 / 1.96 * 2.8
    assert f"this run could only have found one of about {least:.2g} points" in answer.text


def test_a_control_is_never_the_best() -> None:
    rows = made({"distance": 0.3, "shuffled-weights": 0.9, "exact-keys": 0.95})
    assert said(rows, MOST)[0].text.startswith("m, greedy: distance explains")
    summary = tables(rows)[0]
    (mark,) = summary.marked
    assert summary.rows[mark[0]][0] == "distance"
    assert all(head.best == "distance" for head in heads_of(rows, "m", "greedy"))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            made({"distance": 0.3}, prompts=1),
            "an interval needs 5 held-out prompts, this run has 1. The largest figure is 3",
        ),
        (made({"distance": 0.3}, counts=False), "counts was not run, and explained is measured against it"),
        (made({"distance": 0.3})[lambda f: f["split"] != "held_out"], "no head was scored on a held-out prompt"),
        (made({"shuffled-weights": 0.3}), "no surrogate has a figure on every held-out prompt"),
    ],
)
def test_what_cannot_be_answered_says_why(rows: pd.DataFrame, reason: str) -> None:
    (answer,) = said(rows, MOST)
    assert not answer.answered
    assert "ould not be answered" in answer.text
    assert reason in answer.text
    assert all(isinstance(table, Table) for table in tables(rows))


def test_two_surrogates_on_four_prompts_cannot_be_told_apart() -> None:
    rows = made({"distance": 0.3, "pccmc-weights": 0.6}, prompts=4)
    assert [answer.answered for answer in answers(rows)] == [False, True, False]
    assert "an interval needs 5 held-out prompts, this run has 4" in said(rows, MOST)[0].text


def test_a_surrogate_without_a_value_somewhere_is_not_ranked() -> None:
    rows = made({"distance": 0.3, "pccmc-weights": 0.6})
    gone = (rows["surrogate"] == "pccmc-weights") & (rows["metric"] == "kl") & (rows["prompt"] == "p3")
    rows.loc[gone, "value"], rows.loc[gone, "missing"] = pd.NA, "infinite"
    (answer,) = said(rows, MOST)
    assert answer.text.startswith("m, greedy: distance explains 3")
    assert "Not ranked, as KL is missing somewhere: pccmc-weights" in answer.text


def test_the_heads_explained_least_are_named_and_their_kind() -> None:
    (answer,) = said(made({"distance": 0.6}, of_head={0: 0.5, 6: 0.3}), LEAST)
    assert "heads 0.0 (" in answer.text
    assert "distance), 1.2 (" in answer.text
    assert re.search(r" % \[\d+, \d+\], 1 head\) are explained least", answer.text)
    assert "induction heads (" in answer.text
    assert "content heads (59 %" in answer.text
    assert answer.estimate is not None
    assert answer.estimate.value == pytest.approx(0.1, abs=0.02)


def test_what_is_worse_than_counting_is_found() -> None:
    (answer,) = said(made({"distance": 0.3, "ccmc-weights": -0.5, "shuffled-weights": -0.8}), WORSE)
    assert re.match(r"m, greedy: ccmc-weights \(-(49|50|51) % \[", answer.text)
    assert "is worse than counting" in answer.text
    assert "Controls that are: shuffled-weights (-80 %" in answer.text
    assert "In each of 8 heads at least one surrogate explains more" in answer.text
    (answer,) = said(made({"distance": 0.3}, of_head={1: 0.6, 2: 0.6}), WORSE)
    assert "no surrogate is worse than counting" in answer.text
    assert "In 2 of 8 heads no surrogate explains more than counting" in answer.text
    (answer,) = said(made({"distance": 0.0}, noise=0.1), WORSE)
    assert "No difference to counting was found for distance (" in answer.text


def test_a_fit_is_held_against_what_it_is_shrunk_to() -> None:
    better, worse = {"ccmc-weights": 0.3, "ccmc-fit": 0.5}, {"ccmc-weights": 0.5, "ccmc-fit": 0.3}
    (answer,) = said(made(better), SHRUNK)
    assert answer.answered
    assert "larger than that of ccmc-weights in none of 8 heads" in answer.text
    assert "nats less" in answer.text
    (answer,) = said(made(worse), SHRUNK)
    assert "in 8 of 8 heads, beyond chance in 8" in answer.text
    assert "nats more" in answer.text
    (answer,) = said(made(better, prompts=6), SHRUNK)
    assert not answer.answered
    assert "6 held-out prompts are too few for a test of 8 heads" in answer.text
    (answer,) = said(made({"ccmc-fit": 0.5}), SHRUNK)
    assert not answer.answered
    assert "ccmc-weights was not run" in answer.text
    assert said(made({"distance": 0.5}), SHRUNK) == []


def test_a_figure_without_spread_over_prompts_differs_from_none() -> None:
    rows = made({"distance": 0.5, "ccmc-weights": 0.5}, noise=0.0)
    assert "explains the same on every prompt" in said(rows, MOST)[0].text


def several() -> pd.DataFrame:
    names = ("distance", "shuffled-weights", "ccmc-weights", "pccmc-weights", "ccmc-fit", "pccmc-fit")
    shares = {name: 0.1 * place for place, name in enumerate(names)}
    return pd.concat(
        [
            made(shares, prompts=6, model=model, strategy=strategy)
            for model in ("one", "two", "three")
            for strategy in ("greedy", "temperature=1")
        ]
    )


def test_tables_are_typed_and_the_headline_is_small() -> None:
    for rows in (made({"distance": 0.3, "ccmc-weights": 0.1, "ccmc-fit": 0.2}), several()):
        found = tables(rows)
        assert [table.headline for table in found] == [True] + [False] * (len(found) - 1)
        assert len({table.name for table in found}) == len(found)
        assert all(table.name.startswith("heads.") for table in found)
        for table in found:
            assert all(len(row) == len(table.columns) for row in table.rows)
            assert not any("\n" in cell for row in table.rows for cell in row if isinstance(cell, str))
        headline = found[0]
        assert len(headline.rows) <= 12
        assert len(headline.columns) <= 7
        assert max(len(plain(line)) for line in layout(headline, 100)) <= 100


def test_a_headline_of_many_keeps_the_best_and_counts() -> None:
    rows = several()
    found = tables(rows)
    assert found[0].column("surrogate") == ["counts", "pccmc-fit"] * 6
    assert "12 of 42 lines; all are in heads.explained" in found[0].caption
    assert len(named(found, "heads.explained").rows) == 42
    one = tables(rows[rows["model"] == "one"])[0]
    ladder = ["counts", "distance", "ccmc-weights", "pccmc-weights", "ccmc-fit", "pccmc-fit"]
    assert one.column("surrogate") == ladder * 2  # the control is the one that is left out


def test_explained_pools_over_queries_not_over_heads() -> None:
    rows = Rows(experiment="heads", model="m", strategy="greedy", split="held_out", layer=0)
    for head, n in ((0, 10), (1, 30)):
        for index in range(6):
            shared: dict[str, Any] = {"prompt": f"p{index}", "head": head, "n": n}
            rows.add("kl", 1.0 + head, surrogate="counts", **shared)
            rows.add("kl", 0.5, surrogate="ccmc-fit", **shared)
        rows.add("explained", 1 - 0.5 / (1 + head), surrogate="ccmc-fit", head=head, n=6 * n)
    found = tables(rows.frame())
    # 1 - (10 * .5 + 30 * .5) / (10 * 1 + 30 * 2), the same for every prompt: no spread, no interval
    expected = [0.0, pytest.approx(1 - 20 / 70)]
    for name in ("heads.summary", "heads.explained"):
        cells = named(found, name).column("explained")
        assert [cell.value for cell in cells if isinstance(cell, Interval)] == expected
    (layer,) = named(found, "heads.by-layer").rows
    assert layer[0] == 0
    assert layer[1] == pytest.approx(1.5)  # mean KL of counts


def test_a_layer_that_counts_explain_to_rounding_has_no_share() -> None:
    rows = made({"distance": 0.3, "ccmc-weights": 0.1})
    flat = (rows["layer"] == 1) & (rows["metric"] == "kl")
    rows.loc[flat, "value"] = 1e-9
    table = named(tables(rows), "heads.by-layer")
    first, second = (
        row[table.columns.index(next(c for c in table.columns if c.name == "distance"))] for row in table.rows
    )
    assert isinstance(first, Interval)
    assert first.value == pytest.approx(0.3, abs=0.02)
    assert isinstance(second, Interval)
    assert second.value is None
    assert second.missing == "counts alone predict these queries to 1e-06 nats"


def test_a_long_ranking_shows_both_ends() -> None:
    rows = Rows(experiment="heads", model="m", strategy="s", split="held_out")
    for head in range(FIRST + LAST + 4):
        rows.add("kl", 1.0, layer=0, head=head, surrogate="counts", prompt="p", n=1)
        for name, value in (("distance", 0.01 * head), ("ccmc-fit", 0.02 * head - 0.05), ("shuffled-weights", 0.9)):
            rows.add("explained", value, layer=0, head=head, surrogate=name, low=value - 0.1, high=value + 0.1, n=1)
    (table,) = head_tables(rows.frame())
    assert table.column("head") == [f"0.{h}" for h in [*range(23, 8, -1), *range(4, -1, -1)]]
    assert table.column("rank") == [*range(1, 16), *range(20, 25)]
    assert "up to 4 heads in the middle are left out" in table.caption
    best = table.column("best")
    assert best[0] == "ccmc-fit"  # the control is no answer
    assert best[-1] == "distance"
    most = table.column("explained")[0]
    assert isinstance(most, Interval)
    assert (most.value, most.low, most.high) == pytest.approx((0.41, 0.31, 0.51))
    assert table.column("second")[0] == "distance"
    assert table.column("by second")[0] == pytest.approx(0.23)


def test_kinds_are_counted_and_their_best_surrogates() -> None:
    rows = made({"distance": 0.5, "ccmc-weights": 0.1, "shuffled-weights": 0.9})
    table = named(tables(rows), "heads.by-kind")
    assert set(table.column("kind")) <= set(KINDS)
    found = {(row[0], row[2]): row for row in table.rows}
    assert found["induction", "distance"][1] == 1
    assert found["content", "distance"][1] == 7
    assert found["content", "distance"][4] == 7
    assert found["content", "ccmc-weights"][4] == 0
    assert found["content", "shuffled-weights"][4] is None
    median = found["content", "distance"][3]
    assert isinstance(median, Interval)
    assert median.value == pytest.approx(0.5, abs=0.02)


def test_one_held_out_prompt_gives_no_interval_over_heads() -> None:
    rows = made({"distance": 0.5, "ccmc-weights": 0.1}, prompts=1)
    found = tables(rows)
    medians = [
        *named(found, "heads.summary").column("median head"),
        *named(found, "heads.by-kind").column("median head"),
    ]
    cells = [cell for cell in medians if isinstance(cell, Interval)]
    assert len(cells) > 3
    for cell in cells:
        assert cell.value is not None
        assert (cell.low, cell.high, cell.missing) == (None, None, "1 unit: fewer than 5 cannot carry an interval")
    enough = named(tables(made({"distance": 0.5}, prompts=6)), "heads.summary").column("median head")
    assert [cell.n for cell in enough if isinstance(cell, Interval) and cell.low is not None] == [6]


def test_the_interval_of_the_median_head_is_over_prompts() -> None:
    """Heads that differ widely and prompts that agree: the median of these heads is well known."""
    apart = {head: 0.1 * head for head in range(8)}
    (cell,) = named(tables(made({"distance": 0.9}, of_head=apart, noise=0.002)), "heads.summary").column("median head")[
        1:
    ]
    assert isinstance(cell, Interval) and cell.low is not None and cell.high is not None
    assert cell.value == pytest.approx(0.55, abs=0.01)
    assert cell.high - cell.low < 0.01
    assert cell.n == 12
    for kind in named(tables(made({"distance": 0.9}, of_head=apart, noise=0.002)), "heads.by-kind").rows:
        assert isinstance(kind[3], Interval) and kind[3].n == 12


def test_figures_are_drawn_when_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.concat([made({"distance": 0.5, "ccmc-fit": -0.1}, strategy=name) for name in ("greedy", "temperature=1")])
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "matplotlib.figure", None)  # nothing can be drawn
        made_early = figures(rows, pd.DataFrame())
        with pytest.raises(ImportError):
            made_early[0].draw()
    names = [figure.name for figure in made_early]
    strategies = ("greedy", "temperature=1")
    kinds = [f"heads-{what}-m-{strategy}" for strategy in strategies for what in ("explained", "kinds")]
    assert names == ["heads-pooled", *kinds]
    for figure in made_early:
        texts = [svg(figure.name, figure.draw()) for _ in range(2)]
        assert texts[0] == texts[1]
        assert ("what each head attends to" in texts[0]) == ("kinds" in figure.name)
    assert figures(rows.iloc[:0], pd.DataFrame()) == []


def svg(name: str, drawn: Any) -> str:
    out = io.StringIO()
    with context(name):
        drawn.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def test_maps_hold_what_heads_have() -> None:
    maps, layers = explained_maps(heads_of(made({"ccmc-fit": 0.2, "distance": 0.5}, of_head={5: 0.4}), "m", "greedy"))
    assert list(maps) == ["distance", "ccmc-fit"]  # in the order of the ladder
    assert layers == [0, 1]
    assert maps["distance"][1, 1] == pytest.approx(0.1, abs=0.02)
    assert maps["distance"][0, 3] == pytest.approx(0.5, abs=0.02)
