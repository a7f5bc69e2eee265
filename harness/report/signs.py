"""Signs that an output lacks, as readable ASCII: a terminal in the C locale, latin-1, a Windows code page.

`readable` is for text that is laid out afterwards, so that widths are right; the error handler `FALLBACK` of a stream
takes what is left, so that nothing ends in a traceback.
"""

from __future__ import annotations

import codecs
import unicodedata
from functools import cache

FALLBACK = "ccmc-readable"
"""The error handler of streams: what an encoding lacks is written as `spelled` gives it."""
ASCII = "ccmc_ascii"
"""ASCII by another name: a library below the command line writes UTF-8 into whatever calls itself ASCII."""

_SPELLED = {
    "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "―": "-", "−": "-", "×": "x", "÷": "/", "±": "+-", "∓": "-+",
    "·": "*", "•": "*", "∙": "*", "⋅": "*", "∘": "o", "⁄": "/", "∕": "/", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~",
    "≃": "~", "∼": "~", "≡": "==", "≪": "<<", "≫": ">>", "∝": "~", "∞": "inf", "√": "sqrt", "∑": "sum", "∏": "prod",
    "∫": "int", "∂": "d", "∇": "grad", "∈": "in", "∉": "not in", "∅": "{}", "∩": "and", "∪": "or", "∥": "||",
    "→": "->", "←": "<-", "↔": "<->", "⇒": "=>", "⇐": "<=", "⇔": "<=>", "↑": "^", "↓": "v", "↦": "->", "⟶": "->",
    "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "‚": "'", "«": "<<", "»": ">>", "‹": "<", "›": ">",
    "°": "deg", "§": "S", "¶": "P", "©": "(c)", "®": "(r)", "€": "EUR", "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe",
    "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "þ": "th", "ı": "i",
    "✓": "v", "✔": "v", "✗": "x", "✘": "x", "✅": "ok", "❌": "x", "⚠": "!", "µ": "u",
    "⟨": "<", "⟩": ">", "‖": "||", "†": "+", "‡": "++", "★": "*", "☆": "*",
}  # fmt: skip


def _drawn(name: str) -> str:
    """A sign by its Unicode name: lines of boxes, blocks, dots of a spinner, Greek letters; empty for all others."""
    words = name.split()
    if name.startswith("BOX DRAWINGS"):
        across = "HORIZONTAL" in words and not {"VERTICAL", "UP", "DOWN"} & set(words)
        down = "VERTICAL" in words and not {"HORIZONTAL", "LEFT", "RIGHT"} & set(words)
        return ("=" if "DOUBLE" in words else "-") if across else "|" if down else "+"
    if name.startswith("BRAILLE PATTERN"):
        return "*"
    if words[-1:] == ["BLOCK"] or name.endswith("SHADE"):
        return "#"
    if name.startswith("GREEK") and "LETTER" in words:
        letter = words[words.index("LETTER") + 1]
        letter = words[-1] if letter == "FINAL" else letter
        return letter.capitalize() if "CAPITAL" in words else letter.lower()
    return ""


@cache
def spelled(sign: str) -> str:
    """One sign as readable ASCII; a question mark where there is nothing better.

    Args:
        sign: one character that an encoding lacks.
    """
    if sign.isascii():
        return sign
    if known := _SPELLED.get(sign) or _drawn(unicodedata.name(sign, "")):
        return known
    if unicodedata.combining(sign) or unicodedata.category(sign) == "Mn":
        return ""
    parts = unicodedata.decomposition(sign)
    if not parts:
        return "?"
    made = "".join(spelled(part) for part in unicodedata.normalize("NFKD", sign) if part != sign)
    return f"^{made}" if parts.startswith("<super>") else made or "?"


def _handle(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(spelled, error.object[error.start : error.end])), error.end


def _codec(name: str) -> codecs.CodecInfo | None:
    if name != ASCII:
        return None
    found = codecs.lookup("ascii")
    return codecs.CodecInfo(
        found.encode, found.decode, found.streamreader, found.streamwriter,
        found.incrementalencoder, found.incrementaldecoder, name=ASCII,
    )  # fmt: skip


codecs.register_error(FALLBACK, _handle)
codecs.register(_codec)


def readable(text: str, encoding: str | None) -> str:
    """Text in which every sign can be written in an encoding.

    Args:
        text: any text.
        encoding: of a stream; None or one that is unknown changes nothing.
    """
    if text.isascii() or not encoding:
        return text
    try:
        return text.encode(encoding, FALLBACK).decode(encoding)
    except LookupError:
        return text


def is_ascii(encoding: str | None) -> bool:
    """Is this ASCII, whatever it is called, so that a library would write UTF-8 in its place?"""
    try:
        return codecs.lookup(encoding or "ascii").name == "ascii"
    except LookupError:
        return False


def is_utf(encoding: str | None) -> bool:
    """Can this encoding write every sign? One that is not known is taken to."""
    return encoding is None or encoding.lower().startswith("utf")
