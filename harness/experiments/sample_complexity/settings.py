"""The settings of `sample-complexity`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from harness.experiments._shared.settings import PaperExperiment


class SampleComplexity(PaperExperiment):
    """Excess risk and error of the logits against the number of observations and of tokens."""

    smoke: ClassVar[Mapping[str, int]] = {"vocab_sizes": 16, "per_square": 500, "prompts": 512}

    kind: Literal["sample-complexity"]
    vocab_sizes: tuple[Annotated[int, Field(ge=2, le=4096)], ...] = Field(
        default=(4, 8, 16, 32), min_length=1, description="vocabulary sizes K"
    )
    per_square: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(50, 160, 500, 1600, 5000), min_length=1, description="observations per pair of tokens: n = this x K^2"
    )
    prompts: int = Field(default=2048, ge=16, description="held-out prompts that the excess risk is measured on")
    prompt_length: int = Field(default=16, ge=2, le=4096, description="tokens of a prompt")
    logit_sd: float = Field(default=0.5, gt=0, le=5, description="standard deviation of the teacher's logits")
    repetitions: int = Field(default=24, ge=1, description="samples per condition, each with its own teacher")
    trained_repetitions: int = Field(
        default=6, ge=0, description="repetitions in which a one-layer model is trained as well"
    )
