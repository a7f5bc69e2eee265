"""The one style of all figures: colours, markers, fonts, and text that stays text.

Every function that draws is `styled`; whoever saves a figure does so within `context`, so that ticks which are made
late have the style too.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

P = ParamSpec("P")

INK = "#010203"
"""Of text, axes and rules: nearly black, and found in an SVG to be replaced by the colour of the text around it."""
WIDTH = 7.2
"""Inches: a text block of a page."""
BLACK = "#000000"
"""What everything is compared with: the model itself, or theory."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933", "#777777")
"""Of series, in their order. They differ for colour-blind readers and in grey; the first six are of Okabe and Ito,
"Color Universal Design", 2008."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a name such as `$x` is no formula
    "text.usetex": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    "svg.hashsalt": "ccmc",  # the same rows give the same file
    "svg.fonttype": "none",  # text stays text
}
_RAISED = str.maketrans("-+0123456789", "⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹")


def series(index: int) -> dict[str, str]:
    """Colour and marker of a series, as arguments of matplotlib's functions.

    Args:
        index: its place among the series of a figure, from 0; the first 72 are all different.
    """
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


_ANSWERS: ContextVar[bool] = ContextVar("answers", default=False)
_SAID = "said-"


@contextmanager
def context(name: str = "ccmc", answers: bool = False) -> Iterator[None]:
    """The style, for drawing and saving.

    Args:
        name: of the figure; the ids inside its SVG depend on it and on nothing else.
        answers: will places of the figure say what they are when they are pointed at?
    """
    from matplotlib import rc_context

    token = _ANSWERS.set(answers)
    try:
        with rc_context({**STYLE, "svg.hashsalt": name}):
            yield
    finally:
        _ANSWERS.reset(token)


def answering() -> bool:
    """Is a figure being drawn whose places say what they are?"""
    return _ANSWERS.get()


def saying(artist: Artist, text: str, head: str = "") -> None:
    """What an artist says when it is pointed at; see `with_titles`.

    Args:
        artist: is drawn as one group of the SVG.
        text: is escaped later.
        head: which it stands for, as `layer.head`.
    """
    said = json.dumps([text, head]).encode()
    artist.set_gid(_SAID + urlsafe_b64encode(said).decode().rstrip("="))


def saying_at(artist: Artist, label: str, x: float, text: str) -> None:
    """As `saying`, of a point: once the figure is drawn, its place is called by the label of the axis where it has one.

    Args:
        artist: is drawn as one group of the SVG.
        label: of the series; may be empty.
        x: of the point.
        text: what is there.
    """
    artist.ccmc_point = (label, x, text)  # type: ignore[attr-defined]


def _name_places(figure: Figure) -> None:
    from matplotlib.ticker import FixedLocator

    for axes in figure.axes:
        points = [(one, one.ccmc_point) for one in axes.get_children() if hasattr(one, "ccmc_point")]
        fixed = isinstance(axes.xaxis.get_major_locator(), FixedLocator)
        labels = [one.get_text() for one in axes.get_xticklabels()] if points and fixed else []
        ticks = list(zip(map(float, axes.get_xticks()), labels, strict=True)) if labels and all(labels) else []
        for artist, (label, x, text) in points:
            place = min(ticks, key=lambda tick: abs(tick[0] - x))[1] if ticks else f"{x:.4g}"
            saying(artist, f"{label}, at {place}: {text}" if label else f"at {place}: {text}")


def laid_out(figure: Figure) -> Figure:
    """A figure whose parts are placed, so that saving it as SVG draws it once, not twice; the bytes are the same.

    Args:
        figure: is changed, to what saving it as SVG would have made of it; returned.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    figure.dpi = 72
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    return figure


def with_titles(svg: str) -> str:
    """An SVG in which every artist that says something has a title, and the class `said`; a head is in `data-head`."""

    def titled(found: re.Match[str]) -> str:
        text, head = json.loads(urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
        of = f' data-head="{escape(head)}"' if head else ""
        return f'<g class="said"{of}><title>{escape(text)}</title>'

    return re.sub(rf'<g id="{_SAID}([\w-]+)">', titled, svg)


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in this style."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with context(answers=answering()):
            figure = draw(*args, **kwargs)
            _plain_powers(figure)
            _name_places(figure)
            return figure

    return wrapped


def _plain_power(text: str) -> str:
    """A label of a logarithmic axis without formula signs: `10⁻³`."""
    found = re.fullmatch(r"\$\\mathdefault\{(.*)\}\$", text)
    if found is None:
        return text
    plain = found[1].replace(r"\times", "×")
    return re.sub(r"\^\{([-+\d]+)\}", lambda power: power[1].translate(_RAISED), plain)


def _plain_powers(figure: Figure) -> None:
    """Give logarithmic axes labels that are right where text is never read as a formula."""
    from matplotlib.ticker import Formatter, LogFormatterMathtext

    class Plain(Formatter):
        def __init__(self, inner: LogFormatterMathtext) -> None:
            self.inner = inner

        def set_axis(self, axis: Any) -> None:
            super().set_axis(axis)
            self.inner.set_axis(axis)

        def set_locs(self, locs: Any) -> None:
            self.inner.set_locs(locs)

        def __call__(self, x: float, pos: int | None = None) -> str:
            return _plain_power(self.inner(x, pos))

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(major := axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter(Plain(major))
            if isinstance(minor := axis.get_minor_formatter(), LogFormatterMathtext):
                axis.set_minor_formatter(Plain(minor))
