"""The same pivot for the terminal, Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable

from harness.analysis.pivot import Cell, Pivot, column_names
from harness.core.format import interval

FORMATS = ("rich", "markdown", "latex", "csv", "html")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--",
}  # fmt: skip


def _header(pivot: Pivot) -> list[str]:
    return [*pivot.row_factors, *column_names(pivot)]


def _body(pivot: Pivot, bold: Callable[[str], str], plain: Callable[[str], str]) -> list[list[str]]:
    def shown(cell: Cell | None) -> str:
        if cell is None:
            return plain("–")
        text = plain(interval(cell.interval))
        return bold(text) if cell.best else text

    return [
        [*map(plain, row), *(shown(pivot.cells.get((row, column))) for column in pivot.columns)] for row in pivot.rows
    ]


def _escape_markdown(text: str) -> str:
    for sign in "\\|*_`<>":
        text = text.replace(sign, "\\" + sign)
    return text.replace("\n", " ")


def markdown(pivot: Pivot) -> str:
    """A GitHub table, the best in **bold**."""
    body = _body(pivot, lambda text: f"**{text}**", _escape_markdown)
    left = len(pivot.row_factors)
    header = list(map(_escape_markdown, _header(pivot)))
    rule = [" --- " if index < left else " ---: " for index in range(len(header))]
    lines = [f"**{_escape_markdown(pivot.title)}**", "", f"| {' | '.join(header)} |", f"|{'|'.join(rule)}|"]
    lines += [f"| {' | '.join(row)} |" for row in body]
    return "\n".join([*lines, "", _escape_markdown(pivot.note)]) + "\n"


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(pivot: Pivot) -> str:
    """A `tabular` inside a `table`, the best in bold; needs the package booktabs."""
    body = _body(pivot, lambda text: rf"\textbf{{{text}}}", _escape_latex)
    left = len(pivot.row_factors)
    header = list(map(_escape_latex, _header(pivot)))
    lines = [
        r"\begin{table}",
        rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(header) - left)}}}",
        r"\toprule",
        f"{' & '.join(header)} \\\\",
        r"\midrule",
        *(f"{' & '.join(row)} \\\\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{_escape_latex(pivot.title)}. {_escape_latex(pivot.note)}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_html(pivot: Pivot) -> str:
    """A `<table>` with a caption; every text is escaped."""
    body = _body(pivot, lambda text: f"<b>{text}</b>", html.escape)
    left = len(pivot.row_factors)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in _header(pivot))
    rows = [
        "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell, tag in zip(row, tags, strict=True)) + "</tr>"
        for row in body
        for tags in [["th"] * left + ["td"] * (len(row) - left)]
    ]
    caption = f"{html.escape(pivot.title)}<br><small>{html.escape(pivot.note)}</small>"
    return "\n".join(["<table>", f"<caption>{caption}</caption>", f"<tr>{head}</tr>", *rows, "</table>"]) + "\n"


def to_csv(pivots: list[Pivot]) -> str:
    """One line per cell, every digit: table, factors, value, low, high, units, missing rows, best."""
    factors = list(dict.fromkeys(name for p in pivots for name in (*p.row_factors, *p.column_factors)))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", *factors, "value", "low", "high", "units", "missing_rows", "best"])
    for pivot in pivots:
        for row in pivot.rows:
            for column in pivot.columns:
                cell = pivot.cells.get((row, column))
                if cell is None:
                    continue
                named = dict(zip((*pivot.row_factors, *pivot.column_factors), (*row, *column), strict=True))
                found = cell.interval
                figures = ["" if x is None else repr(x) for x in (found.value, found.low, found.high)]
                counts = [found.n, cell.sample.missing, int(cell.best)]
                writer.writerow([pivot.title, *(named.get(name, "") for name in factors), *figures, *counts])
    return out.getvalue()


def render(pivots: list[Pivot], format_: str) -> str:
    """Tables as text in one of the formats but `rich`."""
    if format_ == "csv":
        return to_csv(pivots)
    return "\n".join({"markdown": markdown, "latex": latex, "html": to_html}[format_](pivot) for pivot in pivots)
