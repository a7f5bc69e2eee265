"""The settings of `equivalence`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from harness.experiments._shared.settings import PaperExperiment


class Equivalence(PaperExperiment):
    """Random and trained one-layer models against the chain read off their weights."""

    smoke: ClassVar[Mapping[str, int]] = {"prompts": 500}

    kind: Literal["equivalence"]
    vocab_size: int = Field(default=16, ge=2, le=512, description="tokens K")
    dimensions: tuple[int, ...] = Field(
        default=(4, 8, 12, 16, 24, 48),
        min_length=1,
        description="embedding dimensions d; below K the layer is no longer a chain exactly",
    )
    repetitions: int = Field(default=12, ge=1, description="models per dimension, each with its own weights")
    prompts: int = Field(default=2000, ge=1, description="prompts on which probabilities are compared")
    prompt_length: int = Field(default=16, ge=2, le=4096, description="tokens of a prompt")
    observations: int = Field(default=6400, ge=1, description="observations that a trained model learns from")
    logit_sd: float = Field(
        default=1.0, gt=0, le=5, description="standard deviation of the logits of the random models and of the teacher"
    )

    @field_validator("dimensions")
    @classmethod
    def _dimensions(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for dimension in value:
            if not 1 <= dimension <= 4096:
                raise ValueError(f"dimension {dimension} is not in 1 ... 4096")
        return tuple(sorted(set(value)))
