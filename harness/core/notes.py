"""Notes: what was decided about the input of a run before it started, such as a field that was set aside."""

from __future__ import annotations

from collections.abc import Iterator


class Notes:
    """Lines that a run shows when it starts and keeps in its manifest. Each line is kept once, in the order of arrival.

    Whoever reads a model folder, a tokenizer or a data file and sets something aside adds a line that says what it was,
    where it is, and how to have it otherwise.
    """

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def add(self, line: str) -> None:
        """Add one line; white space inside it becomes single blanks."""
        self._lines[" ".join(line.split())] = None

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)
