"""What the settings of several experiments share."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from harness.core.errors import nearest


def known_surrogates(names: Sequence[str], known: Collection[str]) -> None:
    """Refuse names that are not known, or listed twice.

    Raises:
        ValueError: names the nearest.
    """
    for name in names:
        if name not in known:
            raise ValueError(f"unknown surrogate {name!r}{nearest(name, known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"a surrogate is listed twice: {list(names)}")


def default_surrogates(of: str) -> tuple[str, ...]:
    """The surrogates that are fitted where a config names none: those that declare themselves so, in their order."""
    from harness.core.registry import surrogates

    return tuple(name for name, one in surrogates(of).items() if one.default)
