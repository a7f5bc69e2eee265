"""The settings of `theory-gap`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from harness.core.registry import surrogates
from harness.experiments._shared.settings import PaperExperiment, known_surrogates

RungName = Literal[
    "tied",
    "free-classifier",
    "values",
    "layer-norm",
    "residual",
    "mlp",
    "two-heads",
    "four-heads",
    "two-layers",
    "positions",
]
"""Names of the models, each a step further from the assumptions than the one before."""
GAP_SURROGATES = ("counts", "bigram", "bigram-restricted", "in-context-bigram", "n-gram", "ccmc-fit", "ccmc-open")
"""Fitted where a config names none; every next-token surrogate that needs nothing but a seed is possible."""


class TheoryGap(PaperExperiment):
    """Models trained on the same data, each a step further from the assumptions, against every surrogate."""

    smoke: ClassVar[Mapping[str, int]] = {
        "steps": 24,
        "training_steps": 10,
        "sequences": 8,
        "surrogate_sequences": 8,
        "held_out_sequences": 4,
    }
    harmless: ClassVar[frozenset[str]] = frozenset({"repetitions", "surrogates"})

    kind: Literal["theory-gap"]
    data: tuple[Literal["ccmc", "text"], ...] = Field(
        default=("ccmc", "text"), min_length=1, description="`ccmc`: paths of a chain; `text`: characters of texts"
    )
    streams: Literal["generations", "prompts"] = Field(
        default="generations",
        description="characters of the prompts and the model's continuations, or of prompts alone",
    )
    characters: int = Field(default=32, ge=4, le=256, description="tokens of the streams of characters")
    rungs: tuple[RungName, ...] = Field(
        default=get_args(RungName),
        min_length=1,
        description="the models that are trained, each one assumption further from the theory",
    )
    vocab_size: int = Field(default=12, ge=2, le=128, description="tokens K of the teacher chain")
    logit_sd: float = Field(default=1.0, gt=0, le=5, description="standard deviation of the teacher's logits")
    dimension: int = Field(
        default=32, ge=4, le=512, description="embedding dimension d: a multiple of 4, at least the number of tokens"
    )
    prompt_length: int = Field(default=16, ge=4, le=512, description="tokens of a prompt")
    steps: int = Field(default=48, ge=16, le=512, description="tokens after a prompt, in training and in rollouts")
    sequences: int = Field(default=512, ge=8, description="sequences that models are trained on")
    surrogate_sequences: int = Field(default=48, ge=4, description="training sequences that surrogates are fitted to")
    held_out_sequences: int = Field(default=20, ge=4, description="sequences that surrogates are judged on")
    training_steps: int = Field(default=120, ge=1, description="steps of the optimiser")
    batch_size: int = Field(default=16, ge=1, description="sequences per training step")
    learning_rate: float = Field(default=0.01, gt=0, le=1, description="of the optimiser")
    surrogates: tuple[str, ...] = Field(
        default=GAP_SURROGATES,
        description="next-token surrogates that need nothing but a seed; `counts` and `ccmc-fit` are required",
    )
    repetitions: int = Field(default=5, ge=1, description="models per rung, each with its own data and initial weights")

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        declared = surrogates(of="next-token")
        known_surrogates(value, {name: one for name, one in declared.items() if not one.needs})
        for name in ("counts", "ccmc-fit"):
            if name not in value:
                raise ValueError(f"{name!r} must be among the surrogates: the others are measured against it")
        return value

    def limited(self, limit: int | None) -> Self:
        """With a limit N, 3N rungs: the first, the last, and others evenly between them."""
        less = super().limited(limit)
        if limit is None or len(self.rungs) <= 3 * limit:
            return less
        last, steps = len(self.rungs) - 1, 3 * limit - 1
        return less.model_copy(update={"rungs": tuple(self.rungs[last * k // steps] for k in range(steps + 1))})

    @model_validator(mode="after")
    def _room(self) -> TheoryGap:
        tokens = max(self.vocab_size if "ccmc" in self.data else 0, self.characters if "text" in self.data else 0)
        if self.dimension < tokens or self.dimension % 4:
            raise ValueError(f"dimension {self.dimension} must be a multiple of 4 and at least the {tokens} tokens")
        return self
