"""The settings of the experiment `heads`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from harness.config.strict import Growing
from harness.config.texts import GivenTexts
from harness.core import registry
from harness.experiments._shared.settings import default_surrogates, distinct_layers, known_surrogates


class Heads(Growing):
    """Attention heads of language models against chains with and without positions."""

    later: ClassVar[frozenset[str]] = frozenset({"texts"})
    harmless: ClassVar[frozenset[str]] = frozenset({"surrogates"})
    rounding: ClassVar[frozenset[str]] = frozenset({"layers_per_unit"})
    continues: ClassVar[bool] = True

    kind: Literal["heads"]
    layers: Literal["all"] | tuple[int, ...] = Field(default="all", description="`all`, or a list such as [0, 5]")
    surrogates: tuple[str, ...] = Field(
        default_factory=lambda: default_surrogates("heads"), description="see `ccmc list surrogates`"
    )
    max_length: int = Field(default=512, ge=8, description="tokens of a text that are read")
    layers_per_unit: int = Field(default=6, ge=1, description="layers that are done together: memory against passes")
    texts: GivenTexts | None = Field(default=None, description="texts to read; default: what the model writes")

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates(value, registry.surrogates("heads"))
        return value

    @field_validator("layers")
    @classmethod
    def _layers(cls, value: Literal["all"] | tuple[int, ...]) -> Literal["all"] | tuple[int, ...]:
        return distinct_layers(value)
