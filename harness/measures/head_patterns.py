"""What a head looks at, by scores that others have published: previous token, induction, duplicate token, content.

Every score is taken over rows whose first position, the attention sink, is left out, as everywhere here; `sink_share`
stands beside. The published scores keep it, and take induction on repeated random tokens; here it is measured on the
texts of the run, so what even attention would score on them is reported too, as the row of `counts`.

- previous_token_score: mean attention on the token just before the query (Vig and Belinkov, "Analyzing the Structure of
  Attention in a Transformer Language Model", 2019; Elhage et al., "A Mathematical Framework for Transformer Circuits",
  2021).
- induction_score: mean attention on the tokens that followed earlier occurrences of the query's token, over queries
  that have any (prefix matching: Olsson et al., "In-context Learning and Induction Heads", 2022).
- duplicate_token_score: mean attention on earlier occurrences of the query's token, over queries that have any (Wang et
  al., "Interpretability in the Wild", 2023).
- content_score: how much of the attention on the first positions differs from text to text, 0 where it depends on the
  positions alone (attention variability: Vig and Belinkov 2019; there the first ten positions too).
- sink_share: attention on the first position (Vig and Belinkov 2019; Xiao et al., "Efficient Streaming Language Models
  with Attention Sinks", 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from harness.measures.head_kinds import PATTERNS
from harness.measures.statistics import Interval, ratio_interval

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

PREFIX = 10  # positions of the content score


class PatternSums:
    """Scores of the heads of a layer over one text, summed as its rows pass.

    Args:
        tokens: [T] ids.
        heads: H.
        window: how many positions a query sees, itself included; all by default.
    """

    def __init__(self, tokens: Sequence[int] | np.ndarray[Any, Any], heads: int, window: int | None = None) -> None:
        self._tokens = torch.as_tensor(np.asarray(tokens, dtype=np.int64))
        self._window = len(self._tokens) if window is None else window
        self._sum = {name: torch.zeros(heads, dtype=torch.float64) for name in PATTERNS}
        self._even = dict.fromkeys(PATTERNS, 0.0)
        self._queries = dict.fromkeys(PATTERNS, 0)
        self.prefix = torch.zeros(heads, PREFIX, PREFIX, dtype=torch.float64)
        """[H, key, query] attention among the positions 1 ... PREFIX."""

    def add(self, weight: torch.Tensor, low: int, start: int, heads: slice = slice(None)) -> None:
        """Add the rows of some queries.

        Args:
            weight: [H, L, B] attention without the first position, keys down, queries across; each query sums to 1.
            low: position of the first key, at least 1; every key that a query sees is there.
            start: position of the first query, at least 1.
            heads: which heads these are; blocks of the same queries follow one another from the first head on.
        """
        keys, queries = (
            torch.arange(first, first + n) for first, n in zip((low, start), weight.shape[1:], strict=True)
        )
        distance = queries[None, :] - keys[:, None]  # [L, B]
        earlier = (distance > 0) & (distance < self._window)
        asked = self._tokens[queries][None, :]
        seen = torch.minimum(queries, torch.tensor(self._window))
        found = {
            "previous_token_score": distance == 1,
            "induction_score": earlier & (self._tokens[keys - 1][:, None] == asked),
            "duplicate_token_score": earlier & (self._tokens[keys][:, None] == asked),
        }
        for name, mask in found.items():
            mask = mask & earlier
            key, query = torch.nonzero(mask, as_tuple=True)
            self._sum[name][heads] += weight[:, key.to(weight.device), query.to(weight.device)].double().sum(1).cpu()
            if not heads.start:
                self._even[name] += float((1.0 / seen[query].double()).sum())
                self._queries[name] += int(mask.any(0).sum())
        if start <= PREFIX:
            key, query = torch.nonzero((keys[:, None] <= PREFIX) & (queries[None, :] <= PREFIX), as_tuple=True)
            values = weight[:, key.to(weight.device), query.to(weight.device)].double().cpu()
            self.prefix[heads, keys[key] - 1, queries[query] - 1] = values

    def scores(self) -> dict[str, tuple[FloatArray, float, int]]:
        """Score -> [H] means, what even attention scores, and the number of queries; left out where there is none."""
        return {
            name: ((self._sum[name] / n).numpy(), self._even[name] / n, n) for name, n in self._queries.items() if n > 0
        }

    @property
    def long_enough(self) -> bool:
        """Does the text have all positions of the content score?"""
        return len(self._tokens) > PREFIX


def content_scores(prefixes: Sequence[torch.Tensor], seed: int) -> list[Interval]:
    """The share of attention that differs from text to text, per head, with an interval over texts.

    Args:
        prefixes: of each text, [H, key, query] attention among its first positions.
        seed: of the interval.

    Returns:
        One interval per head; at least two texts are needed.
    """
    stacked = torch.stack(list(prefixes))  # [texts, H, key, query]
    apart = (stacked - stacked.mean(0)).abs().sum((2, 3)).numpy()  # [texts, H]
    whole = 2.0 * stacked.sum((2, 3)).numpy()
    return [ratio_interval(apart[:, head], whole[:, head], seed) for head in range(apart.shape[1])]
