"""The settings of the paper's experiments: one-layer models against what the theory says of them."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from harness.generation_settings import known_surrogates
from harness.strict import Strict


class Equivalence(Strict):
    """Random and trained one-layer models against the chain read off their weights."""

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


class Coverage(Strict):
    """Prompt distributions that determine the chain, or leave directions of it free."""

    kind: Literal["coverage"]
    vocab_size: int = Field(default=8, ge=4, le=128)
    prompt_length: int = Field(default=8, ge=2, le=4096)
    observations: tuple[int, ...] = Field(default=(400, 1600, 6400, 25_600, 102_400), min_length=1)
    rare: float = Field(default=0.01, gt=0, lt=1)
    logit_sd: float = Field(default=0.5, gt=0, le=5)
    repetitions: int = Field(default=40, ge=1)
    trained_repetitions: int = Field(default=8, ge=0)


class SampleComplexity(Strict):
    """Excess risk and error of the logits against the number of observations and of tokens."""

    kind: Literal["sample-complexity"]
    vocab_sizes: tuple[int, ...] = Field(default=(4, 8, 16, 32), min_length=1)
    per_square: tuple[int, ...] = Field(default=(50, 160, 500, 1600, 5000), min_length=1)
    prompts: int = Field(default=2048, ge=16)
    prompt_length: int = Field(default=16, ge=2, le=4096)
    logit_sd: float = Field(default=0.5, gt=0, le=5)
    repetitions: int = Field(default=24, ge=1)
    trained_repetitions: int = Field(default=6, ge=0)


class Trajectory(Strict):
    """One long trajectory: growth exponents, what it teaches of P, and the phase diagram of two tokens."""

    kind: Literal["trajectory"]
    grid: int = Field(default=9, ge=2, le=39)
    phase_paths: int = Field(default=64, ge=8)
    phase_steps: int = Field(default=30_000, ge=1000)
    loser_weights: tuple[float, ...] = Field(default=(0.2, 0.3, 0.4, 0.45), min_length=1)
    paths: int = Field(default=60, ge=8)
    steps: int = Field(default=1_000_000, ge=10_000)

    @field_validator("loser_weights")
    @classmethod
    def _weights(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        for weight in value:
            if not 0 < weight < 0.5:
                raise ValueError(f"loser weight {weight} is not between 0 and 1/2")
        return tuple(sorted(set(value)))


class WinnerSets(Strict):
    """Predicted winner sets, frequencies and exponents against simulation."""

    kind: Literal["winners"]
    vocab_sizes: tuple[int, ...] = Field(default=(2, 5, 20, 100, 1000), min_length=1)
    families: tuple[Literal["gaussian", "dirichlet", "dominant", "cyclic", "heads"], ...] = Field(
        default=("gaussian", "dirichlet", "dominant", "cyclic", "heads"), min_length=1
    )
    starts: tuple[int, ...] = Field(default=(10, 100, 1000, 10_000), min_length=1)
    horizon: int = Field(default=100_000, ge=1000)
    paths: int = Field(default=16, ge=4)
    windows: tuple[int, ...] = (4, 8, 16)
    repetitions: int = Field(default=6, ge=1)


class Positions(Strict):
    """Positions in the one-layer model: how they act on predictions and on winners."""

    kind: Literal["positions"]
    vocab_size: int = Field(default=12, ge=2, le=128)
    prompt_length: int = Field(default=16, ge=4, le=512)
    prompts: int = Field(default=2000, ge=100)
    observations: int = Field(default=8000, ge=100)
    steps_of_training: int = Field(default=60, ge=1)
    paths: int = Field(default=64, ge=8)
    steps: int = Field(default=10_000, ge=200)
    repetitions: int = Field(default=8, ge=1)


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
GAP_SURROGATES = ("counts", "bigram", "bigram-restricted", "in-context-bigram", "n-gram", "ccmc-fit")


class TheoryGap(Strict):
    """Models trained on the same data, each a step further from the assumptions, against every surrogate."""

    kind: Literal["theory-gap"]
    data: tuple[Literal["ccmc", "text"], ...] = Field(default=("ccmc", "text"), min_length=1)
    streams: Literal["generations", "prompts"] = Field(
        default="generations",
        description="characters of the prompts and the model's continuations, or of prompts alone",
    )
    characters: int = Field(default=32, ge=4, le=256, description="tokens of the streams of characters")
    rungs: tuple[RungName, ...] = Field(default=get_args(RungName), min_length=1)
    vocab_size: int = Field(default=12, ge=2, le=128, description="of the teacher chain")
    logit_sd: float = Field(default=1.0, gt=0, le=5)
    dimension: int = Field(default=32, ge=4, le=512)
    prompt_length: int = Field(default=16, ge=4, le=512)
    steps: int = Field(default=48, ge=16, le=512, description="tokens after a prompt, in training and in rollouts")
    sequences: int = Field(default=512, ge=8)
    surrogate_sequences: int = Field(default=48, ge=4, description="training sequences that surrogates are fitted to")
    held_out_sequences: int = Field(default=20, ge=4)
    training_steps: int = Field(default=120, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=0.01, gt=0, le=1)
    surrogates: tuple[str, ...] = GAP_SURROGATES
    repetitions: int = Field(default=5, ge=1)

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates(value, GAP_SURROGATES)
        for name in ("counts", "ccmc-fit"):
            if name not in value:
                raise ValueError(f"{name!r} must be among the surrogates: the others are measured against it")
        return value

    @model_validator(mode="after")
    def _room(self) -> TheoryGap:
        tokens = max(self.vocab_size if "ccmc" in self.data else 0, self.characters if "text" in self.data else 0)
        if self.dimension < tokens or self.dimension % 4:
            raise ValueError(f"dimension {self.dimension} must be a multiple of 4 and at least the {tokens} tokens")
        return self


def needs_model(experiment: Strict) -> bool:
    """Does one of the paper's experiments look at a language model?"""
    if isinstance(experiment, TheoryGap):
        return "text" in experiment.data and experiment.streams == "generations"
    return reads_heads(experiment)


def needs_prompts(experiment: Strict) -> bool:
    """Does one of the paper's experiments look at prompts?"""
    return isinstance(experiment, TheoryGap) and "text" in experiment.data


def reads_heads(experiment: Strict) -> bool:
    """Does one of the paper's experiments look into the heads of a language model?"""
    return isinstance(experiment, WinnerSets) and "heads" in experiment.families


PAPER_KINDS = ("equivalence", "coverage", "sample-complexity", "trajectory", "winners", "positions", "theory-gap")
