"""The factors that lead the rows of a table, such as model and strategy: columns where they vary, else words."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.records import Cell, Column


class Leading:
    """Which of some factors vary over a table.

    Args:
        names: of the factors, such as ("model", "strategy").
        keys: the values of each row or group of rows, one per factor.
    """

    def __init__(self, names: Sequence[str], keys: Sequence[tuple[str, ...]]) -> None:
        self._varies = [len({key[place] for key in keys}) > 1 for place in range(len(names))]
        self._names = tuple(names)
        self._first = keys[0] if keys else ()
        self._keys = keys

    @property
    def columns(self) -> list[Column]:
        """A column for each factor that varies."""
        return [Column(name, left=True) for name, varies in zip(self._names, self._varies, strict=True) if varies]

    def cells(self, key: tuple[str, ...]) -> list[Cell]:
        """The cells of these columns."""
        return [value for value, varies in zip(key, self._varies, strict=True) if varies]

    @property
    def same(self) -> str:
        """The values that do not vary, for a title: "smollm2-135m, greedy"; how many there are of a first that does."""
        fixed = [value for value, varies in zip(self._first, self._varies, strict=False) if not varies]
        if self._varies and self._varies[0]:
            fixed.insert(0, f"{len({key[0] for key in self._keys})} {self._names[0]}s")
        return ", ".join(fixed)


def counted(numbers: Sequence[int], what: str) -> str:
    """How many units the figures of a table have: "19 held-out prompts", or "15 to 19 held-out prompts".

    Args:
        numbers: one per group of rows.
        what: of the units, in the singular.
    """
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{high} {what}{'' if high == 1 else 's'}" if low == high else f"{low} to {high} {what}s"
