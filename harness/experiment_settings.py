"""The settings of experiments on models, and the base of all settings: models that know their keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.errors import nearest


class Strict(BaseModel):
    """A settings model that knows its keys: an unknown one is an error that names the nearest."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}{nearest(str(key), cls.model_fields)}")
        return data


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


HEAD_SURROGATES = ("counts", "distance", "ccmc-weights", "pccmc-weights", "ccmc-fit", "shuffled-weights")
GENERATION_SURROGATES = ("counts", "in-context-bigram", "ccmc-fit")


def _known_surrogates(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown surrogate {name!r}{nearest(name, known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"a surrogate is listed twice: {list(names)}")


class Heads(Strict):
    """Attention heads of language models against chains with and without positions."""

    kind: Literal["heads"]
    layers: Literal["all"] | tuple[int, ...] = "all"
    surrogates: tuple[str, ...] = HEAD_SURROGATES
    max_length: int = Field(default=512, ge=8)
    layers_per_unit: int = Field(default=6, ge=1)

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _known_surrogates(value, HEAD_SURROGATES)
        return value

    @field_validator("layers")
    @classmethod
    def _layers(cls, value: Literal["all"] | tuple[int, ...]) -> Literal["all"] | tuple[int, ...]:
        if value == "all":
            return value
        if not value:
            raise ValueError("no layer is listed; write `all` or a list such as [0, 5]")
        return tuple(sorted(set(value)))


class GenerationExperiment(Strict):
    """A model's own continuations against those of surrogates fitted to its next-token distributions."""

    kind: Literal["generation"]
    surrogates: tuple[str, ...] = GENERATION_SURROGATES
    rollout_seeds: int = Field(default=5, ge=1)

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _known_surrogates(value, GENERATION_SURROGATES)
        return value
