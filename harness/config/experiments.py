"""The settings of experiments on one-layer models and on attention heads."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from harness.config.decoding import known_surrogates
from harness.config.strict import Growing, Strict
from harness.config.texts import GivenTexts


class OneLayer(Strict):
    """A one-layer attention model is trained on a teacher chain; chains are read off it and fitted to it."""

    kind: Literal["one-layer"]
    vocab_size: int = Field(default=16, ge=2, le=512)
    dimension: int = Field(default=32, ge=1, le=4096)
    logit_sd: float = Field(default=0.5, gt=0, le=5)
    observations: int = Field(default=25_600, ge=1)
    prompt_length: int = Field(default=16, ge=2, le=4096)
    repetitions: int = Field(default=8, ge=1)
    held_out_prompts: int = Field(default=20_000, ge=1)
    train_embeddings: bool = False
    rollout_prompts: int = Field(default=12, ge=2)
    rollout_steps: int = Field(default=512, ge=32)
    rollout_seeds: int = Field(default=3, ge=2)


HEAD_SURROGATES = (
    "counts",
    "distance",
    "ccmc-weights",
    "pccmc-weights",
    "ccmc-fit",
    "pccmc-fit",
    "shuffled-weights",
)
HEAD_CONTROLS = ("exact-keys", "exact-queries")  # on request: they show what the rest depends on


class Heads(Growing):
    """Attention heads of language models against chains with and without positions."""

    later: ClassVar[frozenset[str]] = frozenset({"texts"})

    kind: Literal["heads"]
    layers: Literal["all"] | tuple[int, ...] = "all"
    surrogates: tuple[str, ...] = HEAD_SURROGATES
    max_length: int = Field(default=512, ge=8)
    layers_per_unit: int = Field(default=6, ge=1)
    texts: GivenTexts | None = Field(default=None, description="texts to read; default: what the model writes")

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates(value, (*HEAD_SURROGATES, *HEAD_CONTROLS))
        return value

    @field_validator("layers")
    @classmethod
    def _layers(cls, value: Literal["all"] | tuple[int, ...]) -> Literal["all"] | tuple[int, ...]:
        if value == "all":
            return value
        if not value:
            raise ValueError("no layer is listed; write `all` or a list such as [0, 5]")
        return tuple(sorted(set(value)))
