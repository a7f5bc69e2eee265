"""The settings of generation: how models continue prompts, and how strategies are named in rows."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from harness.config.strict import Growing

OPTIONS = ("temperature", "top_k", "top_p", "min_p", "beams", "repetition_penalty", "no_repeat_ngram")


class Sampling(Growing):
    """How the next token is chosen. With a temperature it is sampled, without one the most likely is taken.

    `top_k`, `top_p` and `min_p` cut off the tail of softmax(logits / temperature); `beams` keeps the likeliest
    sequences instead; `repetition_penalty` and `no_repeat_ngram` hold back tokens of the context.
    """

    later: ClassVar[frozenset[str]] = frozenset(OPTIONS)

    temperature: float | None = Field(
        default=None, gt=0, le=10, description="the next token is sampled from softmax(logits / temperature)"
    )
    top_k: int | None = Field(default=None, ge=1, description="only the k most likely tokens are sampled from")
    top_p: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="only the most likely tokens that together have this probability are sampled from",
    )
    min_p: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="only tokens with at least this share of the largest probability are sampled from",
    )
    beams: int | None = Field(default=None, ge=2, le=64, description="beam search of this width, without sampling")
    repetition_penalty: float | None = Field(
        default=None,
        gt=1,
        le=10,
        description="logits of tokens of the context are divided by it where positive, multiplied where negative",
    )
    no_repeat_ngram: int | None = Field(
        default=None, ge=2, le=64, description="no n-gram of this length is written twice"
    )

    @model_validator(mode="after")
    def _possible(self) -> Sampling:
        given = self.options()
        if not given:
            raise ValueError("a strategy is `greedy`, or a mapping with at least one of " + ", ".join(OPTIONS))
        for cut in ("top_k", "top_p", "min_p"):
            if cut in given and self.temperature is None:
                raise ValueError(f"{cut} cuts off a sample: give a temperature too, such as temperature: 1.0")
        if self.beams is not None and self.temperature is not None:
            raise ValueError("beams with a temperature is not supported: beam search does not sample")
        return self

    def options(self) -> dict[str, Any]:
        """What was given, in the order of names in rows."""
        return {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}


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


def is_sampled(name: str | None) -> bool:
    """Does the strategy of this name in rows sample? Rows without a strategy come from chains, which do."""
    return name is None or "temperature=" in name


class Generation(Growing):
    """How a language model continues its prompts."""

    later: ClassVar[frozenset[str]] = frozenset({"chat", "record", "bos", "special_strings", "use_model_defaults"})
    harmless: ClassVar[frozenset[str]] = frozenset({"seeds", "strategies"})
    rounding: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    max_new_tokens: int = Field(default=128, ge=1, le=8192, description="tokens of a continuation, at most")
    strategies: tuple[Strategy, ...] = Field(
        default=("greedy", Sampling(temperature=1.0)),
        min_length=1,
        description="how the next token is chosen: `greedy`, or mappings of sampling settings",
    )
    seeds: int = Field(
        default=1, ge=1, le=1000, description="continuations of each prompt by the model, where the strategy samples"
    )
    batch_size: int = Field(
        default=16,
        ge=1,
        description="prompts that are continued at once; changes memory and speed, not results beyond rounding",
    )
    ignore_eos: bool = Field(default=False, description="continue past the end token")
    chat: bool = Field(default=False, description="every prompt is a user's turn of the model's chat template")
    bos: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="how every text and every later window of a long one begins: `auto` as the tokenizer begins a text "
        "and the chat template a chat, `always` with the BOS token, `never` with it",
    )
    special_strings: Literal["split", "parse"] = Field(
        default="split",
        description="special strings such as `<|im_start|>` in texts and chats: read as text, or `parse` them as the "
        "tokens of that name",
    )
    use_model_defaults: bool = Field(
        default=False,
        description="take the decoding fields of each model's generation_config.json where a strategy says nothing "
        "else: penalties and forbidden tokens always, cuts of samples where a strategy samples, length_penalty and "
        "early_stopping with beams; strategies decide whether there is sampling. Surrogates follow the options that "
        "strategies have, not other fields",
    )
    record: bool = Field(default=False, description="score the continuations and keep the figures of each token")

    @field_validator("strategies")
    @classmethod
    def _distinct(cls, value: tuple[Strategy, ...]) -> tuple[Strategy, ...]:
        names = [strategy_name(s) for s in value]
        if len(set(names)) < len(names):
            raise ValueError(f"a strategy is listed twice: {names}")
        return value
