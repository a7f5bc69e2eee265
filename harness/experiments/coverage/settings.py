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
    vocab_size: int = Field(default=8, ge=4, le=128, description="tokens K of the teacher chain")
    prompt_length: int = Field(default=8, ge=2, le=4096, description="tokens of a prompt")
    observations: tuple[int, ...] = Field(
        default=(400, 1600, 6400, 25_600, 102_400), min_length=1, description="sample sizes n"
    )
    rare: float = Field(
        default=0.01, gt=0, lt=1, description="share of the prompts that join the two halves of the vocabulary"
    )
    logit_sd: float = Field(default=0.5, gt=0, le=5, description="standard deviation of the teacher's logits")
    repetitions: int = Field(default=40, ge=1, description="samples of each size, each with its own teacher")
    trained_repetitions: int = Field(
        default=8, ge=0, description="repetitions in which a one-layer model is trained as well"
    )
