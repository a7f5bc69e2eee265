"""The settings of `coverage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from harness.experiments._shared.settings import PaperExperiment


class Coverage(PaperExperiment):
    """Prompt distributions that determine the chain, or leave directions of it free."""

    smoke: ClassVar[Mapping[str, int]] = {"observations": 6400}

    kind: Literal["coverage"]
    vocab_size: int = Field(default=8, ge=4, le=128)
    prompt_length: int = Field(default=8, ge=2, le=4096)
    observations: tuple[int, ...] = Field(default=(400, 1600, 6400, 25_600, 102_400), min_length=1)
    rare: float = Field(default=0.01, gt=0, lt=1)
    logit_sd: float = Field(default=0.5, gt=0, le=5)
    repetitions: int = Field(default=40, ge=1)
    trained_repetitions: int = Field(default=8, ge=0)
