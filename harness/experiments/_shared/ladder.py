"""Nested ladders of statistics, as configs write them: every entry adds one statistic, or several joined by `+`."""

from __future__ import annotations

from collections.abc import Sequence

from ccmc.context_logit import statistics_weights


def split(entry: str) -> list[str]:
    """The statistics of one entry of the ladder."""
    return [name.strip() for name in entry.split("+")]


def statistics_of(ladder: Sequence[str]) -> list[str]:
    """The statistics of all entries, in their order."""
    return [name for entry in ladder for name in split(entry)]


def rungs(ladder: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Name of each rung, which is what it adds -> all its statistics."""
    found: dict[str, tuple[str, ...]] = {}
    so_far: tuple[str, ...] = ()
    for entry in ladder:
        so_far = (*so_far, *split(entry))
        found[" + ".join(split(entry))] = so_far
    return found


def checked_ladder(ladder: tuple[str, ...]) -> tuple[str, ...]:
    """The ladder itself.

    Raises:
        ValueError: a statistic that there is none of, or one that is named twice.
    """
    every = statistics_of(ladder)
    statistics_weights(every)
    if len(set(every)) < len(every):
        raise ValueError(f"a statistic is named twice: {', '.join(every)}")
    return ladder
