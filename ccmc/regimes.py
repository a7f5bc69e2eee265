"""Two context logits and a hidden state: a text is in one regime or the other, and tends to stay there.

    z_1 ~ first,  z_t | z_{t-1} ~ transition[z_{t-1}, :],  next token | context, z ~ context logit with weights of z.

The state is not seen. What the tokens so far say of it, the filtered probability of each state, weighs the two laws, so
that the law of the next token is a function of the context alone. A copy that has gone on for some tokens makes more
copying likely, and a copy that was left less: no statistic of one context logit remembers that.

Both states have the same weight of log P0: then what a new token says of the state does not depend on which token it
is, and nothing of the size of the vocabulary is needed.

Source: this project; Bengio and Frasconi 1995, An Input Output HMM Architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.numbered import NumberedText
from ccmc._data.types import BoolArray, FloatArray, IntArray
from ccmc._logit.names import columns_of
from ccmc.base import BaseTransition
from ccmc.choice import BASE, ChoiceRows, LogitFit, fit_context_logit
from ccmc.context_logit import ContextLogit
from ccmc.context_rows import context_rows

LONG = 4  # tokens of a match in which a fit supposes the second state at first
SURE = 0.9  # probability with which it does
STAY = 0.9  # and with which a state stays


@dataclass(frozen=True, eq=False)
class RegimeLogit:
    """Two context logits with a hidden state.

    Attributes:
        weights: of each state, by name, the same names in both and the same weight of log P0.
        base: P0.
        transition: [2, 2] from row to column.
        first: [2] at the first choice of a text, that after one token.

    Raises:
        ValueError: names or weights of log P0 differ, or probabilities are none.
    """

    weights: tuple[Mapping[str, float], Mapping[str, float]]
    base: BaseTransition
    transition: FloatArray
    first: FloatArray

    def __post_init__(self) -> None:
        one, two = self.states
        if one.names != two.names or one.vector[0] != two.vector[0]:
            raise ValueError("both states have the same statistics and the same weight of log P0")
        for name, wanted, shape in (("transition", self.transition, (2, 2)), ("first", self.first, (2,))):
            p = np.asarray(wanted)
            if p.shape != shape or (p < 0).any() or (np.abs(p.sum(axis=-1) - 1) > 1e-9).any():
                raise ValueError(f"{name} must hold probabilities {list(shape)}, got {p.tolist()}")

    @property
    def states(self) -> tuple[ContextLogit, ContextLogit]:
        """The context logit of each state."""
        one, two = (ContextLogit(weights, self.base) for weights in self.weights)
        return one, two

    def along(self, text: ArrayLike, start: int = 1) -> tuple[FloatArray, FloatArray]:
        """Log probabilities along a text, as of `ContextLogit.along`; the filter reads the text from its beginning."""
        each = [one.along(text, 1) for one in self.states]
        before, _ = _filtered(self, np.array([0, len(each[0][1])]), np.column_stack([came for _, came in each]))
        log_p = np.log(np.maximum(before, 1e-300))[start - 1 :]
        inside, came = ([one[part][start - 1 :] for one in each] for part in (0, 1))
        mixed = np.logaddexp(log_p[:, :1] + inside[0], log_p[:, 1:] + inside[1])
        return mixed, np.logaddexp(log_p[:, 0] + came[0], log_p[:, 1] + came[1])

    def state_along(self, text: ArrayLike) -> FloatArray:
        """[T, 2] probability of the states before the choices after 1 .. T tokens, given the tokens so far."""
        tokens = np.asarray(text, dtype=np.int64)
        if len(tokens) < 2:
            return np.asarray(self.first, dtype=np.float64)[None]
        log_q = np.column_stack([one.log_probabilities(tokens, 1) for one in self.states])
        before, last = _filtered(self, np.array([0, len(log_q)]), log_q)
        return np.concatenate([before, last])

    def next_token(self, contexts: Sequence[ArrayLike]) -> FloatArray:
        """[n, V] distributions over all tokens after n contexts, each a sequence of at least one token."""
        state = np.stack([self.state_along(context)[-1] for context in contexts])
        one, two = (each.next_token(contexts) for each in self.states)
        found: FloatArray = state[:, :1] * one + state[:, 1:] * two
        return found

    def rollout(self, prompts: Sequence[ArrayLike], steps: int, seed: int, temperature: float | None = 1.0) -> IntArray:
        """Continue prompts by its own tokens, [n, steps], as `ContextLogit.rollout` does.

        Raises:
            ValueError: the temperature is not 1, as a tempered mixture is no mixture of tempered laws; or as of
                `ContextLogit.rollout`.
        """
        from ccmc._logit.walk import roll_regimes

        if temperature != 1.0:
            raise ValueError(f"two regimes are sampled as they are, at temperature 1, not {temperature}")
        one, two = self.states
        one.rollout(prompts, 0, seed)  # checks
        given = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
        known: dict[bytes, FloatArray] = {}
        for prompt in given:
            if (key := prompt.tobytes()) not in known:
                known[key] = self.state_along(prompt)[-1]
        first = np.array([known[prompt.tobytes()] for prompt in given]).reshape(-1, 2)
        vectors = (one.vector, two.vector)
        return roll_regimes(columns_of(one.names), vectors, self.base, self.transition, first, given, steps, seed)


@dataclass(frozen=True, eq=False)
class RegimeFit:
    """A fitted pair of regimes and how it was reached."""

    model: RegimeLogit
    """With the base transitions that were given for all texts, or those of the first."""
    single: LogitFit
    """The context logit without regimes that it started at."""
    losses: tuple[float, ...]
    """Cross-entropy to the targets, nats a choice, before each round and after the last."""
    share: float
    """Mean probability of the second state before the choices that were fitted."""


@dataclass(frozen=True, eq=False)
class RegimeRows:
    """All choices of some texts, from that after the first token on: the filter reads every one.

    Attributes:
        choices: n choices; those that are not fitted have no weight.
        ptr: [texts + 1] where the choices of each text begin.
        came: [n] the candidate that came, -1 for a token outside the context.
        long: [n] has the end of the context an earlier match of at least 4 tokens?
        base: P0, that of the first text where each has its own.
    """

    choices: ChoiceRows
    ptr: IntArray
    came: IntArray
    long: BoolArray
    base: BaseTransition

    @classmethod
    def of(
        cls,
        texts: Sequence[ArrayLike],
        names: Sequence[str],
        base: BaseTransition | Sequence[BaseTransition],
        starts: int | Sequence[int] = 1,
        targets: Literal["tokens"] | Sequence[tuple[FloatArray, FloatArray]] = "tokens",
        dtype: type[np.float32] | type[np.float64] = np.float64,
    ) -> RegimeRows:
        """Of texts.

        Args:
            texts, names, base, dtype: as of `context_rows`.
            starts: tokens before the first choice that is fitted, of all texts or each.
            targets: the tokens that came, or distributions as of `context_rows`, for the choices that are fitted.

        Raises:
            ValueError: as of `context_rows`.
        """
        numbered = [NumberedText.of(text) for text in texts]
        first = [starts] * len(numbered) if isinstance(starts, int) else list(starts)
        fitted = [np.arange(1, len(text.local)) >= start for text, start in zip(numbered, first, strict=True)]
        full = targets if isinstance(targets, str) else _from_first(numbered, first, targets)
        rows = context_rows(texts, names, base, 1, targets=full, dtype=dtype)
        one = base if isinstance(base, BaseTransition) else base[0]
        matches = context_rows(texts, ["longest-match"], one, 1, targets="none", dtype=np.float32)
        longest = np.maximum.reduceat(np.asarray(matches.features)[:, 0], matches.ptr[:-1])
        following = np.concatenate([text.local[1:] for text in numbered])
        came = np.where(following < np.diff(rows.ptr), rows.ptr[:-1] + following, -1)
        ptr = np.concatenate([[0], np.cumsum([len(text.local) - 1 for text in numbered])]).astype(np.int64)
        weighed = replace(rows, weights=np.concatenate(fitted).astype(np.float64))
        return cls(weighed, ptr, came, longest >= LONG, one)


def _from_first(
    numbered: Sequence[NumberedText], starts: Sequence[int], targets: Sequence[tuple[FloatArray, FloatArray]]
) -> list[tuple[FloatArray, FloatArray]]:
    """Targets of all choices; those that are not fitted have the first type of the text, which means nothing."""
    found = []
    for text, start, (inside, beyond) in zip(numbered, starts, targets, strict=True):
        of_types, others = np.zeros((len(text.local) - 1, len(text.types))), np.zeros((len(text.local) - 1, 2))
        of_types[: start - 1, 0] = 1.0
        of_types[start - 1 :], others[start - 1 :] = inside, beyond
        found.append((of_types, others))
    return found


def fit_regimes(
    rows: RegimeRows,
    *,
    rounds: int = 30,
    ridge: float = 1.0,
    tol: float = 1e-4,
    fixed: dict[str, float] | None = None,
) -> RegimeFit:
    """Fit two regimes by rounds of expectation and maximisation.

    A round filters the states along the texts, divides every target between the states by their shares of the
    mixture's probability, fits each state's weights to its part, and counts expected transitions of the tokens that
    came. It starts with the second state in long matches. Of all rounds the one with the least loss is kept.

    Args:
        rows: the choices.
        rounds: at most.
        ridge: of the fits of states: of a state that is rare nothing else may hold a weight.
        tol: a round that lowers the loss by less ends the fit.
        fixed: weights of log P0 and others that are not fitted, as of `fit_context_logit`.

    Raises:
        ValueError: as of `fit_context_logit`.
    """
    single = fit_context_logit(rows.choices, None, ridge, fixed=fixed)
    weight, vectors = rows.choices.weights / rows.choices.weights.sum(), [single.full, single.full]
    model = _model(rows, vectors, np.array([[STAY, 1 - STAY], [1 - STAY, STAY]]), np.array([SURE, 1 - SURE]))
    split = _Split(rows, single.full[0], ridge, {**(fixed or {}), BASE: single.full[0]})
    second = np.where(rows.long, SURE, 1 - SURE)
    outside = np.column_stack([1 - second, second])
    inside = outside[split.owner]
    best, share = model, float(second @ weight)
    losses = [-single.log_likelihood / float(rows.choices.weights.sum())]
    for _ in range(rounds):
        vectors = [split.fitted(inside[:, z], outside[:, z], vectors[z]) for z in (0, 1)]
        model = _model(rows, vectors, model.transition, model.first)
        inside, outside, loss, before, log_q = split.divided(model, vectors)
        if loss < min(losses):
            best, share = model, float(before[:, 1] @ weight)
        losses.append(loss)
        if losses[-2] - loss < tol and len(losses) > 2:
            break
        model = _counted(model, rows.ptr, log_q, before)
    return RegimeFit(best, single, tuple(losses), share)


def _model(rows: RegimeRows, vectors: Sequence[FloatArray], transition: FloatArray, first: FloatArray) -> RegimeLogit:
    one, two = (dict(zip((BASE, *rows.choices.names), vector.tolist(), strict=True)) for vector in vectors)
    return RegimeLogit((one, two), rows.base, transition, first)


def _filtered(model: RegimeLogit, ptr: IntArray, log_q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """[n, 2] probability of the states before each token, and [texts, 2] after the last."""
    from ccmc._logit.regime_kernels import filter_states

    before, last = np.empty(log_q.shape), np.empty((len(ptr) - 1, 2))
    first = np.asarray(model.first, dtype=np.float64)
    filter_states(ptr.astype(np.int64), np.ascontiguousarray(log_q), model.transition, first, before, last)
    return before, last


def _counted(model: RegimeLogit, ptr: IntArray, log_q: FloatArray, before: FloatArray) -> RegimeLogit:
    """The model with the transitions and first states that the tokens make likely; half a count is added to each."""
    from ccmc._logit.regime_kernels import count_pairs

    pairs, firsts = np.full((2, 2), 0.5), np.full(2, 0.5)
    count_pairs(ptr, log_q, before, model.transition, pairs, firsts)
    return replace(model, transition=pairs / pairs.sum(axis=1, keepdims=True), first=firsts / firsts.sum())


@dataclass(frozen=True, eq=False)
class _Split:
    """Choices that are divided between two states, the weight of log P0, and the ridge and fixed weights of fits."""

    rows: RegimeRows
    base: float
    ridge: float
    fixed: dict[str, float]

    @property
    def owner(self) -> IntArray:
        """[N] the choice of each candidate."""
        found: IntArray = np.repeat(np.arange(len(self.rows.choices)), np.diff(self.rows.choices.ptr))
        return found

    def fitted(self, inside: FloatArray, outside: FloatArray, start: FloatArray) -> FloatArray:
        """[1 + D] weights of one state, from its shares of targets [N] inside contexts and [n] outside."""
        rows, beyond = self.rows.choices, self.rows.choices.outside
        assert beyond is not None
        aim, mass = rows.targets * inside, beyond.target * outside
        weight = np.add.reduceat(aim, rows.ptr[:-1]) + mass
        empty = weight <= 1e-9
        aim, mass = aim / np.where(empty, 1.0, weight)[self.owner], mass / np.where(empty, 1.0, weight)
        left = 1.0 - np.add.reduceat(aim, rows.ptr[:-1]) - mass
        aim[rows.ptr[:-1][empty]] += left[empty]  # these count for nothing
        ratio = mass / np.where(beyond.target > 0, beyond.target, 1.0)
        own = replace(beyond, target=mass, log_base=beyond.log_base * ratio)
        of_state = replace(rows, targets=aim, weights=np.where(empty, 0.0, weight) * rows.weights, outside=own)
        return fit_context_logit(of_state, None, self.ridge, fixed=self.fixed, start=start, tol=1e-6).full

    def divided(
        self, model: RegimeLogit, vectors: Sequence[FloatArray]
    ) -> tuple[FloatArray, FloatArray, float, FloatArray, FloatArray]:
        """Shares of the states [N, 2] of candidates and [n, 2] of other tokens, the loss, the filter, and log q [n, 2].

        log q is that of the token that came, but for a log P0 of new tokens, which the states share.
        """
        from ccmc._logit.newton import log_probabilities

        rows, beyond = self.rows.choices, self.rows.choices.outside
        assert beyond is not None
        found = [log_probabilities(rows.terms, vector) for vector in vectors]
        of = np.column_stack([one for one, _ in found])
        rest = np.column_stack([-both[:, 1] for _, both in found])
        log_q = np.where(self.rows.came[:, None] >= 0, of[np.maximum(self.rows.came, 0)], rest)
        before, _ = _filtered(model, self.rows.ptr, log_q)
        log_p = np.log(np.maximum(before, 1e-300))
        inside, outside = of + log_p[self.owner], rest + log_p
        all_inside, all_outside = np.logaddexp(*inside.T), np.logaddexp(*outside.T)
        each = np.add.reduceat(rows.targets * all_inside, rows.ptr[:-1])
        each += self.base * beyond.log_base + beyond.target * all_outside
        loss = -float(each @ rows.weights / rows.weights.sum())
        return np.exp(inside - all_inside[:, None]), np.exp(outside - all_outside[:, None]), loss, before, log_q
