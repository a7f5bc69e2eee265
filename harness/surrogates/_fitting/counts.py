"""The share of the counts: every token of the context is as likely as it is frequent."""

from __future__ import annotations

from harness.data.texts import FloatArray, Text


def count_shares(text: Text) -> FloatArray:
    """[1, n, U] the counts of each context over their sum."""
    rows: FloatArray = text.counts / text.counts.sum(axis=1, keepdims=True)
    return rows[None]
