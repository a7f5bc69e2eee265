"""Attention rows of replaced heads, for the queries of one pass of a running model, with a cache or without.

Shapes: B texts, H heads of which h are replaced, t queries of this pass, T tokens so far, L keys that the layer still
holds (a sliding layer drops the oldest), all of them the last of the T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from harness.attention.blocks import HIDDEN
from harness.attention.capture import FloatArray, key_heads
from harness.attention.loop_terms import LoopTerms, PairForm, PairTable, QueryProfile, TokenRows, permuted
from harness.models.halves import full

SinkRule = Literal["own", "levels", "real"]


@dataclass
class Tokens:
    """The tokens of a batch so far, padded on the left.

    Attributes:
        ids: [B, T] in the model's ids; local: [B, T] in local ids, -1 outside the vocabulary.
        valid: bool [B, T], False for padding.
        position: [B, T] counted from the first token of each text; 0 for padding.
        new: t, how many of the last belong to this pass.
        rows: by the identity of a `TokenRows`, [B, T] the row of each token.
    """

    # of the same tokens on other devices, where layers of one model are; who sees whom is the same in many layers
    _copies: dict[torch.device, Tokens] = field(default_factory=dict, init=False, repr=False, compare=False)
    _sights: dict[tuple[int, int | None], Sight] = field(default_factory=dict, init=False, repr=False, compare=False)

    ids: torch.Tensor
    local: torch.Tensor
    valid: torch.Tensor
    position: torch.Tensor
    new: int
    rows: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """T."""
        return int(self.ids.shape[1])

    def on(self, device: torch.device) -> Tokens:
        """The same on the device of a layer; copied once a pass."""
        if device == self.ids.device:
            return self
        if device not in self._copies:
            of_all = (self.ids, self.local, self.valid, self.position)
            ids, local, valid, position = (part.to(device) for part in of_all)
            rows = {name: part.to(device) for name, part in self.rows.items()}
            self._copies[device] = Tokens(ids, local, valid, position, self.new, rows)
        return self._copies[device]

    def sight(self, keys: int, window: int | None) -> Sight:
        """Who sees whom among the last so many tokens as keys and the new ones as queries; made once a pass."""
        if (keys, window) not in self._sights:
            self._sights[keys, window] = Sight.of(self, keys, window)
        return self._sights[keys, window]


class Grown:
    """Numbers per position that grow with a text [..., T, d]; what is there already is not copied at every step."""

    def __init__(self) -> None:
        self.length, self._room = 0, torch.empty(0)

    def upto(self, length: int, new: int, make: Callable[[slice], torch.Tensor]) -> torch.Tensor:
        """Those of T positions, of which the last t are new; all are made where the others are not known."""
        start = length - new if self.length == length - new else 0
        made = make(slice(start, length))
        if start == 0 or length > self._room.shape[-2]:
            room = made.new_empty(*made.shape[:-2], length if start == 0 else 2 * length, made.shape[-1])
            room[..., :start, :] = self._room[..., :start, :] if start else room[..., :0, :]
            self._room = room
        self._room[..., start:length, :] = made
        self.length = length
        return self._room[..., :length, :]


def by_group(left: torch.Tensor, right: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """Products [B, h, t, m] of chosen heads [h]: left [B, H, t, c] times what key heads have [B, G, c, m].

    With all heads, in their order, nothing is copied for the heads that share a key head.
    """
    (texts, count, steps, _), groups = left.shape, right.shape[1]
    if len(heads) == count:
        found = left.reshape(texts, groups, count // groups * steps, -1) @ right
        return found.reshape(texts, count, steps, -1)
    return left[:, heads] @ right[:, key_heads(count, groups).to(right.device)[heads]]


@dataclass(frozen=True)
class Product:
    """What a layer hands to its attention.

    Attributes:
        query: [B, H, t, d]; key: [B, G, L, d].
        scaling, softcap, window: of the scores.
    """

    query: torch.Tensor
    key: torch.Tensor
    scaling: float
    softcap: float | None
    window: int | None

    def scores(self, query: torch.Tensor, key: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
        """Scores [B, h, t, L] of chosen heads [h], from queries [B, H, t, d] and keys [B, G, L, d]."""
        if query.dtype != key.dtype:  # of the running model in 16 bits, and of static inputs
            query, key = full(query), full(key)
        found = by_group(query, key.transpose(2, 3), heads) * self.scaling
        return found if self.softcap is None else self.softcap * torch.tanh(found / self.softcap)


@dataclass(frozen=True)
class Sight:
    """Who sees whom.

    Attributes:
        distance: [t, L] how far a key lies before a query.
        seen: bool [B, t, L]; a query of the padding sees itself, since a row without keys would be NaN.
        first: bool [B, L], the first position of each text.
        keys, queries: which of the T tokens these are.
    """

    distance: torch.Tensor
    seen: torch.Tensor
    first: torch.Tensor
    keys: slice
    queries: slice

    @cached_property
    def others(self) -> torch.Tensor:
        """[B, 1, t, L] what is seen but for the first position."""
        return (self.seen & ~self.first[:, None])[:, None]

    @cached_property
    def at_first(self) -> torch.Tensor:
        """[B, 1, t, L] the first position, where it is seen."""
        return (self.seen & self.first[:, None])[:, None]

    @classmethod
    def of(cls, tokens: Tokens, keys: int, window: int | None) -> Sight:
        """The last so many of the tokens as keys, the new ones as queries."""
        length, device = tokens.length, tokens.ids.device
        of_keys, of_queries = slice(length - keys, length), slice(length - tokens.new, length)
        places = torch.arange(length, device=device)
        distance = places[of_queries, None] - places[None, of_keys]
        valid = tokens.valid[:, of_keys]
        seen = (distance >= 0)[None] & valid[:, None]
        if window is not None:
            seen = seen & (distance < window)[None]
        seen = seen | ((distance == 0)[None] & ~tokens.valid[:, of_queries, None])
        return cls(distance, seen, valid & (tokens.position[:, of_keys] == 0), of_keys, of_queries)


@dataclass
class Statics:
    """Static queries of this pass, [B, H, t, d], and static keys of all tokens so far, [B, G, T, d]."""

    query: torch.Tensor
    key: torch.Tensor


class HeadRows:
    """The rows of some heads of a layer, from their terms.

    Args:
        terms: of all heads of the layer.
        heads: which are replaced.
        table: what the layer's heads make of single tokens, where terms need it.
        sink: rule for the first position, see `replace`.
        levels: [H] its log odds, where the rule needs them.
    """

    def __init__(
        self,
        terms: LoopTerms,
        heads: torch.Tensor,
        table: TokenRows | None,
        sink: SinkRule,
        levels: FloatArray | None,
    ) -> None:
        self.terms, self.heads, self.table, self.sink, self.levels = terms, heads, table, sink, levels
        self._kept: dict[str, torch.Tensor] = {}
        self._form: tuple[torch.Tensor, torch.Tensor] | None = None
        self._keys, self._form_keys, self._form_levels = Grown(), Grown(), Grown()

    def of(
        self, product: Product, tokens: Tokens, statics: Statics | None, odds: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[B, h, t, L] rows; odds: log odds [B or 1, h, t or 1] of the first position in the place of its own."""
        sight = tokens.sight(product.key.shape[2], product.window)
        dtype = torch.promote_types(product.query.dtype, torch.float32)
        score = self._scores(product, tokens, sight, statics)
        score = None if score is None else score.to(dtype)
        if score is not None and self._is_plain and odds is None:
            return torch.softmax(score.masked_fill(~sight.seen[:, None], -torch.inf), -1)
        others, at_first = sight.others, sight.at_first
        rest = self._log(score, product, tokens, sight, dtype).masked_fill(~others, HIDDEN)
        weight = self._weight(score, sight, dtype) if odds is None else None
        if weight is not None:
            return torch.softmax(torch.where(at_first, weight[..., None], rest), -1)
        share = torch.sigmoid(self._odds(score, product, tokens, sight, dtype) if odds is None else odds)
        share = torch.where(others.any(-1), share, 1.0)[..., None]  # the first position may be alone
        share = torch.where(at_first.any(-1, keepdim=True), share, 0.0)
        return torch.where(at_first, share, torch.softmax(rest, -1) * (1.0 - share))

    def odds(self, product: Product, tokens: Tokens, statics: Statics | None) -> torch.Tensor:
        """[B or 1, h, t or 1] log odds of the first position against all others, by the terms and the rule."""
        sight = tokens.sight(product.key.shape[2], product.window)
        dtype = torch.promote_types(product.query.dtype, torch.float32)
        score = self._scores(product, tokens, sight, statics)
        score = None if score is None else score.to(dtype)
        weight = self._weight(score, sight, dtype)
        if weight is None:
            return self._odds(score, product, tokens, sight, dtype)
        log = self._log(score, product, tokens, sight, dtype).masked_fill(~sight.others, HIDDEN)
        return weight - torch.logsumexp(log, -1)

    def _log(
        self, score: torch.Tensor | None, product: Product, tokens: Tokens, sight: Sight, dtype: torch.dtype
    ) -> torch.Tensor:
        """[B, h, t, L] log weights before normalisation, of keys that a query does not see too."""
        parts = self._parts(score, tokens, sight, dtype)
        log = parts[0] if parts else product.query.new_zeros(1, 1, 1, 1, dtype=dtype)
        for part in parts[1:]:
            log = log + part
        return log.expand(len(tokens.ids), len(self.heads), *sight.distance.shape)

    @property
    def _is_plain(self) -> bool:
        """Are log weights the scores, that of the first position among them?"""
        terms = self.terms
        more = (terms.scale, terms.profile, terms.of_query, terms.place, terms.pairs, terms.form, terms.odds)
        return self.sink == "own" and terms.sink == "score" and all(part is None for part in more)

    def _on(self, name: str, values: Any, like: torch.Tensor) -> torch.Tensor:
        """Numbers [H, ...] of the replaced heads as a tensor, converted once."""
        if name not in self._kept:
            made = torch.as_tensor(values, dtype=like.dtype, device=like.device)
            self._kept[name] = made[self.heads] if len(made) > 1 else made.expand(len(self.heads), *made.shape[1:])
        return self._kept[name]

    def _per_place(
        self, name: str, values: Callable[[int], FloatArray], length: int, like: torch.Tensor
    ) -> torch.Tensor:
        """[h, >= length] values per distance or position; computed anew when a text has grown to twice its length."""
        if name not in self._kept or self._kept[name].shape[1] < length:
            self._kept.pop(name, None)
            self._on(name, values(max(64, 2 * length)), like)
        return self._kept[name]

    def _scores(self, product: Product, tokens: Tokens, sight: Sight, statics: Statics | None) -> torch.Tensor | None:
        if self.terms.key is None:
            return None
        query, key = product.query, product.key
        if "token" in {self.terms.query, self.terms.key}:
            assert self.table is not None
            rows = tokens.rows[id(self.table)]
            of_sink = self.table.static.sink_type
            if of_sink is not None:
                rows = torch.where(tokens.valid & (tokens.position == 0), of_sink, rows)
            table = self.table
            query = self._in_order(table.query.of(rows[:, sight.queries]), 0)
            made = self._keys.upto(tokens.length, tokens.new, lambda at: self._in_order(table.key.of(rows[:, at]), 1))
            key = made[:, :, sight.keys]
        else:
            assert statics is not None or (self.terms.query, self.terms.key) == ("model", "model")
            if statics is not None and self.terms.query == "placed":
                query = statics.query
            if statics is not None and self.terms.key == "placed":
                key = statics.key[:, :, sight.keys]
        return product.scores(query, key, self.heads)

    def _in_order(self, side: torch.Tensor, which: int) -> torch.Tensor:
        """[B, n, t, d] from a side [n, B, t, d] of tokens, its channels in the order that the terms want."""
        if self.terms.channels is not None:
            side = permuted(side, self.terms.channels[which])
        return side.transpose(0, 1)

    def _parts(
        self, score: torch.Tensor | None, tokens: Tokens, sight: Sight, dtype: torch.dtype
    ) -> list[torch.Tensor]:
        """What is added up, each of a shape like [B, h, t, L]."""
        terms, found = self.terms, []
        like = torch.empty(0, dtype=dtype, device=tokens.ids.device)
        if score is not None:
            scale = None if terms.scale is None else self._on("scale", terms.scale, like)
            found.append(score if scale is None else score * scale[:, None, None])
        if terms.profile is not None:
            profile = self._per_place("profile", terms.profile, tokens.length, like)
            found.append(profile[:, sight.distance.clamp(min=0)][None])
        if terms.of_query is not None:
            found.append(self._of_query(terms.of_query, tokens, sight, like))
        if terms.place is not None:
            place = self._per_place("place", terms.place, tokens.length, like)
            found.append(place[:, tokens.position[:, sight.keys]].transpose(0, 1)[:, :, None])
        if terms.pairs is not None:
            found.append(self._of_pairs(terms.pairs, tokens, sight, like))
        if terms.form is not None:
            found.append(self._of_form(terms.form, tokens, sight, dtype))
        return found

    def _of_query(self, profile: QueryProfile, tokens: Tokens, sight: Sight, like: torch.Tensor) -> torch.Tensor:
        values = self._on("of query", profile.values, like)
        buckets = torch.as_tensor(profile.buckets(tokens.length), device=like.device)[sight.distance.clamp(min=0)]
        local = tokens.local[:, sight.queries]
        rows = values[:, torch.where(local < 0, values.shape[1] - 1, local)]  # [h, B, t, D]
        wanted = buckets.expand(*rows.shape[:2], *buckets.shape)
        return rows.gather(-1, wanted).transpose(0, 1)

    def _of_pairs(self, pairs: PairTable, tokens: Tokens, sight: Sight, like: torch.Tensor) -> torch.Tensor:
        if len(pairs.codes) == 0:
            return like.new_zeros(1, 1, 1, 1)
        if "codes" not in self._kept:
            self._kept["codes"] = torch.as_tensor(pairs.codes, device=like.device)
        codes, values = self._kept["codes"], self._on("pairs", pairs.values, like)
        query, key = tokens.local[:, sight.queries, None], tokens.local[:, None, sight.keys]
        wanted = query * pairs.size + key
        at = torch.searchsorted(codes, wanted).clamp(max=len(codes) - 1)
        known = (codes[at] == wanted) & (query >= 0) & (key >= 0)
        return torch.where(known, values[:, at], 0.0).transpose(0, 1)

    def _of_form(self, form: PairForm, tokens: Tokens, sight: Sight, dtype: torch.dtype) -> torch.Tensor:
        assert self.table is not None
        table, rows = self.table, tokens.rows[id(self.table)]
        level = self._on("form level", form.level, torch.empty(0, dtype=dtype, device=rows.device))
        if self._form is None:
            self._form = table.form_matrix(form)
        query = table.form_queries(*self._form, rows[:, sight.queries], dtype)
        key = self._form_keys.upto(tokens.length, tokens.new, lambda at: table.form_keys(rows[:, at], dtype))
        levels = self._form_levels.upto(
            tokens.length, tokens.new, lambda at: table.form_levels(level, rows[:, at])[..., None]
        )
        found = by_group(query, key[:, :, sight.keys].transpose(2, 3), self.heads)
        return found + levels[:, :, sight.keys].transpose(2, 3)

    def _weight(self, score: torch.Tensor | None, sight: Sight, dtype: torch.dtype) -> torch.Tensor | None:
        """[B or 1, h, t or 1] log weight of the first position; None where log odds are given instead."""
        if self.sink != "own" or self.terms.sink is None or self.terms.odds is not None:
            return None
        if self.terms.sink == "level":
            return self._on("level", self.terms.level, torch.empty(0, dtype=dtype, device=sight.first.device))[:, None]
        assert score is not None
        return _of_first(score, sight)

    def _odds(
        self, score: torch.Tensor | None, product: Product, tokens: Tokens, sight: Sight, dtype: torch.dtype
    ) -> torch.Tensor:
        """[B or 1, h, t or 1] log odds of the first position against all others."""
        like = torch.empty(0, dtype=dtype, device=sight.first.device)
        if self.sink == "real":
            return _odds_of_first(product.scores(product.query, product.key, self.heads).to(dtype), sight)
        odds = self.terms.odds
        if self.sink == "levels" or odds is None:
            return self._on("levels", self.levels, like)[:, None]
        assert score is not None
        a, c = (self._on(name, part, like)[:, None] for name, part in (("a", odds.a), ("c", odds.c)))
        local = tokens.local[:, sight.queries]
        effect = self._on("effect", odds.effect, like)[:, local.clamp(min=0)].transpose(0, 1)
        return a + c * _odds_of_first(score, sight) + torch.where(local[:, None] >= 0, effect, 0.0)


def _of_first(score: torch.Tensor, sight: Sight) -> torch.Tensor:
    """[B, h, t] scores of the first position; 0 where the layer no longer holds it."""
    return torch.where(sight.first[:, None, None], score, 0.0).sum(-1)


def _odds_of_first(score: torch.Tensor, sight: Sight) -> torch.Tensor:
    """[B, h, t] log odds of the first position by scores [B, h, t, L]; any number where nothing else is seen."""
    others = score.masked_fill(~sight.others, HIDDEN)
    return _of_first(score, sight) - torch.logsumexp(others, -1)


@dataclass
class Seen:
    """How many tokens have passed, padding left out, and how many of them are outside the vocabulary."""

    tokens: int = 0
    outside: int = 0
    kinds: set[int] = field(default_factory=set)

    @property
    def share(self) -> float:
        """Of tokens outside the vocabulary; 0 before any has passed."""
        return self.outside / self.tokens if self.tokens else 0.0
