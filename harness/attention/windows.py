"""Texts as layers see them: whole, or through a sliding window."""

from __future__ import annotations

from typing import Any

import torch

from harness.attention.blocks import View
from harness.attention.capture import LayerCall
from harness.data.texts import LocalVocabulary, Text


def head_text(tokens: Any, vocabulary: LocalVocabulary, window: int | None = None) -> Text:
    """A text as heads see it without the sink: each position t >= 1 is a query, and a key of later queries."""
    return Text(vocabulary.local(tokens), start=1, first=1, window=window)


class Windows:
    """One text as layers of each kind see it: as a whole, or through a sliding window.

    Args:
        tokens: [T] ids in the model's vocabulary.
        vocabulary: of the run's texts.
    """

    def __init__(self, tokens: Any, vocabulary: LocalVocabulary) -> None:
        self.tokens, self.vocabulary = tokens, vocabulary
        self._views: dict[tuple[int | None, torch.device], View] = {}

    def seen_by(self, call: LayerCall) -> View:
        """The text of one layer, on its device; layers whose window is not shorter than the text share one."""
        window = call.window if call.window is not None and call.window < len(self.tokens) else None
        device = call.query.device
        if (window, device) not in self._views:
            self._views[window, device] = View(head_text(self.tokens, self.vocabulary, window), device)
        return self._views[window, device]
