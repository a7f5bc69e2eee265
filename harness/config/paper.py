"""The settings of the paper's experiments: one-layer models against what the theory says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from harness.config.decoding import known_surrogates
from harness.config.strict import Strict


class PaperExperiment(Strict):
    """Settings of which a smoke run takes less."""

    smoke: ClassVar[Mapping[str, int]] = {}
    """Per setting: a smoke run with `limit` N takes at most N times this, of a list the entries up to that."""

    def limited(self, limit: int | None) -> Self:
        """The settings of a smoke run; those of a full one as they are."""
        if limit is None:
            return self
        less: dict[str, Any] = {}
        for name, size in self.smoke.items():
            value, most = getattr(self, name), size * limit
            less[name] = min(value, most) if isinstance(value, int) else tuple(x for x in value if x <= most)
            less[name] = less[name] or value[:1]
        return self.model_copy(update=less)


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


class SampleComplexity(PaperExperiment):
    """Excess risk and error of the logits against the number of observations and of tokens."""

    smoke: ClassVar[Mapping[str, int]] = {"vocab_sizes": 16, "per_square": 500, "prompts": 512}

    kind: Literal["sample-complexity"]
    vocab_sizes: tuple[Annotated[int, Field(ge=2, le=4096)], ...] = Field(default=(4, 8, 16, 32), min_length=1)
    per_square: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(50, 160, 500, 1600, 5000), min_length=1)
    prompts: int = Field(default=2048, ge=16)
    prompt_length: int = Field(default=16, ge=2, le=4096)
    logit_sd: float = Field(default=0.5, gt=0, le=5)
    repetitions: int = Field(default=24, ge=1)
    trained_repetitions: int = Field(default=6, ge=0)


class Trajectory(PaperExperiment):
    """One long trajectory: growth exponents, what it teaches of P, and the phase diagram of two tokens."""

    smoke: ClassVar[Mapping[str, int]] = {"phase_paths": 8, "phase_steps": 2000, "paths": 8, "steps": 10_000}

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


class WinnerSets(PaperExperiment):
    """Predicted winner sets, frequencies and exponents against simulation."""

    smoke: ClassVar[Mapping[str, int]] = {"vocab_sizes": 100, "horizon": 10_000, "paths": 4}

    kind: Literal["winners"]
    vocab_sizes: tuple[Annotated[int, Field(ge=2, le=4096)], ...] = Field(default=(2, 5, 20, 100, 1000), min_length=1)
    families: tuple[Literal["gaussian", "dirichlet", "dominant", "cyclic", "heads"], ...] = Field(
        default=("gaussian", "dirichlet", "dominant", "cyclic", "heads"), min_length=1
    )
    starts: tuple[int, ...] = Field(default=(10, 100, 1000, 10_000), min_length=1)
    horizon: int = Field(default=100_000, ge=1000)
    paths: int = Field(default=16, ge=4)
    windows: tuple[int, ...] = (4, 8, 16)
    repetitions: int = Field(default=6, ge=1)


class Positions(PaperExperiment):
    """Positions in the one-layer model: how they act on predictions and on winners."""

    smoke: ClassVar[Mapping[str, int]] = {"observations": 1000, "steps_of_training": 20, "paths": 16, "steps": 1000}

    kind: Literal["positions"]
    vocab_size: int = Field(default=12, ge=2, le=128)
    prompt_length: int = Field(default=16, ge=4, le=512)
    prompts: int = Field(default=2000, ge=100)
    observations: int = Field(default=8000, ge=100)
    steps_of_training: int = Field(default=400, ge=1)
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


class TheoryGap(PaperExperiment):
    """Models trained on the same data, each a step further from the assumptions, against every surrogate."""

    smoke: ClassVar[Mapping[str, int]] = {
        "steps": 24,
        "training_steps": 10,
        "sequences": 8,
        "surrogate_sequences": 8,
        "held_out_sequences": 4,
    }

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

    def limited(self, limit: int | None) -> Self:
        """Of the ladder a smoke run takes the foot, the top, which has all that others have, and some between."""
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
