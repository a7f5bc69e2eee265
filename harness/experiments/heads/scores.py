"""Pass 2 over held-out texts: every surrogate of a layer against the attention, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.attention.blocks import View
from harness.attention.capture import LayerCall
from harness.core.rows import Rows
from harness.experiments._shared.continuations import Continuation
from harness.experiments._shared.fidelity_rows import INFINITE, add_finite
from harness.experiments._shared.head_scores import score_text
from harness.experiments.heads.patterns import Patterns
from harness.measures.head_patterns import PatternSums
from harness.stats.explained import explained_interval
from harness.surrogates.base import HeadSurrogate

EXPLAINED = {"kl": "explained", "kl_with_sink": "explained_with_sink"}


class Scores:
    """Rows of pass 2, per text, head and surrogate, and what is explained per head."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.patterns = Patterns(rows)
        self.sums: dict[tuple[str, str, int, int, str], dict[str, tuple[float, int]]] = {}

    def add(
        self,
        call: LayerCall,
        view: View,
        continuation: Continuation,
        fitted: Mapping[str, HeadSurrogate],
        seen: np.ndarray[Any, np.dtype[np.bool_]],
    ) -> None:
        """Score every surrogate of one layer on one text; `seen` [K] marks the tokens that have a static input."""
        text = view.text
        shared: dict[str, Any] = {
            "strategy": continuation.strategy,
            "layer": call.layer,
            "prompt": continuation.prompt,
            "n": len(text),
        }
        patterns = PatternSums(text.tokens, call.query.shape[0], text.window, view.of_all_layers)
        sink, means = score_text(call, view, fitted, patterns)
        self.patterns.add(patterns, call.layer, continuation.strategy, continuation.prompt)
        for head, share in enumerate(sink.tolist()):
            self.rows.add("sink_share", share, head=head, surrogate="model", **shared)
        unseen = 0.0 if call.layer == 0 else float(1.0 - seen[text.tokens[1:]].mean())
        self.rows.add("unseen_share", unseen, surrogate="model", **shared)
        for name, found in means.items():
            for metric, values in found.items():
                for head, value in enumerate(values.tolist()):
                    add_finite(self.rows, metric, value, head=head, surrogate=name, **shared)
                    if metric in EXPLAINED:
                        key = (metric, continuation.strategy, call.layer, head, name)
                        of_prompts = self.sums.setdefault(key, {})
                        total, n = of_prompts.get(continuation.prompt, (0.0, 0))
                        of_prompts[continuation.prompt] = total + value * len(text), n + len(text)

    def explained(self, seed: int) -> None:
        """Per head: 1 - mean KL / mean KL(counts) over held-out queries, with an interval over prompts."""
        for (metric, strategy, layer, head, name), entries in self.sums.items():
            against = self.sums.get((metric, strategy, layer, head, "counts"))
            if name == "counts" or against is None:
                continue
            totals = [total for total, _ in entries.values()]
            columns: dict[str, Any] = {
                "strategy": strategy,
                "layer": layer,
                "head": head,
                "surrogate": name,
                "n": sum(n for _, n in entries.values()),
            }
            if not np.isfinite(totals).all():
                self.rows.add(EXPLAINED[metric], None, missing=INFINITE, **columns)
                continue
            of_counts = [total for total, _ in against.values()]
            found = explained_interval(totals, of_counts, seed, queries=columns["n"])
            missing = found.missing if found.value is None else None
            self.rows.add(EXPLAINED[metric], found.value, missing=missing, low=found.low, high=found.high, **columns)
