"""The settings of `positions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from harness.experiments._shared.settings import PaperExperiment


class Positions(PaperExperiment):
    """Positions in the one-layer model: how they act on predictions and on winners."""

    smoke: ClassVar[Mapping[str, int]] = {"observations": 1000, "steps_of_training": 20, "paths": 16, "steps": 1000}

    kind: Literal["positions"]
    vocab_size: int = Field(default=12, ge=2, le=128, description="tokens K of the teacher chain")
    prompt_length: int = Field(default=16, ge=4, le=512, description="tokens of a prompt, and positions of the model")
    prompts: int = Field(default=2000, ge=100, description="held-out prompts that risks are measured on")
    observations: int = Field(default=8000, ge=100, description="observations that models learn from")
    steps_of_training: int = Field(default=400, ge=1, description="steps of a trained model's optimiser")
    paths: int = Field(default=64, ge=8, description="simulated trajectories per memory")
    steps: int = Field(default=10_000, ge=200, description="tokens of a trajectory")
    repetitions: int = Field(default=8, ge=1, description="each with its own teacher, data and embeddings")
