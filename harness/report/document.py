"""One HTML document that needs nothing else: its style, its one script, its data, and a policy that allows no request.

Every text goes through the template's escaping, data through JSON without `<`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.report.render.html import TEMPLATES, environment
from harness.runs.writing import now, write_atomic


def safe_json(value: Any) -> str:
    """JSON that is safe inside a `<script>`: no sign in it can end the element or start another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def render(template: str, **content: Any) -> str:
    """One document that needs nothing else: a template with its style, its script and its content.

    Args:
        template: its name in the folder of templates.
        **content: the variables of the template; texts are escaped.
    """
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8").strip()
    page: str = (
        environment()
        .get_template(template)
        .render(
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            style=re.sub(r"\n\s*", "\n", (TEMPLATES / "report.css").read_text(encoding="utf-8")),
            made=now(),
            **content,
        )
    )
    return page


def write_page_file(path: Path, page: Callable[[], str]) -> None:
    """Write a page to a file, as a whole or not at all; it is made only where it can be written.

    Raises:
        UsageError: a folder, or a place that cannot be written to.
    """
    if path.is_dir():
        raise UsageError(f"--output {path}: is a folder; name a file such as report.html")
    text = page()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode(errors="backslashreplace"))  # paths may hold what is no text
    except OSError as error:
        raise UsageError(f"--output {path}: cannot be written: {error.strerror}; name a file elsewhere") from None
