"""The settings of generation: how models continue prompts, and the experiments that look at the continuations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from harness.config.strict import Growing
from harness.config.texts import Prose
from harness.core.errors import nearest

_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "beams", "repetition_penalty", "no_repeat_ngram")


class Sampling(Growing):
    """How the next token is chosen. With a temperature it is sampled, without one the most likely is taken.

    `top_k`, `top_p` and `min_p` cut off the tail of softmax(logits / temperature); `beams` keeps the likeliest
    sequences instead; `repetition_penalty` and `no_repeat_ngram` hold back tokens of the context.
    """

    later: ClassVar[frozenset[str]] = frozenset(_OPTIONS)

    temperature: float | None = Field(default=None, gt=0, le=10)
    top_k: int | None = Field(default=None, ge=1)
    top_p: float | None = Field(default=None, gt=0, lt=1)
    min_p: float | None = Field(default=None, gt=0, lt=1)
    beams: int | None = Field(default=None, ge=2, le=64)
    repetition_penalty: float | None = Field(default=None, gt=1, le=10)
    no_repeat_ngram: int | None = Field(default=None, ge=2, le=64)

    @model_validator(mode="after")
    def _possible(self) -> Sampling:
        given = self.options()
        if not given:
            raise ValueError("a strategy is `greedy`, or a mapping with at least one of " + ", ".join(_OPTIONS))
        for cut in ("top_k", "top_p", "min_p"):
            if cut in given and self.temperature is None:
                raise ValueError(f"{cut} cuts off a sample: give a temperature too, such as temperature: 1.0")
        if self.beams is not None and self.temperature is not None:
            raise ValueError("beams with a temperature is not supported: beam search does not sample")
        return self

    def options(self) -> dict[str, Any]:
        """What was given, in the order of names in rows."""
        return {name: getattr(self, name) for name in _OPTIONS if getattr(self, name) is not None}


Strategy = Annotated[
    Annotated[Literal["greedy"], Tag("greedy")] | Annotated[Sampling, Tag("sampling")],
    Discriminator(lambda value: "greedy" if isinstance(value, str) else "sampling"),
]


def strategy_name(strategy: Strategy) -> str:
    """The name of a decoding strategy in rows and tables: `greedy`, `temperature=1`, `temperature=0.7,top_p=0.9`."""
    if isinstance(strategy, str):
        return strategy
    parts = [f"{name}={value:g}" for name, value in strategy.options().items()]
    greedy = strategy.temperature is None and strategy.beams is None
    return ",".join((["greedy"] if greedy else []) + parts)


def strategy_options(strategy: Strategy) -> dict[str, Any]:
    """The options of a strategy; none for greedy decoding."""
    return {} if isinstance(strategy, str) else strategy.options()


def has_one_continuation(strategy: Strategy) -> bool:
    """Does every seed give the same continuation?"""
    return isinstance(strategy, str) or strategy.temperature is None


class Generation(Growing):
    """How a language model continues its prompts."""

    later: ClassVar[frozenset[str]] = frozenset({"chat", "record"})

    max_new_tokens: int = Field(default=128, ge=1, le=8192)
    strategies: tuple[Strategy, ...] = Field(default=("greedy", Sampling(temperature=1.0)), min_length=1)
    seeds: int = Field(default=1, ge=1, le=1000)
    batch_size: int = Field(default=16, ge=1)
    ignore_eos: bool = False
    chat: bool = Field(default=False, description="every prompt is a user's turn of the model's chat template")
    record: bool = Field(default=False, description="score the continuations and keep the figures of each token")

    @field_validator("strategies")
    @classmethod
    def _distinct(cls, value: tuple[Strategy, ...]) -> tuple[Strategy, ...]:
        names = [strategy_name(s) for s in value]
        if len(set(names)) < len(names):
            raise ValueError(f"a strategy is listed twice: {names}")
        return value


HEAD_CHAINS = ("ccmc-head", "ccmc-mixture")
GENERATION_SURROGATES = (
    "counts",
    "bigram",
    "bigram-restricted",
    "in-context-bigram",
    "n-gram",
    "ccmc-fit",
    "ccmc-bilinear",
    *HEAD_CHAINS,
)


def known_surrogates(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that are not known, or listed twice.

    Raises:
        ValueError: names the nearest.
    """
    for name in names:
        if name not in known:
            raise ValueError(f"unknown surrogate {name!r}{nearest(name, known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"a surrogate is listed twice: {list(names)}")


class GenerationExperiment(Growing):
    """A model's own continuations against those of surrogates fitted to its next-token distributions."""

    later: ClassVar[frozenset[str]] = frozenset({"escape", "winners_at", "mean_field", "head_layers", "mixture_heads"})

    kind: Literal["generation"]
    surrogates: tuple[str, ...] = ("counts", "in-context-bigram", "ccmc-fit")
    rollout_seeds: int = Field(default=5, ge=1)
    escape: bool = Field(default=False, description="surrogates may leave the context, as often as in training")
    winners_at: tuple[int, ...] = Field(default=(), description="compare the k most frequent tokens, for these k")
    mean_field: bool = Field(default=False, description="predict the winners of ccmc-fit from the prompt's counts")
    head_layers: Literal["all"] | tuple[int, ...] = "all"
    mixture_heads: int = Field(default=16, ge=1, description="heads that ccmc-mixture mixes, the best in training")

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates(value, GENERATION_SURROGATES)
        return value

    @field_validator("winners_at")
    @classmethod
    def _sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(k < 1 for k in value) or len(set(value)) < len(value):
            raise ValueError(f"sizes of winner sets are distinct and at least 1, got {list(value)}")
        return value

    @model_validator(mode="after")
    def _needs_the_chain(self) -> GenerationExperiment:
        if self.mean_field and "ccmc-fit" not in self.surrogates:
            raise ValueError("mean_field predicts with the chain of ccmc-fit: list it under surrogates")
        return self


class CountAblation(Growing):
    """log(count of a token so far) is taken from the attention scores: does a model repeat less without it?"""

    kind: Literal["count-ablation"]
    strengths: tuple[float, ...] = Field(default=(0.5, 1.0), min_length=1)
    heads: int = Field(default=32, ge=1, description="size of the sets of best and of random heads")
    random_draws: int = Field(default=3, ge=1)
    repetition_penalties: tuple[float, ...] = (1.02, 1.05, 1.1, 1.2)
    no_repeat_ngrams: tuple[int, ...] = (4,)
    prose: str | Prose = Field(
        description="texts that people wrote, to measure the loss on: a file of {id, kind, text}, or {dataset: ...}"
    )
    max_length: int = Field(default=256, ge=16, description="tokens of a text that the loss is measured on")

    @field_validator("strengths")
    @classmethod
    def _strengths(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < x <= 4 for x in value) or len(set(value)) < len(value):
            raise ValueError(f"strengths are distinct, above 0 and at most 4, got {list(value)}")
        return value
