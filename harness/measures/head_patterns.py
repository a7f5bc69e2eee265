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
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.attention.blocks import Once
from harness.core.records import Interval
from harness.core.registry import register
from harness.measures.head_kinds import PATTERNS
from harness.stats.intervals import ratio_interval

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

PREFIX = 10  # positions of the content score


register.measure(
    "previous_token_score",
    unit="share",
    label="previous token",
    about="attention on the token just before the query, the first position left out",
    source="Vig and Belinkov, Analyzing the Structure of Attention in a Transformer Language Model, 2019",
)
register.measure(
    "induction_score",
    unit="share",
    label="induction",
    about="attention on what followed earlier occurrences of the query's token",
    source="Olsson et al., In-context Learning and Induction Heads, 2022",
)
register.measure(
    "duplicate_token_score",
    unit="share",
    label="duplicate token",
    about="attention on earlier occurrences of the query's token",
    source="Wang et al., Interpretability in the Wild, 2023",
)
register.measure(
    "sink_share",
    unit="share",
    label="on the first position",
    about="attention on the first position",
    source="Xiao et al., Efficient Streaming Language Models with Attention Sinks, 2024",
)


@dataclass(frozen=True, eq=False)
class Places:
    """Where in a block each score looks; of tokens and window alone, so the same for all layers that share these.

    Attributes:
        pairs: by score, the keys and queries of the block that it is about, counted from the first of each.
        even: by score, what even attention puts there, summed over queries.
        queries: by score, how many queries have such a key.
    """

    pairs: dict[str, tuple[torch.Tensor, ...]]
    even: dict[str, float]
    queries: dict[str, int]


class PatternSums:
    """Scores of the heads of a layer over one text, summed as its rows pass.

    Args:
        tokens: [T] ids.
        heads: H.
        window: how many positions a query sees, itself included; all by default.
        shared: of all layers with these tokens and this window, which then look for the places of a block once.
    """

    def __init__(
        self,
        tokens: Sequence[int] | np.ndarray[Any, Any],
        heads: int,
        window: int | None = None,
        shared: Once | None = None,
    ) -> None:
        self._tokens = torch.as_tensor(np.asarray(tokens, dtype=np.int64))
        self._window = len(self._tokens) if window is None else window
        self._shared = Once() if shared is None else shared
        self._sum = {name: torch.zeros(heads, dtype=torch.float64) for name in PATTERNS}
        self._even = dict.fromkeys(PATTERNS, 0.0)
        self._queries = dict.fromkeys(PATTERNS, 0)
        self._places: dict[str, tuple[torch.Tensor, ...]] = {}
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
        if not heads.start:
            keys, queries = weight.shape[1:]
            name = f"places of scores, keys {low} + {keys}, queries {start} + {queries}"
            found = self._shared.get(PatternSums, name, lambda: self._find(low, start, keys, queries))
            self._places = found.pairs
            for name, even in found.even.items():
                self._even[name] += even
                self._queries[name] += found.queries[name]
        for name, (key, query) in self._places.items():
            values = weight[:, key.to(weight.device), query.to(weight.device)].double().cpu()
            if name == "prefix":
                self.prefix[heads, low - 1 + key, start - 1 + query] = values
            else:
                self._sum[name][heads] += values.sum(1)

    def _find(self, low: int, start: int, keys: int, queries: int) -> Places:
        key, query = torch.arange(low, low + keys)[:, None], torch.arange(start, start + queries)
        distance = query - key  # [L, B]
        earlier = (distance > 0) & (distance < self._window)
        asked = self._tokens[query]
        masks = {
            "previous_token_score": (distance == 1) & earlier,
            "induction_score": (self._tokens[key - 1] == asked) & earlier,
            "duplicate_token_score": (self._tokens[key] == asked) & earlier,
        }
        seen = query.clamp(max=self._window).double()
        found = {name: torch.nonzero(mask, as_tuple=True) for name, mask in masks.items()}
        even = {name: float((1.0 / seen[at[1]]).sum()) for name, at in found.items()}
        asking = {name: int(mask.any(0).sum()) for name, mask in masks.items()}
        if start <= PREFIX:
            found["prefix"] = torch.nonzero((key <= PREFIX) & (query <= PREFIX), as_tuple=True)
        return Places(found, even, asking)

    def scores(self) -> dict[str, tuple[FloatArray, float, int]]:
        """Score -> [H] means, what even attention scores, and the number of queries; left out where there is none."""
        return {
            name: ((self._sum[name] / n).numpy(), self._even[name] / n, n) for name, n in self._queries.items() if n > 0
        }

    @property
    def long_enough(self) -> bool:
        """Does the text have all positions of the content score?"""
        return len(self._tokens) > PREFIX


register.measure(
    "content_score",
    unit="share",
    label="content",
    about="share of attention on the first positions that differs from text to text",
    source="Vig and Belinkov, Analyzing the Structure of Attention in a Transformer Language Model, 2019",
)


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
