"""The settings of the experiment `generation`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from harness.config.strict import Growing
from harness.core import registry
from harness.experiments._shared.settings import default_surrogates, known_measures, known_surrogates


class GenerationExperiment(Growing):
    """A model's own continuations against those of surrogates fitted to its next-token distributions."""

    later: ClassVar[frozenset[str]] = frozenset(
        {"escape", "winners_at", "mean_field", "head_layers", "mixture_heads", "measures"}
    )
    harmless: ClassVar[frozenset[str]] = frozenset({"surrogates", "rollout_seeds", "measures"})
    continues: ClassVar[bool] = True

    kind: Literal["generation"]
    surrogates: tuple[str, ...] = Field(
        default_factory=lambda: default_surrogates("next-token"), description="see `ccmc list surrogates`"
    )
    rollout_seeds: int = Field(default=5, ge=1, description="continuations of each prompt by each surrogate")
    escape: bool = Field(default=False, description="surrogates may leave the context, as often as in training")
    winners_at: tuple[int, ...] = Field(default=(), description="compare the k most frequent tokens, for these k")
    mean_field: bool = Field(default=False, description="predict the winners of ccmc-fit from the prompt's counts")
    head_layers: Literal["all"] | tuple[int, ...] = Field(
        default="all", description="layers whose chains ccmc-head and ccmc-mixture take"
    )
    mixture_heads: int = Field(default=16, ge=1, description="heads that ccmc-mixture mixes, the best in training")
    measures: tuple[str, ...] = Field(default=(), description="more measures, such as a plugin's, by name")

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates(value, registry.surrogates("next-token"))
        return value

    @field_validator("winners_at")
    @classmethod
    def _sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(k < 1 for k in value) or len(set(value)) < len(value):
            raise ValueError(f"sizes of winner sets are distinct and at least 1, got {list(value)}")
        return value

    @field_validator("measures")
    @classmethod
    def _measures(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_measures(value)
        return value

    @model_validator(mode="after")
    def _needs_the_chain(self) -> GenerationExperiment:
        if self.mean_field and "ccmc-fit" not in self.surrogates:
            raise ValueError("mean_field predicts with the chain of ccmc-fit: list it under surrogates")
        return self
