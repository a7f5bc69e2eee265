"""The settings of `trajectory`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from harness.experiments._shared.settings import PaperExperiment


class Trajectory(PaperExperiment):
    """One long trajectory: growth exponents, what it teaches of P, and the phase diagram of two tokens."""

    smoke: ClassVar[Mapping[str, int]] = {"phase_paths": 8, "phase_steps": 2000, "paths": 8, "steps": 10_000}

    kind: Literal["trajectory"]
    grid: int = Field(default=9, ge=2, le=39, description="points per axis of the phase diagram of two tokens")
    phase_paths: int = Field(default=64, ge=8, description="paths per point of the phase diagram")
    phase_steps: int = Field(default=30_000, ge=1000, description="tokens of such a path")
    loser_weights: tuple[float, ...] = Field(
        default=(0.2, 0.3, 0.4, 0.45), min_length=1, description="p of the chains with equal rows (1 - p, p)"
    )
    paths: int = Field(default=60, ge=8, description="long paths per loser weight")
    steps: int = Field(default=1_000_000, ge=10_000, description="tokens of a long path")

    @field_validator("loser_weights")
    @classmethod
    def _weights(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        for weight in value:
            if not 0 < weight < 0.5:
                raise ValueError(f"loser weight {weight} is not between 0 and 1/2")
        return tuple(sorted(set(value)))
