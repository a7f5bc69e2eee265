"""Holding back tokens of the context while a model generates: each row sees its own tokens, never its padding.

The processors of transformers look at a whole row, padding included; then a penalty would fall on the padding's token,
and a continuation would depend on the length of the prompts beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor


class Unpadded(LogitsProcessor):  # type: ignore[misc]
    """Applies a processor row by row, without the padding on the left.

    Args:
        inner: the processor.
        starts: where the prompt of each row begins.
    """

    def __init__(self, inner: LogitsProcessor, starts: Sequence[int]) -> None:
        self.inner, self.starts = inner, list(starts)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        rows = [
            self.inner(input_ids[row : row + 1, start:], scores[row : row + 1]) for row, start in enumerate(self.starts)
        ]
        return torch.cat(rows)  # type: ignore[return-value]


def penalties(options: Mapping[str, Any], starts: Sequence[int]) -> list[LogitsProcessor]:
    """The processors of a strategy's repetition_penalty and no_repeat_ngram.

    Args:
        options: of the strategy.
        starts: where the prompt of each row of the batch begins.
    """
    made: list[LogitsProcessor] = []
    if "repetition_penalty" in options:
        made.append(Unpadded(RepetitionPenaltyLogitsProcessor(float(options["repetition_penalty"])), starts))
    if "no_repeat_ngram" in options:
        made.append(Unpadded(NoRepeatNGramLogitsProcessor(int(options["no_repeat_ngram"])), starts))
    return made
