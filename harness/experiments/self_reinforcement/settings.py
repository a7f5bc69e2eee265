"""The settings of the experiment `self-reinforcement`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from harness.config.strict import Growing
from harness.core import registry
from harness.experiments._shared.ladder import checked_ladder
from harness.experiments._shared.loop_rules import CONTROLS
from harness.experiments._shared.settings import known_surrogates

Kind = Literal["natural", "random", "self-written"]
KINDS: tuple[Kind, ...] = ("natural", "random", "self-written")
LOGITS = ("context-logit", "context-logit-closed")
LADDER = ("counts", "recency + followed-by-1", "followed-by-2", "followed-by-3", "followed-by-4 + longest-match")


class SelfReinforcement(Growing):
    """A sentence stands k times in the context: how likely are its tokens in repetition k + 1?"""

    continues: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = frozenset({"surrogates", "chains", "heads", "head_nulls"})
    rounding: ClassVar[frozenset[str]] = frozenset({"layers_per_unit"})

    kind: Literal["self-reinforcement"]
    sentences: tuple[Kind, ...] = Field(
        default=KINDS,
        min_length=1,
        description="natural: the first tokens of a held-out prompt; random: tokens drawn with their frequencies in "
        "what the model wrote on training prompts; self-written: the first tokens of the model's own greedy "
        "continuation of the prompt",
    )
    length: int = Field(default=16, ge=2, description="tokens of a sentence")
    repetitions: int = Field(
        default=12, ge=2, description="the largest k: how often the sentence stands in the context"
    )
    preambles: tuple[int, ...] = Field(
        default=(0, 32),
        min_length=1,
        description="tokens of another held-out prompt that come before the first repetition, each number a condition",
    )
    surrogates: tuple[str, ...] = Field(
        default=("unigram-cache", "bigram", "suffix", "context-logit"),
        description="surrogates over the whole vocabulary, fitted to the model's probabilities along training texts",
    )
    statistics: tuple[str, ...] = Field(
        default=LADDER,
        min_length=1,
        description="the nested ladder of context-logit: each entry is added to those before it; several at once are "
        "joined by +",
    )
    chains: tuple[str, ...] = Field(
        default=("counts", "in-context-bigram", "ccmc-fit"),
        description="surrogates of the next token inside the context; counts and ccmc-fit are closed chains, which the "
        "theory says are flat",
    )
    heads: tuple[str, ...] = Field(
        default=("pccmc-weights",),
        description="surrogates that take the place of the heads that they fit best while the model runs, layer 0 left "
        "out; none: []",
    )
    head_nulls: tuple[str, ...] = Field(
        default=("counts",), description="what else takes the place of the same heads, with the first position alike"
    )
    head_shares: tuple[float, ...] = Field(default=(0.25,), min_length=1, description="shares of all heads")
    choosing: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="share of the groups of training prompts that no fit of heads reads; their order is chosen on them",
    )
    max_length: int = Field(default=160, ge=8, description="tokens of a training text that fits of heads read")
    layers_per_unit: int = Field(default=5, ge=1, description="layers that are fitted together")
    neutral: str = Field(default="\n", min_length=1, description="context after which base transitions are read off")
    top: int = Field(default=256, ge=1, description="tokens that a row of base transitions keeps")
    margin: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="how large a slope of the mean probability per doubling of k would not matter",
    )

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(self.preambles) + self.length * (self.repetitions + 1)

    @field_validator("sentences", "preambles")
    @classmethod
    def _distinct(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"something is listed twice: {list(value)}")
        return value

    @field_validator("preambles")
    @classmethod
    def _lengths(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(length < 0 for length in value):
            raise ValueError(f"preambles are numbers of tokens, at least 0, got {list(value)}")
        return value

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates(value, registry.surrogates("vocabulary"))
        return value

    @field_validator("heads")
    @classmethod
    def _heads(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates(value, registry.surrogates("heads"))
        return value

    @field_validator("head_nulls")
    @classmethod
    def _nulls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates([name for name in value if name not in CONTROLS], registry.surrogates("heads"))
        if len(set(value)) < len(value):
            raise ValueError(f"an arm is listed twice: {list(value)}")
        return value

    @field_validator("head_shares")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share <= 1 for share in value) or len(set(value)) < len(value):
            raise ValueError(f"shares are distinct, above 0 and at most 1, got {list(value)}")
        return tuple(sorted(value))

    @field_validator("chains")
    @classmethod
    def _chains(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = registry.surrogates("next-token")
        known_surrogates(value, known)
        for name in value:
            if known[name].open or known[name].needs:
                raise ValueError(f"chains stay inside the context and need nothing but texts; {name!r} is no such one")
        return value

    @field_validator("statistics")
    @classmethod
    def _statistics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_ladder(value)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if both := set(self.surrogates) & set(self.chains):
            raise ValueError(
                f"{sorted(both)[0]!r} is among the surrogates and the chains: rows could not tell them apart"
            )
        return self
