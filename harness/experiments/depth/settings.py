"""The settings of `depth`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from harness.core.registry import surrogates
from harness.experiments._shared.settings import PaperExperiment, known_surrogates

SURROGATES = ("counts", "bigram-restricted", "in-context-bigram", "n-gram", "ccmc-fit")
"""Fitted where a config names none; every next-token surrogate that needs nothing but a seed is possible."""
REQUIRED = ("counts", "ccmc-fit")


class Depth(PaperExperiment):
    """Attention models that differ in depth and positions alone, trained on the same sequences."""

    smoke: ClassVar[Mapping[str, int]] = {
        "layers": 2,
        "steps": 24,
        "training_steps": 10,
        "surrogate_sequences": 8,
        "held_out_sequences": 4,
    }
    harmless: ClassVar[frozenset[str]] = frozenset({"repetitions", "surrogates"})

    kind: Literal["depth"]
    layers: tuple[int, ...] = Field(default=(1, 2, 4), min_length=1, description="depths of the models")
    positions: tuple[Literal["none", "learned", "rotary"], ...] = Field(
        default=("none", "rotary"), min_length=1, description="how the models are told positions"
    )
    bits: int | None = Field(
        default=4, ge=2, le=8, description="a copy of each model is rounded to so many bits, as a control; null: none"
    )
    vocab_size: int = Field(default=8, ge=2, le=64, description="tokens K")
    logit_sd: float = Field(default=1.0, gt=0, le=5, description="standard deviation of the logits of the mean chain")
    concentration: float = Field(
        default=4.0, gt=0, le=1e6, description="how close the chain of each sequence is to the mean chain"
    )
    dimension: int = Field(default=32, ge=4, le=512, description="of the residual stream, at least K")
    heads: int = Field(default=2, ge=1, le=16, description="heads of each layer")
    mlp: int = Field(default=0, ge=0, le=4096, description="width of the MLP of each layer, 0 for none")
    prompt_length: int = Field(default=16, ge=4, le=512, description="tokens of a prompt")
    steps: int = Field(default=48, ge=16, le=512, description="tokens after a prompt, in training and in rollouts")
    training_steps: int = Field(default=1500, ge=1, description="steps of the optimiser")
    batch_size: int = Field(default=32, ge=1, description="sequences per training step; none is seen twice")
    learning_rate: float = Field(default=0.01, gt=0, le=1, description="of the optimiser")
    surrogate_sequences: int = Field(default=64, ge=4, description="training sequences that surrogates are fitted to")
    held_out_sequences: int = Field(default=64, ge=4, description="sequences that surrogates are judged on")
    surrogates: tuple[str, ...] = Field(
        default=SURROGATES,
        description="next-token surrogates that need nothing but a seed; `counts` and `ccmc-fit` are required",
    )
    repetitions: int = Field(default=8, ge=1, description="families, each with its own data and initial weights")

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates(value, {name: one for name, one in surrogates(of="next-token").items() if not one.needs})
        for name in REQUIRED:
            if name not in value:
                raise ValueError(f"{name!r} must be among the surrogates: the others are measured against it")
        return value

    @field_validator("layers")
    @classmethod
    def _layers(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 1 <= one <= 32 for one in value) or len(set(value)) < len(value):
            raise ValueError(f"layers are different numbers from 1 to 32, got {list(value)}")
        return tuple(sorted(value))

    @field_validator("positions")
    @classmethod
    def _positions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"positions: one is listed twice: {list(value)}")
        return value

    @model_validator(mode="after")
    def _room(self) -> Depth:
        if self.dimension < self.vocab_size or self.dimension % (2 * self.heads):
            raise ValueError(
                f"dimension {self.dimension} must be a multiple of {2 * self.heads}, twice the heads, and at least the "
                f"{self.vocab_size} tokens"
            )
        return self
