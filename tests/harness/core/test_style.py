"""The style of figures: text is text, logarithmic axes are readable, and the same figure gives the same bytes."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from harness.core.records import Interval
from harness.core.style import COLOURS, INK, MARKERS, context, laid_out, series, styled, with_titles
from harness.experiments._shared.drawing import dot_plot, figure_of, heat_maps, points, saying_cells


@styled
def drawn(name: str) -> Any:
    figure, (axis,) = figure_of(4.0, 3.0)
    found = [Interval(0.001, 0.0005, 0.01, 9), Interval(None, None, None, 0), Interval(1.0, None, None, 2)]
    points(axis, [1.0, 2.0, 3.0], found, 0, name)
    axis.set(title=name, yscale="log")
    axis.legend()
    return figure


def svg(figure: Any, name: str) -> str:
    out = io.StringIO()
    with context(name):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def test_names_are_no_formulas_and_powers_are_readable() -> None:
    text = svg(drawn("$x and $y"), "one")
    assert ">$x and $y</text>" in text
    assert ">10⁻³</text>" in text
    assert "mathdefault" not in text
    assert INK in text


def test_the_same_figure_has_the_same_bytes_and_another_name_has_other_ids() -> None:
    assert svg(drawn("a"), "one") == svg(drawn("a"), "one")
    assert svg(drawn("a"), "one") != svg(drawn("a"), "two")


def test_no_two_series_look_alike() -> None:
    looks = {tuple(series(index).values()) for index in range(len(COLOURS) * len(MARKERS))}
    assert len(looks) == len(COLOURS) * len(MARKERS)


def test_estimates_and_maps_name_what_they_show() -> None:
    estimates = [("counts", Interval(0.0, None, None, 3)), ("ccmc-fit", Interval(0.5, 0.4, 0.6, 9))]
    text = svg(dot_plot({"greedy": estimates, "temperature=1": estimates}, "explained", zero=True), "dots")
    assert all(f">{name}</text>" in text for name in ("counts", "ccmc-fit", "greedy", "temperature=1", "explained"))
    maps = {f"surrogate-{index}": np.array([[0.5, -2.0], [np.nan, 1.0]]) for index in range(5)}
    figure = heat_maps(maps, [0, 3])
    shown = [axis.get_title() for axis in figure.axes if axis.get_visible() and axis.get_title()]
    assert shown == list(maps)


@styled
def pointed_at() -> Any:
    figure, (axis,) = figure_of(4.0, 3.0)
    found = [Interval(0.5, 0.4, 0.6, 9), Interval(None, None, None, 0), Interval(2.0, None, None, 3)]
    points(axis, [1, 2, 3], found, 0, "a <b>")
    saying_cells(axis, {(4, 1): "'most'"}, [3, 4])
    return figure


@styled
def with_named_places() -> Any:
    figure, (axis,) = figure_of(4.0, 3.0)
    points(axis, [0.9, 2.1], [Interval(0.5, 0.4, 0.6, 9), Interval(2.0, None, None, 3)], 0, "walks")
    axis.set_xticks([1, 2], ["counts", "followed-by-1"])
    return figure


def test_places_with_names_are_called_by_them() -> None:
    with context(answers=True):
        figure = with_named_places()
    assert re.findall(r"<title>(.*?)</title>", with_titles(svg(figure, "x"))) == [
        "walks, at counts: 0.500 [0.400, 0.600]",
        "walks, at followed-by-1: 2.00",
    ]


def test_places_say_what_they_are_where_somebody_can_ask() -> None:
    assert "said" not in with_titles(svg(pointed_at(), "x"))
    with context(answers=True):
        figure = pointed_at()
    text = with_titles(svg(figure, "x"))
    assert re.findall(r'<g class="said"( data-head="[^"]*")?><title>(.*?)</title>', text) == [
        ("", "a &lt;b&gt;, at 1: 0.500 [0.400, 0.600]"),
        ("", "a &lt;b&gt;, at 3: 2.00"),
        (' data-head="4.1"', "head 4.1: &#x27;most&#x27;"),
    ]
    assert "said-" not in text


def test_a_figure_that_is_laid_out_before_is_saved_as_the_same_bytes() -> None:
    def saved(before: bool, layout: str) -> bytes:
        out = io.BytesIO()
        with context("same"):
            figure = Figure(figsize=(4, 3), layout=layout)
            for axes in figure.subplots(1, 2):
                axes.plot([1, 10, 100], [0.1, 0.2, 0.3], label="a label")
                axes.set_title("a title\nof two lines")
                axes.set_ylabel("long label")
            figure.legend()
            (laid_out(figure) if before else figure).savefig(out, format="svg", metadata={"Date": None})
        return out.getvalue()

    for layout in ("constrained", "tight", "none"):
        assert saved(True, layout) == saved(False, layout)
