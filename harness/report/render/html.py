"""Tables as HTML, by the same macro that the report uses; every text is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.records import Table
from harness.report.render.cells import body, caption

TEMPLATES = Path(__file__).parents[1] / "templates"


def environment() -> Any:
    """The templates of the project: texts are escaped, a name that is not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.globals.update(cells=body, caption_of=caption)
    return made


def to_html(table: Table) -> str:
    """A `<figure>` with title, table and caption; marked cells in bold."""
    macro: Any = environment().get_template("table.html.j2").module
    return str(macro.table(table)).strip() + "\n"
