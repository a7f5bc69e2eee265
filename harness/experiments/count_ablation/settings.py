"""The settings of the experiment `count-ablation`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from harness.config.strict import Growing
from harness.config.texts import Prose


class CountAblation(Growing):
    """log(count of a token so far) is taken from the attention scores: does a model repeat less without it?"""

    continues: ClassVar[bool] = True

    kind: Literal["count-ablation"]
    strengths: tuple[float, ...] = Field(
        default=(0.5, 1.0),
        min_length=1,
        description="s: how much of s log(count) is subtracted from the attention scores",
    )
    heads: int = Field(default=32, ge=1, description="size of the sets of best and of random heads")
    random_draws: int = Field(default=3, ge=1, description="sets of random heads")
    repetition_penalties: tuple[float, ...] = Field(
        default=(1.02, 1.05, 1.1, 1.2), description="penalties that the ablation is compared with at the same loss"
    )
    no_repeat_ngrams: tuple[int, ...] = Field(
        default=(4,), description="n-gram lengths that are forbidden to repeat, for comparison"
    )
    prose: str | Prose = Field(
        description="texts that people wrote, to measure the loss on: a file of {id, kind, text}, or {dataset: ...}"
    )
    max_length: int = Field(default=256, ge=16, description="tokens of a text that the loss is measured on")

    @field_validator("strengths")
    @classmethod
    def _strengths(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < x <= 4 for x in value) or len(set(value)) < len(value):
            raise ValueError(f"strengths are distinct, above 0 and at most 4, got {list(value)}")
        return value
