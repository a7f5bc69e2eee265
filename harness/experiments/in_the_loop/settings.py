"""The settings of the experiment `in-the-loop`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.config.strict import Growing, Strict
from harness.core import registry
from harness.experiments._shared.loop_rules import CONTROLS, MEAN_OUTPUT, MEAN_ROW
from harness.experiments._shared.settings import distinct_layers, known_surrogates

Family = Literal["share", "alone", "random", "kind", "layer", "greedy"]
FAMILIES: tuple[Family, ...] = ("share", "alone", "random", "kind", "layer", "greedy")


class Greedy(Strict):
    """Greedy forward selection of heads on training texts."""

    heads: int = Field(default=27, ge=1, description="how many heads are selected")
    candidates: int = Field(
        default=8, ge=2, description="heads that are tried in each step, the best by KL of their rows"
    )
    step: int = Field(default=3, ge=1, description="heads that are taken in each step")
    texts: int = Field(default=4, ge=1, description="choosing texts that the loss is measured on")


class InTheLoop(Growing):
    """Attention of chosen heads is replaced by surrogates while the model runs."""

    continues: ClassVar[bool] = True
    rounding: ClassVar[frozenset[str]] = frozenset({"layers_per_unit"})

    kind: Literal["in-the-loop"]
    layers: Literal["all"] | tuple[int, ...] = Field(default="all", description="whose heads may be replaced")
    surrogates: tuple[str, ...] = Field(
        default=("counts", "distance", "pccmc-weights", "pccmc-scaled"),
        description="surrogates of heads; each is also measured on the heads that it fits best",
    )
    leaders: tuple[str, ...] = Field(
        default=("pccmc-scaled",),
        description="surrogates whose order of heads makes the sets on which nulls and controls are measured as well",
    )
    nulls: tuple[str, ...] = Field(
        default=("counts", "distance", MEAN_ROW),
        description="the best of these on training texts is what `recovered` is measured from",
    )
    controls: tuple[str, ...] = Field(
        default=(MEAN_OUTPUT,),
        description=f"further arms: of {', '.join(CONTROLS)}, or surrogates; with the first position treated alike, "
        "uniform and counts are one",
    )
    sets: tuple[Family, ...] = Field(
        default=("share", "alone", "random", "kind"),
        min_length=1,
        description="families of sets: " + ", ".join(FAMILIES),
    )
    shares: tuple[float, ...] = Field(
        default=(0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
        min_length=1,
        description="of all heads; share: those whose rows the surrogate is closest to first; alone: those first that "
        "change the next token least when they alone are replaced",
    )
    choosing: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="share of the groups of training prompts that no fit reads; orders of heads, greedy selection and "
        "the best null are chosen on them",
    )
    alone_texts: int = Field(default=4, ge=1, description="texts of each strategy on which single heads are replaced")
    alone_map: bool = Field(
        default=False, description="replace every head alone for table and map, where the sets hold no `alone`"
    )
    random_draws: int = Field(default=2, ge=1, description="random sets of each size")
    greedy: Greedy = Field(default=Greedy(), description="of the family `greedy`")
    first_position: Literal["leader", "levels"] = Field(
        default="leader",
        description="leader: in all arms of a set the first position gets what the surrogate whose order makes the set "
        "says of it, from static inputs and training texts; levels: the head's mean log odds on training texts",
    )
    real_first_position: bool = Field(
        default=True, description="also with the first position as the running head has it, a control"
    )
    generate: tuple[float, ...] = Field(
        default=(0.1, 0.25, 0.5), description="shares of heads with which continuations are written"
    )
    generate_nulls: bool = Field(default=True, description="continuations with the nulls in the same heads, too")
    margin: float = Field(default=0.05, gt=0, lt=1, description="how large a change of seq_rep_4 would not matter")
    training_texts: int = Field(
        default=6, ge=1, description="choosing texts of each strategy on which the best null is chosen"
    )
    held_out_texts: int | None = Field(
        default=None, ge=1, description="held-out texts of each strategy on which nats are lost; all by default"
    )
    max_length: int = Field(default=256, ge=8, description="tokens of a text that are read")
    layers_per_unit: int = Field(default=5, ge=1, description="layers that are fitted together")

    @field_validator("surrogates", "leaders")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates(value, registry.surrogates("heads"))
        return value

    @field_validator("nulls", "controls")
    @classmethod
    def _arms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates([name for name in value if name not in CONTROLS], registry.surrogates("heads"))
        if len(set(value)) < len(value):
            raise ValueError(f"an arm is listed twice: {list(value)}")
        return value

    @field_validator("shares", "generate")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share <= 1 for share in value) or len(set(value)) < len(value):
            raise ValueError(f"shares are distinct, above 0 and at most 1, got {list(value)}")
        return tuple(sorted(value))

    @field_validator("layers")
    @classmethod
    def _layers(cls, value: Literal["all"] | tuple[int, ...]) -> Literal["all"] | tuple[int, ...]:
        return distinct_layers(value)

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if missing := [name for name in self.leaders if name not in self.surrogates]:
            raise ValueError(f"leaders: {missing[0]!r} is not among the surrogates")
        if not self.nulls:
            raise ValueError("nulls: at least one is needed, such as counts")
        return self

    @property
    def fitted(self) -> tuple[str, ...]:
        """All surrogates of heads that any arm needs, each once, in the order of the ladder."""
        named = {name for name in (*self.surrogates, *self.nulls, *self.controls) if name not in CONTROLS}
        return tuple(registry.ladder(named))
