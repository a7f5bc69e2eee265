"""Statistics of a context, computed from the sequence when they are read: counts, order, what followed the last tokens.

The paper's chain reads counts and the query alone. A surrogate that reads more says so in its declaration (`sees=`).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from harness.data.texts import FloatArray, IntArray, Text


class Statistics:
    """What the context of each query along a text says; columns are the types of the text.

    Args:
        text: the token sequence and its queries.
    """

    def __init__(self, text: Text) -> None:
        self.text = text

    @property
    def query(self) -> IntArray:
        """[n] the column of each query token."""
        return self.text.query

    @property
    def counts(self) -> FloatArray:
        """[n, U] how often each type stands in the context, the query itself included."""
        return self.text.counts

    @cached_property
    def age(self) -> FloatArray:
        """[n, U] how many positions ago each type came last: 0 for the query, infinite outside the context."""
        text, columns = self.text, np.arange(len(self.text.types))
        came = np.where(text.key_index[:, None] == columns, np.arange(len(text.key_index))[:, None], -1)
        last = np.maximum.accumulate(came, axis=0)[text.positions - text.first]
        ages = (text.positions - text.first)[:, None] - last
        return np.where(text.counts > 0, ages, np.inf)

    def followed(self, length: int) -> FloatArray:
        """[n, U] how often each type has followed the last `length` tokens before, within the context of each query."""
        text = self.text
        size = len(text.types)
        table: dict[tuple[int, ...], FloatArray] = {}
        rows = np.zeros((len(text), size))
        row_at = {int(position) - text.first: row for row, position in enumerate(text.positions)}
        columns = text.key_index.tolist()
        for index, column in enumerate(columns):
            if index >= length:
                table.setdefault(tuple(columns[index - length : index]), np.zeros(size))[column] += 1.0
            if index in row_at and index + 1 >= length:
                found = table.get(tuple(columns[index + 1 - length : index + 1]))
                if found is not None:
                    rows[row_at[index]] = found
        return rows
