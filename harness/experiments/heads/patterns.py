"""Patterns of each head, which decide its kind."""

from __future__ import annotations

from typing import Any

import torch

from harness.core.rows import Rows
from harness.measures.head_kinds import PATTERNS
from harness.measures.head_patterns import PatternSums, content_scores


class Patterns:
    """Rows of the pattern scores of heads, per held-out text.

    Args:
        rows: where they go.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._prefixes: dict[tuple[str, int], list[torch.Tensor]] = {}

    def add(self, sums: PatternSums, layer: int, strategy: str, prompt: str) -> None:
        """Add the scores of one layer over one text."""
        found = sums.scores()
        shared: dict[str, Any] = {"strategy": strategy, "layer": layer, "prompt": prompt}
        for name in PATTERNS:
            if name not in found:
                self.rows.add(name, None, missing="no query of the text could show it", surrogate="model", **shared)
                continue
            values, even, n = found[name]
            self.rows.add(name, even, surrogate="counts", n=n, **shared)
            for head, value in enumerate(values.tolist()):
                self.rows.add(name, value, head=head, surrogate="model", n=n, **shared)
        if sums.long_enough:
            self._prefixes.setdefault((strategy, layer), []).append(sums.prefix)

    def content(self, seed: int) -> None:
        """Add the content score of every head, over all texts."""
        for (strategy, layer), prefixes in self._prefixes.items():
            shared: dict[str, Any] = {"strategy": strategy, "layer": layer, "surrogate": "model"}
            if len(prefixes) < 2:
                self.rows.add("content_score", None, missing="fewer than two texts to tell apart", **shared)
                continue
            for head, found in enumerate(content_scores(prefixes, seed)):
                self.rows.add(
                    "content_score",
                    found.value,
                    missing=found.missing if found.value is None else None,
                    low=found.low,
                    high=found.high,
                    n=found.n,
                    head=head,
                    **shared,
                )
