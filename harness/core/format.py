"""Numbers, intervals and file names as text: one rule for decimals, no more digits than an interval supports."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from harness.core.records import Interval


def _text(value: float, scale: float, signed: bool) -> str:
    """A number with the decimals that three digits of `scale` need; without a minus sign where it is shown as 0."""
    if not math.isfinite(value) or scale == 0:
        return f"{value:g}"
    digit = math.floor(math.log10(scale))
    if not -4 <= digit < 5:
        return f"{value:{'+' if signed else ''}.1e}" if value else "0"
    decimals = max(2 - digit, 0) if digit >= 0 else max(3, 2 - digit if digit < -2 else 3)
    shown = round(value, decimals) + 0.0
    return f"{shown:{'+' if signed and shown > 0 else ''}.{decimals}f}"


def number(value: float | None, signed: bool = False) -> str:
    """Three digits; a dash where there is no value."""
    return "–" if value is None or math.isnan(value) else _text(value, abs(value), signed)


def interval(found: Interval, signed: bool = False) -> str:
    """Value and interval with the same decimals, such as `0.512 [0.471, 0.550]`."""
    if found.value is None:
        return "–"
    if found.low is None or found.high is None:
        return number(found.value, signed)
    scale = max(abs(found.value), abs(found.low), abs(found.high))
    value, low, high = (_text(part, scale, signed) for part in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def percent(found: Interval) -> str:
    """A share in percent, with the decimals that its interval supports, such as `51 % [43, 56]`."""
    if found.value is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{100 * found.value:.{0 if abs(found.value) >= 0.1 else 1}f} %"
    width = found.high - found.low
    decimals = 0 if width >= 0.02 else 1 if width >= 0.002 else 2
    value, low, high = (
        f"{round(100 * part, decimals) + 0.0:.{decimals}f}" for part in (found.value, found.low, found.high)
    )
    return f"{value} % [{low}, {high}]"


def listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them: "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def file_safe(text: str) -> str:
    """A text without signs that a file system or a shell reads, such as "temperature=0.7-top_p=0.9"."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", text).strip("-")
