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
    vocab_size: int = Field(default=16, ge=2, le=512)
    dimensions: tuple[int, ...] = Field(default=(4, 8, 12, 16, 24, 48), min_length=1)
    repetitions: int = Field(default=12, ge=1)
    prompts: int = Field(default=2000, ge=1)
    prompt_length: int = Field(default=16, ge=2, le=4096)
    observations: int = Field(default=6400, ge=1)
    logit_sd: float = Field(default=1.0, gt=0, le=5)

    @field_validator("dimensions")
    @classmethod
    def _dimensions(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for dimension in value:
            if not 1 <= dimension <= 4096:
                raise ValueError(f"dimension {dimension} is not in 1 ... 4096")
        return tuple(sorted(set(value)))
