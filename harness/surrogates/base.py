"""What a surrogate is: made from what its declaration needs, fitted to observations; it predicts and rolls out."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch

from harness.attention.blocks import HIDDEN, Block, View
from harness.attention.log_weights import LogWeights, on
from harness.attention.loop_terms import LoopTerms
from harness.core import noise
from harness.core.declarations import SurrogateDeclaration
from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates._fitting.chain_walk import ChainTerms, Leaving, walk
from harness.surrogates._fitting.decoding import Decoding, continue_one
from harness.surrogates.observations import HeadObservations, NextTokenObservations, Observations

if TYPE_CHECKING:
    from ccmc import CCMC
    from harness.attention.static_inputs import StaticHeads

__all__ = [
    "Decoding",
    "Fact",
    "FloatArray",
    "HeadObservations",
    "HeadSurrogate",
    "Ingredients",
    "IntArray",
    "NextTokenObservations",
    "NextTokenSurrogate",
    "Observations",
    "Surrogate",
    "chain_rows",
]

Seen = TypeVar("Seen", bound=Observations)


@dataclass(frozen=True)
class Ingredients:
    """What surrogates are made of. A declaration names in `needs` what it takes beside the seed.

    Attributes:
        seed: of everything that is drawn or split at random.
        heads: of heads: those of the layer, with one static input per token.
        embeddings: of next-token surrogates: [K, D] of the local vocabulary.
        chains: of next-token surrogates: `HeadChain` of single heads, the best in training first.
    """

    seed: int
    heads: StaticHeads | None = None
    embeddings: FloatArray | None = None
    chains: Sequence[Any] = ()


@dataclass(frozen=True)
class Fact:
    """A number that a fit has found, such as a ridge: a row about the training texts.

    Attributes:
        metric: its name.
        value: may be infinite.
        where: other columns of the row, such as the head.
    """

    metric: str
    value: float
    where: dict[str, Any] = field(default_factory=dict)


class Surrogate(ABC, Generic[Seen]):
    """A stand-in for a model. `fit` returns self; what it learned ends in an underscore."""

    declaration: ClassVar[SurrogateDeclaration] = SurrogateDeclaration("")
    name: str = ""

    @classmethod
    def make(cls, given: Ingredients) -> Self:
        """Make a surrogate: its constructor gets what its declaration needs, and a seed where it takes one.

        Raises:
            ValueError: something that it needs is not given.
        """
        wanted = cls.needed(given)
        if "seed" in inspect.signature(cls).parameters:
            wanted["seed"] = given.seed
        return cls(**wanted)

    @classmethod
    def needed(cls, given: Ingredients) -> dict[str, Any]:
        """What the declaration needs, by name.

        Raises:
            ValueError: something is not given.
        """
        wanted = {name: getattr(given, name, None) for name in cls.declaration.needs}
        for name, value in wanted.items():
            if value is None or (name == "chains" and not value):
                raise ValueError(f"surrogate {cls.name!r} needs {name!r}, which is not given")
        return wanted

    def fit(self, observations: Seen) -> Self:
        """Learn from training texts. Surrogates that learn nothing only return themselves."""
        return self

    @abstractmethod
    def predict(self, text: Text) -> FloatArray:
        """Distributions over the types of a text, for each of its queries: [H, n, U], 0 outside the context.

        H is the number of heads, or 1 where all heads get the same.
        """

    def extra_rows(self) -> Iterable[Fact]:
        """What the fit has found, for rows about the training texts."""
        return ()


class HeadSurrogate(Surrogate[HeadObservations]):
    """A surrogate of the heads of a layer. A subclass defines `log_weights`, or `along` where speed matters."""

    predicts: ClassVar[bool] = True
    """False for a control that reads the model's own attention along the text, and so predicts nothing."""

    def __init_subclass__(cls, partial: bool = False, **more: Any) -> None:
        """Refuse a class that says nothing about attention; `partial` for a base of others."""
        super().__init_subclass__(**more)
        if not partial and cls.along is HeadSurrogate.along and cls.log_weights is HeadSurrogate.log_weights:
            raise TypeError(f"{cls.__name__} defines neither log_weights nor along")

    def log_weights(self, text: Text) -> FloatArray:
        """Log attention before normalisation, position by position.

        Args:
            text: `positions` [n] of the queries, `keys` [T - 1] positions of the keys; position 0 is left out.

        Returns:
            [n, T - 1], or [H, n, T - 1] with one table per head. Keys that a query does not see may hold anything.
        """
        raise NotImplementedError(f"{self.name} has no log weights of positions")

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        """Get ready for a text, whose blocks then may come in any order. By default, from `log_weights`."""
        table = np.maximum(self.log_weights(view.text), HIDDEN)  # 0 times a hidden key is 0, times infinity is nothing
        of_keys = on(view, np.swapaxes(table if table.ndim == 3 else table[None], 1, 2))

        def of(block: Block) -> LogWeights:
            heads = block.heads if len(of_keys) > 1 else slice(None)
            part = of_keys[heads, block.low - 1 : block.stop - 1, block.start - 1 : block.stop - 1]
            return LogWeights(part.contiguous(), by_token=False)

        return of

    def predict(self, text: Text) -> FloatArray:
        view, parts = View(text, self.device), []
        weights = self.along(view)
        for block in view.blocks(None):
            given = weights(block)
            log = given.summed(block).double()  # float32 would make zeros of what lies 88 nats below the best
            weight = torch.exp(log - log.amax(1, keepdim=True))
            token = view.by_type(weight if given.by_token else block.per_token(weight))
            parts.append((token / token.sum(1, keepdim=True)).cpu().numpy().transpose(0, 2, 1))
        return np.concatenate(parts, axis=1)

    def loop_terms(self) -> LoopTerms:
        """What `along` says, token by token: with it the surrogate stands in for heads while the model runs.

        Raises:
            TypeError: the surrogate has none.
        """
        raise TypeError(f"{self.name} has no terms that work token by token, and cannot replace heads in a model")

    @property
    def device(self) -> torch.device:
        """Where the surrogate computes."""
        return torch.device("cpu")


class Escapes(Protocol):
    """How a surrogate leaves its context: `_fitting.escape.Escape`."""

    vocab_size: int

    def mix(self, inside: FloatArray, counts: FloatArray, query: int) -> FloatArray: ...
    def leaving(self) -> Leaving: ...


class NextTokenSurrogate(Surrogate[NextTokenObservations]):
    """A surrogate of a language model's next token. A subclass defines `next_token`, or `predict` where speed matters.

    Attributes:
        vocab_size_: K, of an open surrogate.
    """

    vocab_size_: int

    def __init_subclass__(cls, partial: bool = False, **more: Any) -> None:
        """Refuse a class that predicts nothing; `partial` for a base of others."""
        super().__init_subclass__(**more)
        own = NextTokenSurrogate
        if not partial and cls.predict is own.predict and cls.next_token is own.next_token:
            raise TypeError(f"{cls.__name__} defines neither next_token nor predict")

    def predict(self, text: Text) -> FloatArray:
        rows = [
            self.next_token(text.types, counts, text.key_index[: position + 1 - text.first])
            for counts, position in zip(text.counts, text.positions.tolist(), strict=True)
        ]
        return np.stack(rows)[None]

    def loss(self, observations: NextTokenObservations) -> float:
        """Mean cross-entropy over the queries of some texts, nats: what a fit may minimise."""
        total = 0.0
        for text, target in zip(observations.texts, observations.targets, strict=True):
            held = target > 0
            with np.errstate(divide="ignore"):
                total -= float(target[held] @ np.log(self.predict(text)[0][held]))
        return total / sum(len(text) for text in observations.texts)

    @property
    def open(self) -> bool:
        """Does it speak about all tokens, those outside the context too?"""
        return self.declaration.open

    def leaving(self, text: Text) -> FloatArray | None:
        """[n] what it gives to tokens outside the context along a text; None where it gives them nothing."""
        return None

    def chain(self, types: IntArray) -> CCMC | None:
        """The chain over some tokens, by local id; None where the surrogate is no single chain."""
        return None

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        """One distribution while a text grows: [U].

        Args:
            types: [U] sorted types of the prompt; no other token can come.
            counts: [U] how often each has come so far.
            history: [t] columns of the tokens so far.
        """
        raise TypeError(f"{self.name} does not continue texts")

    def chain_terms(self, vocab_size: int) -> ChainTerms | None:
        """The surrogate as a mixture of chains, which compiled loops continue; None where it is none.

        Args:
            vocab_size: for surrogates that know no vocabulary: one more than the largest token.
        """
        return None

    def rollout(
        self,
        prompts: Sequence[IntArray],
        steps: Sequence[int],
        seed: int,
        decoding: Decoding,
        escape: Escapes | None = None,
        keys: Sequence[IntArray] | None = None,
    ) -> list[IntArray]:
        """Continue prompts with tokens of their own contexts, or with an escape also with others.

        Args:
            prompts: local ids.
            steps: how many tokens to add to each.
            seed: of the samples.
            decoding: the strategy of the real model.
            escape: how often and where to it leaves the context; None: never. An open surrogate needs none.
            keys: the model's own ids of each prompt. With the seed they decide its random numbers, so that
                its continuation does not depend on the other prompts; None: its place among the prompts decides.
        """
        keys = [np.array([index]) for index in range(len(steps))] if keys is None else keys
        uniforms = [noise.uniforms(seed, key, length)[:, 0] for key, length in zip(keys, steps, strict=True)]
        largest = max((int(prompt.max()) for prompt in prompts), default=0)
        size = largest + 1 if escape is None else escape.vocab_size
        terms = self.chain_terms(size) if decoding.beams is None else None
        if terms is not None:
            return walk(terms, prompts, uniforms, decoding, None if escape is None else escape.leaving())
        found = []
        for prompt, draws in zip(prompts, uniforms, strict=True):
            types, columns = self._table(prompt, escape)

            def follow(counts: FloatArray, history: IntArray, types: IntArray = types) -> FloatArray:
                inside = self.next_token(types, counts, history)
                return inside if escape is None or self.open else escape.mix(inside, counts, int(history[-1]))

            found.append(types[continue_one(follow, columns, len(types), draws, decoding)])
        return found

    def _table(self, prompt: IntArray, escape: Escapes | None) -> tuple[IntArray, IntArray]:
        """The tokens that may come, and the prompt as columns of them."""
        if escape is None and not self.open:
            types, columns = np.unique(prompt, return_inverse=True)
            return types, columns
        size = escape.vocab_size if escape is not None else self.vocab_size_
        return np.arange(size, dtype=np.int64), np.asarray(prompt, dtype=np.int64)


def chain_rows(counts: FloatArray, logits: FloatArray) -> FloatArray:
    """p(j | context) proportional to m_j exp(theta_j), in the log domain: counts [n, U], logits [..., n, U]."""
    with np.errstate(divide="ignore"):
        log = np.log(counts) + logits
    log -= log.max(axis=-1, keepdims=True)
    weight: FloatArray = np.exp(log)
    weight /= weight.sum(axis=-1, keepdims=True)
    return weight
