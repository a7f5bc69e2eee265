"""Tables as LaTeX, for the package booktabs."""

from __future__ import annotations

from harness.core.records import Table
from harness.report.render.cells import body, caption, visible

_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "\n": " ",
}  # fmt: skip


def escape(text: str) -> str:
    """Text in which no sign means anything to LaTeX."""
    return "".join(_SIGNS.get(sign, sign) for sign in text)


def to_latex(table: Table) -> str:
    """A `tabular` inside a `table`; marked cells in bold."""
    header = [escape(visible(column.header)) for column in table.columns]
    sides = "".join("l" if column.left else "r" for column in table.columns)
    title, below = escape(visible(table.title)), escape(visible(caption(table, "Bold")))
    lines = [
        r"\begin{table}",
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        f"{' & '.join(header)} \\\\",
        r"\midrule",
        *(f"{' & '.join(row)} \\\\" for row in body(table, escape, lambda text: rf"\textbf{{{text}}}")),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{title}.{' ' + below if below else ''}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
