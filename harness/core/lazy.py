"""Rows of a table that take seconds to make: they are made when they are first looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

from harness.core.records import Cell

Row = Sequence[Cell]


class LazyRows(Sequence[Row]):
    """A sequence of rows, made once and only when it is read.

    Args:
        make: returns the rows.
    """

    def __init__(self, make: Callable[[], list[list[Cell]]]) -> None:
        self._make = make

    @property
    def made(self) -> bool:
        """Have they been read?"""
        return "_rows" in vars(self)

    @cached_property
    def _rows(self) -> list[list[Cell]]:
        return self._make()

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]
