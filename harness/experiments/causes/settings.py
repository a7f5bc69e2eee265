"""The settings of the experiment `causes`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from harness.config.strict import Growing
from harness.config.texts import Prose
from harness.experiments._shared.settings import distinct_layers

Name = Literal[
    "counts", "recency", "induction", "previous-token", "duplicate-token", "sink", "mlp-noise",
    "repetition-penalty", "frequency-penalty",
]  # fmt: skip
Kind = Literal["induction", "previous-token", "duplicate-token", "sink"]
Context = Literal["natural", "set-up"]
Sort = Literal["human", "own"]
INTERVENTIONS: tuple[Name, ...] = get_args(Name)
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Kinds of heads, as `measures.head_kinds` names them."""
CONTEXTS: tuple[Context, ...] = get_args(Context)
SORTS: tuple[Sort, ...] = get_args(Sort)
COUNTS, RECENCY, NOISE, NGRAM = "counts", "recency", "mlp-noise", "no-repeat-ngram"
NATURAL, SET_UP = CONTEXTS
HUMAN, OWN = SORTS


def random_name(kind: str) -> str:
    """What random heads in the number and layers of a kind are called."""
    return f"random like {kind}"


class Causes(Growing):
    """Interventions inside the running model, each as strong as a rise of the loss allows, and the repetition left."""

    continues: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = frozenset(
        {"interventions", "random_like", "levels", "generate", "matched_on", "contexts"}
    )

    kind: Literal["causes"]
    layers: Literal["all"] | tuple[int, ...] = Field(default="all", description="whose heads may be changed")
    interventions: tuple[Name, ...] = Field(
        default=INTERVENTIONS, min_length=1, description="what is done: " + ", ".join(INTERVENTIONS)
    )
    top_heads: int | None = Field(
        default=None,
        ge=1,
        description="a kind is so many heads with its highest score; null: all heads that the score makes one of the "
        "kind, as `in-the-loop` has it",
    )
    random_like: tuple[Kind, ...] = Field(
        default=("induction",),
        description="kinds of heads that random heads of the same number in the same layers are compared with",
    )
    no_repeat_ngram: int | None = Field(
        default=4, ge=2, le=64, description="a reference without a level: no n-gram of this length is written twice"
    )
    levels: tuple[float, ...] = Field(
        default=(0.02, 0.05, 0.1, 0.2),
        min_length=1,
        description="by how much the loss rises, nats per token: the strength of each intervention is set so",
    )
    generate: tuple[float, ...] | None = Field(
        default=None, description="levels at which continuations are written; null: all"
    )
    matched_on: tuple[Sort, ...] = Field(
        default=SORTS,
        min_length=1,
        description="texts on which the loss is matched, each apart: human, own (the model's at temperature 1)",
    )
    texts: str | Prose | None = Field(
        default=None,
        description="human-like texts: a file of {id, kind, text}, or {dataset: ...}; null: the training prompts",
    )
    contexts: tuple[Context, ...] = Field(
        default=CONTEXTS,
        min_length=1,
        description="what is continued: natural, the prompt; set-up, one of its sentences `repeats` times",
    )
    repeats: int = Field(default=4, ge=2, le=64, description="k: how often the sentence stands in the context")
    calibration_texts: int = Field(default=48, ge=2, description="texts of each sort that the loss is matched on")
    learning_texts: int = Field(
        default=48, ge=1, description="texts of the model that kinds of heads, means and sizes of outputs are read off"
    )
    max_length: int = Field(default=160, ge=8, description="tokens of a text that are read")
    margin: float = Field(default=0.05, gt=0, lt=1, description="how large a change of seq_rep_4 would not matter")

    @field_validator("layers")
    @classmethod
    def _layers(cls, value: Literal["all"] | tuple[int, ...]) -> Literal["all"] | tuple[int, ...]:
        return distinct_layers(value)

    @field_validator("interventions", "matched_on", "contexts", "random_like")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"listed twice: {list(value)}")
        return value

    @field_validator("levels", "generate")
    @classmethod
    def _levels(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is None:
            return value
        if any(not 0 < x <= 5 for x in value) or len(set(value)) < len(value):
            raise ValueError(f"levels are distinct, above 0 and at most 5 nats, got {list(value)}")
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _known(self) -> Self:
        if missing := [x for x in self.generate or () if x not in self.levels]:
            raise ValueError(f"generate: {missing[0]:g} is not among the levels")
        if missing_kind := [kind for kind in self.random_like if kind not in self.interventions]:
            raise ValueError(f"random_like: {missing_kind[0]!r} is not among the interventions")
        return self

    @property
    def written(self) -> tuple[float, ...]:
        """The levels at which continuations are written."""
        return self.levels if self.generate is None else self.generate

    @property
    def names(self) -> list[str]:
        """All interventions with a strength, random heads behind the kind that they are like."""
        found: list[str] = []
        for name in self.interventions:
            found.append(name)
            if name in self.random_like:
                found.append(random_name(name))
        return found
