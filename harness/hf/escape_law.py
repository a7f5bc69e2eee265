"""Surrogates that were fitted to the tokens of a run's texts, open to a whole vocabulary.

A surrogate of the experiment `generation` speaks about the tokens of a context, or about those of a run's texts. As a
model it has to give every token some probability. Within the context it is left as it is:

    p(j) = (1 - e_i) s(j)  for tokens j of the context,    p(j) = e_i o_ij / sum of o outside the context  for others,

with s the surrogate, i the last token, and e and o as of `surrogates/_fitting/escape.py`. There o has the tokens of
training texts; all tokens beside them are one more type here, whose mass they share alike. `bigram` and `open-chain`
leave the context by rows of their own, o normalised, and need no e: the law of the first is o itself, that of the
second is o^a times a bonus for tokens of the context.

Source: this project; s may be the chain of Ildiz et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.special import log_softmax, logsumexp

from harness.surrogates._fitting.decoding import followers_of_tail
from harness.surrogates.next_token.n_gram import back_off

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
Inside = Literal["chain", "back-off", "bigram", "open-chain", "mixture"]
INSIDE: tuple[Inside, ...] = ("chain", "back-off", "bigram", "open-chain", "mixture")
OWN_ROWS = ("bigram", "open-chain")
"""Those that leave the context by rows of their own."""


@dataclass(frozen=True, eq=False)
class Rows:
    """One row over V tokens a query: what all rows share, and what is added to some of their entries.

    Attributes:
        common: [V] of all rows.
        own: [V, V] (CSR) what is added.
    """

    common: FloatArray
    own: sparse.csr_array

    def row(self, query: int) -> FloatArray:
        """[V] the row of a query, a copy."""
        found, stored = self.common.copy(), slice(self.own.indptr[query], self.own.indptr[query + 1])
        found[self.own.indices[stored]] += self.own.data[stored]
        return found


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """Mass of every token after every query, not normalised: o above.

    Attributes:
        mass: of tokens that are known.
        rest: [V] positive, mass of all others together after each query.
        known: [V] which tokens are known; the others share `rest` alike.
    """

    mass: Rows
    rest: FloatArray
    known: BoolArray

    @cached_property
    def others(self) -> IntArray:
        """Tokens that are not known."""
        return np.flatnonzero(~self.known)

    def row(self, query: int) -> FloatArray:
        """[V] o of a query, positive."""
        found = self.mass.row(query)
        if len(self.others):
            found[self.others] = self.rest[query] / len(self.others)
        return found


@dataclass(frozen=True, eq=False)
class Forms:
    """Base logits of H chains as products: theta_h[i, j] = cap_h(query_h[i] . key_h[j]).

    Attributes:
        place: [V] the row of each token in the tables.
        weights: [H] of the chains.
        queries, keys: [H, R, d].
        softcap: [H], 0 for none: c tanh(score / c).
    """

    place: IntArray
    weights: FloatArray
    queries: FloatArray
    keys: FloatArray
    softcap: FloatArray

    def logits(self, query: int, types: IntArray) -> FloatArray:
        """[H, U] base logits of some tokens after a query."""
        found: FloatArray = np.einsum("hd,hud->hu", self.queries[:, self.place[query]], self.keys[:, self.place[types]])
        capped = self.softcap > 0
        cap = self.softcap[capped, None]
        found[capped] = cap * np.tanh(found[capped] / cap)
        return found


@dataclass(frozen=True, eq=False)
class EscapeLaw:
    """The next token after a context, over V tokens.

    Attributes:
        inside: how the context is weighed. `chain`: m_j^w exp(theta_ij), with counts m; `mixture`: of several such
            chains, w = 1, and of the share of counts; `back-off`: what followed the end of the context before, as of
            the surrogate `n-gram`; `bigram`: rows of `elsewhere`, context or not; `open-chain`: such rows to the power
            a, times exp(b) m_j^w for tokens of the context.
        weights: `log-count`, w of a chain (0 where it is not named); of an open chain also `base`, a, and `present`, b;
            of a mixture `counts`, that of their share; of a back-off `order-N`, the mass of shorter histories, by the
            number of tokens N of the n-grams, the shortest first.
        theta: base logits of a chain; None: all alike.
        rate: [V] e, between 0 and 1; nothing is read of it for those that leave by rows of their own.
        elsewhere: o.
        closed: stay in the context: e is 0, and every other token gets -inf.
        forms: the chains of a mixture.
    """

    inside: Inside
    weights: Mapping[str, float]
    theta: Rows | None
    rate: FloatArray
    elsewhere: Elsewhere
    closed: bool = False
    forms: Forms | None = None

    def __post_init__(self) -> None:
        if self.inside not in INSIDE:
            raise ValueError(f"inside must be one of {', '.join(INSIDE)}, got {self.inside!r}")
        if self.closed and self.inside == "bigram":
            raise ValueError("a bigram has no context that it could be closed to")
        if (self.inside == "mixture") != (self.forms is not None):
            raise ValueError("a mixture, and nothing else, has forms")
        if not ((self.rate > 0) & (self.rate < 1)).all():
            raise ValueError("the rate of leaving the context lies between 0 and 1 after every query")

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.rate)

    @cached_property
    def orders(self) -> tuple[tuple[int, float], ...]:
        """Of a back-off: how many tokens of history, and the mass of shorter ones; the shortest first."""
        found = [(int(name.removeprefix("order-")) - 1, value) for name, value in self.weights.items()]
        return tuple(sorted(found))

    def log_inside(self, tokens: IntArray, types: IntArray, counts: FloatArray) -> FloatArray:
        """[U] log distribution over the types [U] of a context with counts [U]; `tokens` [T] are the context."""
        if self.inside == "back-off":
            place = np.searchsorted(types, tokens)
            follow = [
                np.bincount(followers_of_tail(place, length), minlength=len(types)).astype(np.float64)
                for length, _ in self.orders
            ]
            shares: FloatArray = np.log(back_off(follow, counts, np.array([mass for _, mass in self.orders])))
            return shares
        log: FloatArray = np.log(counts)
        if self.forms is not None:
            chains = log_softmax(log + self.forms.logits(int(tokens[-1]), types), axis=1)
            weights = np.append(self.forms.weights, self.weights.get("counts", 0.0))
            mixed: FloatArray = logsumexp(np.vstack([chains, log_softmax(log)]), axis=0, b=weights[:, None])
            return mixed
        log *= self.weights.get("log-count", 0.0)
        if self.inside == "open-chain":
            log += self.weights["base"] * np.log(self.elsewhere.row(int(tokens[-1]))[types])
        elif self.theta is not None:
            log += self.theta.row(int(tokens[-1]))[types]
        normalised: FloatArray = log_softmax(log)
        return normalised

    def log_law(self, tokens: IntArray, types: IntArray, counts: FloatArray) -> FloatArray:
        """[V] log distribution over all tokens; arguments as of `log_inside`."""
        query = int(tokens[-1])
        if self.inside in OWN_ROWS and not self.closed:
            whole: FloatArray = np.log(self.elsewhere.row(query))
            if self.inside == "open-chain":
                whole *= self.weights["base"]
                whole[types] += self.weights["present"] + self.weights["log-count"] * np.log(counts)
            return whole - logsumexp(whole)
        inside, found = self.log_inside(tokens, types, counts), np.full(self.vocab_size, -np.inf)
        if not self.closed:
            mass = self.elsewhere.row(query)
            mass[types] = 0.0
            if (total := mass.sum()) > 0:
                inside = inside + np.log1p(-self.rate[query])
                with np.errstate(divide="ignore"):
                    found = np.log(mass) + (np.log(self.rate[query]) - np.log(total))
        found[types] = inside
        return found


class EscapeReader:
    """A growing context under such a law: tokens in, log laws of the next one out.

    Args:
        law: whose laws are wanted.
    """

    def __init__(self, law: EscapeLaw) -> None:
        self.law = law
        self.tokens: IntArray = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.tokens)

    def copy(self) -> EscapeReader:
        """A reader of the same context that goes its own way."""
        other = EscapeReader(self.law)
        other.tokens = self.tokens
        return other

    def read(self, tokens: Any, laws: int = 1) -> FloatArray:
        """Read tokens [n], and give the log law [laws, V] after each of the last ones.

        Raises:
            ValueError: a token lies outside the vocabulary.
        """
        given = np.atleast_1d(np.asarray(tokens, dtype=np.int64))
        if len(given) and (given.min() < 0 or given.max() >= self.law.vocab_size):
            raise ValueError(f"a token lies outside the vocabulary of {self.law.vocab_size}")
        self.tokens = np.concatenate([self.tokens, given])
        found = np.empty((laws, self.law.vocab_size))
        for row, end in enumerate(range(len(self.tokens) - laws + 1, len(self.tokens) + 1)):
            types, counts = np.unique(self.tokens[:end], return_counts=True)
            found[row] = self.law.log_law(self.tokens[:end], types, counts.astype(np.float64))
        return found
