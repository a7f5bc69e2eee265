"""Log weights of a head as terms that work token by token, so that a head can be replaced while the model runs.

A surrogate says the same about a whole text (`LogWeights`, in blocks) and one token at a time (`LoopTerms`): the log
weight of the key at position l for the query at position t is

    scale x score(query, key) + profile[t - l] + of_query[query token, t - l] + place[l]
    + pairs[query token, key token] + form(query token, key token)

Counts need no term: a token that occurs m times has m positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse

from harness.attention.capture import FloatArray, IntArray
from harness.attention.static_inputs import StaticHeads

Side = Literal["token", "placed", "model"]
"""Where queries or keys come from: static inputs without position, or at their position, or the running model."""


@dataclass(frozen=True, eq=False)
class PairTable:
    """Numbers of single pairs of tokens, 0 for all others.

    Attributes:
        codes: [P] query * K + key in local ids, sorted.
        values: [H, P].
        size: K.
    """

    codes: IntArray
    values: FloatArray
    size: int

    @classmethod
    def of(cls, tables: Sequence[sparse.csr_array]) -> PairTable:
        """From one sparse table [K, K] by query and key per head."""
        size, coded = tables[0].shape[0], []
        for table in tables:
            entries = table.tocoo()
            coded.append(entries.row.astype(np.int64) * size + entries.col)
        codes = np.unique(np.concatenate(coded))
        values = np.zeros((len(tables), len(codes)))
        for head, (table, known) in enumerate(zip(tables, coded, strict=True)):
            values[head, np.searchsorted(codes, known)] = table.tocoo().data
        return cls(codes, values, size)


@dataclass(frozen=True, eq=False)
class PairForm:
    """level[key] + x^T M y: x and y are a head's query and key of two tokens without positions, standardised.

    Attributes:
        level: [H, K]; 0 for tokens outside the vocabulary.
        matrix: [H, d + 1, d] M; the last row belongs to a constant that x ends in.
        constant: that constant.
    """

    level: FloatArray
    matrix: FloatArray
    constant: float


@dataclass(frozen=True, eq=False)
class QueryProfile:
    """A profile over distances for every query token.

    Attributes:
        values: [H, K + 1, D] per bucket of distances; the last row is for tokens outside the vocabulary.
        buckets: gives [T] the bucket of each distance 0 ... T - 1 for a length T.
    """

    values: FloatArray
    buckets: Callable[[int], IntArray]


@dataclass(frozen=True, eq=False)
class FittedOdds:
    """Log odds of the first position: a + c x those of the scores + the effect of the query token.

    Attributes:
        a, c: [H].
        effect: [H, K]; 0 for tokens outside the vocabulary.
    """

    a: FloatArray
    c: FloatArray
    effect: FloatArray


@dataclass(frozen=True, eq=False)
class LoopTerms:
    """The log weights of the heads of a layer. What is None is missing from the sum.

    Attributes:
        static: the layer's heads with static inputs, where a side or the form needs them.
        query, key: where the two sides of the score come from; both None for no score.
        channels: orders [H, d] of the channels of queries, and [G, d] of keys: of permuted heads.
        scale: [H] of the score.
        profile: gives [H, T] per distance 0 ... T - 1 for a length T.
        of_query: such a profile for every query token.
        place: gives [H, T] per position of the key.
        pairs, form: of pairs of tokens.
        sink: what is said about the first position: "score", its key's; "level", the numbers of `level`; or nothing.
        level: [H] log weight of the first position.
        odds: fitted log odds of the first position instead, from those of the scores.
    """

    static: StaticHeads | None = None
    query: Side | None = None
    key: Side | None = None
    channels: tuple[IntArray, IntArray] | None = None
    scale: FloatArray | None = None
    profile: Callable[[int], FloatArray] | None = None
    of_query: QueryProfile | None = None
    place: Callable[[int], FloatArray] | None = None
    pairs: PairTable | None = None
    form: PairForm | None = None
    sink: Literal["score", "level"] | None = None
    level: FloatArray | None = None
    odds: FittedOdds | None = None

    def __post_init__(self) -> None:
        """Refuse terms that lack what they name."""
        sides = {self.query, self.key}
        if None in sides and sides != {None}:
            raise ValueError("a score needs a query and a key")
        if self.static is None and (sides & {"token", "placed"} or self.form is not None):
            raise ValueError("static queries, keys and forms need heads with static inputs")
        if self.sink == "score" and self.key is None:
            raise ValueError("the first position has no score where keys have none")
        if (self.sink == "level") != (self.level is not None):
            raise ValueError("a level of the first position needs its numbers, and numbers need sink='level'")
        if self.odds is not None and self.sink != "score":
            raise ValueError("fitted odds of the first position need those of the scores")


EXACT = LoopTerms(query="model", key="model", sink="score")
"""The model's own rows."""
FLAT = LoopTerms()
"""The same weight for every key; nothing is said about the first position."""


def uniform(heads: int) -> LoopTerms:
    """The same weight for every visible key, the first position included, for so many heads."""
    return LoopTerms(sink="level", level=np.zeros(heads))


@dataclass(frozen=True, eq=False)
class MeanOutput:
    """The output of every head is one vector, whatever the text.

    Attributes:
        values: [H, d].
    """

    values: FloatArray


def mean_log_odds(odds: Sequence[FloatArray], unseen: float = -1e29) -> FloatArray:
    """[H] mean log odds of the first position over the queries of training texts that see it.

    This is the rule for surrogates that say nothing about the first position: it does not read the running head.

    Args:
        odds: per text [H, n], as `HeadObservations.sink_odds` has them.
        unseen: odds below it mean that a query does not see the first position.

    Raises:
        ValueError: no query sees it.
    """
    every = np.concatenate(odds, axis=1).astype(float)
    seen = every[0] > unseen
    if not seen.any():
        raise ValueError("no query of the training texts sees the first position")
    mean: FloatArray = every[:, seen].mean(axis=1)
    return mean


class KnownRows:
    """Rows [..., R, d] that are never copied, and some that come later.

    Args:
        first: the rows 0 ... R - 1.
    """

    def __init__(self, first: torch.Tensor) -> None:
        self.first, self._more = first, first[..., :0, :]

    @property
    def length(self) -> int:
        """How many rows there are."""
        return int(self.first.shape[-2] + self._more.shape[-2])

    def add(self, rows: torch.Tensor) -> None:
        """Add rows behind the others."""
        self._more = torch.cat([self._more, rows], -2)

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """[..., B, t, d] the rows of numbers [B, t]."""
        size = self.first.shape[-2]
        if not self._more.shape[-2]:
            return self.first[..., rows, :]
        found = self.first[..., rows.clamp(max=size - 1), :]
        later = rows >= size
        if later.any():
            found[..., later, :] = self._more[..., rows[later] - size, :]
        return found


class TokenRows:
    """Static inputs of a layer and what its heads make of them without position, one row per token.

    Rows 0 ... K - 1 are the vocabulary, then the first position where it has an input of its own, then tokens outside
    the vocabulary, in the order in which they come.

    Args:
        static: the layer's heads.
    """

    def __init__(self, static: StaticHeads) -> None:
        self.static, self.size = static, len(static.ids)
        self.inputs = KnownRows(static.inputs)
        self.query, self.key = KnownRows(static.at_start.query), KnownRows(static.at_start.key)  # [H, R, d], [G, R, d]
        self.extra: dict[int, int] = {}
        self._standard: tuple[torch.Tensor, ...] | None = None

    def rows(self, local: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The row of each token: local ids, -1 outside the vocabulary, and the model's ids, of one shape."""
        found = local.clone()
        for place in torch.nonzero(local < 0).tolist():
            at = tuple(place)
            found[at] = self.extra[int(ids[at])]
        return found

    def learn(self, ids: Sequence[int]) -> None:
        """Give tokens outside the vocabulary a row each."""
        new = sorted(set(ids) - set(self.extra))
        if not new:
            return
        hidden, asked = self.static.outside(np.array(new, dtype=np.int64))
        for number, token in enumerate(new):
            self.extra[token] = self.inputs.length + number
        self.inputs.add(hidden)
        if self.query.first.shape[-1]:  # heads that are read at their positions alone come without these
            self.query.add(asked.query)
            self.key.add(asked.key)

    def form_matrix(self, form: PairForm) -> tuple[torch.Tensor, torch.Tensor]:
        """x^T M as a product with queries that are not standardised, [H, d, d], and a constant [H, 1, d]; float64."""
        mean, spread, _, _ = self._moments()
        matrix = torch.as_tensor(form.matrix, dtype=mean.dtype, device=mean.device)
        scaled = matrix[:, :-1] / spread
        return scaled, form.constant * matrix[:, -1:] - mean @ scaled

    def form_queries(
        self, matrix: torch.Tensor, constant: torch.Tensor, rows: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        """[B, H, t, d] x^T M of queries, by the rows [B, t] of their tokens and what `form_matrix` gives."""
        made = self.query.of(rows).double() @ matrix[:, None] + constant[:, None]  # [H, B, t, d]
        return made.transpose(0, 1).to(dtype)

    def form_keys(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """[B, G, t, d] y of keys."""
        _, _, mean, spread = self._moments()
        key = (self.key.of(rows).double() - mean[:, None]) / spread[:, None]  # [G, B, t, d]
        return key.transpose(0, 1).to(dtype)

    def form_levels(self, level: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """[B, h, t] the levels [h, K] of keys; 0 outside the vocabulary."""
        return torch.where(rows < self.size, level[:, rows.clamp(max=self.size - 1)], 0.0).transpose(0, 1)

    def _moments(self) -> tuple[torch.Tensor, ...]:
        """Mean [H, 1, d] and spread [H, 1, 1] of queries, then of keys, over the vocabulary; float64."""
        if self._standard is None:
            self._standard = (
                *_moments(self.query.first[:, : self.size]),
                *_moments(self.key.first[:, : self.size]),
            )
        return self._standard


def _moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [H, 1, d] and spread [H, 1, 1] of [H, K, d]; float64."""
    values = values.double()
    mean = values.mean(1, keepdim=True)
    spread = (values - mean).square().mean((1, 2), keepdim=True).sqrt()
    return mean, spread.clamp(min=1e-12)


def permuted(values: torch.Tensor, order: Any) -> torch.Tensor:
    """Channels of [n, ..., d] in the order [n, d] of each of the n heads."""
    index = torch.as_tensor(order, device=values.device)
    index = index.reshape(len(index), *[1] * (values.ndim - 2), -1).expand_as(values)
    return values.gather(-1, index)
