"""What happens in a model whose heads are being replaced: tokens are taken in, layers asked, outputs mixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.attention.capture import FloatArray, IntArray, attention_modules, key_heads
from harness.attention.loop_rows import Grown, HeadRows, Product, Seen, SinkRule, Statics, Tokens, by_group
from harness.attention.loop_terms import LoopTerms, MeanOutput, TokenRows
from harness.attention.static_inputs import StaticHeads
from harness.core.errors import UsageError

DROPPED = {"hidden_states", "attention_mask", "past_key_values", "layer_past", "cache_position", "use_cache"}


class _Asked(Exception):  # noqa: N818 - not an error: ends a call whose queries and keys are all that is wanted
    def __init__(self, query: torch.Tensor, key: torch.Tensor) -> None:
        super().__init__()
        self.query, self.key = query, key


@dataclass(frozen=True)
class Replacement:
    """What takes the place of some heads of a layer.

    Attributes:
        layer: which.
        terms: of all heads of the layer.
        heads: which of them are replaced; None for all.
        first: terms that have the word about the first position instead; rules for it apply to them.
    """

    layer: int
    terms: LoopTerms | MeanOutput
    heads: Sequence[int] | None = None
    first: LoopTerms | None = None

    @property
    def read(self) -> list[LoopTerms]:
        """All terms that take part."""
        return [one for one in (self.terms, self.first) if isinstance(one, LoopTerms)]


class Running:
    """A model whose heads are being replaced.

    Attributes:
        seen: tokens that have passed, and how many of them are outside the vocabulary.
        on_rows: called with layer, heads and rows [B, h, t, L] of each replacement; for looking at them.
        on_output: called with the layer and the outputs [B, H, t, d] of its heads, after replacement.
    """

    def __init__(
        self,
        model: Any,
        replaced: Sequence[Replacement],
        vocabulary: IntArray,
        tables: dict[int, TokenRows] | None = None,
    ) -> None:
        self.model, self.seen = model, Seen()
        self.on_rows: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None
        self.on_output: Callable[[int, torch.Tensor], None] | None = None
        self.tokens: Tokens | None = None
        self._vocabulary = torch.as_tensor(vocabulary, device=model.device)
        self._replaced: dict[int, list[Replacement]] = {}
        for one in replaced:
            self._replaced.setdefault(one.layer, []).append(one)
        self._rows: dict[int, HeadRows] = {}  # by the identity of the replacement
        self._first: dict[int, HeadRows] = {}  # likewise, where others have the word about the first position
        self._heads: dict[int, torch.Tensor] = {}
        self._tables: dict[int, TokenRows] = {}  # by the identity of static heads
        self._known = {} if tables is None else tables  # likewise, of runs before this one
        self._statics: dict[int, Statics] = {}  # of the pass, likewise
        self._keys: dict[int, Grown] = {}  # likewise
        self._paused = self._asking = False
        self._inside: torch.nn.Module | None = None  # that has taken in the tokens of the pass
        self._cache: Any = None
        self.layer = -1

    def prepare(self, one: Replacement, heads: int, sink: SinkRule, levels: FloatArray | None) -> None:
        """Get a replacement ready for a layer of so many heads.

        Raises:
            ValueError: heads that the layer does not have or that are replaced twice, another vocabulary, or no log
                odds of the first position where the rule needs them.
        """
        chosen = list(range(heads)) if one.heads is None else sorted(int(head) for head in one.heads)
        taken = {h for o in self._replaced[one.layer] if id(o) in self._heads for h in self._heads[id(o)].tolist()}
        for head in chosen:
            if not 0 <= head < heads:
                raise ValueError(f"layer {one.layer} has no head {head}: it has {heads}")
            if head in taken or chosen.count(head) > 1:
                raise ValueError(f"layer {one.layer}, head {head} is replaced twice")
        weights = attention_modules(self.model)[one.layer].parameters()  # layers may be on several devices
        device = next((weight.device for weight in weights), self.model.device)
        self._heads[id(one)] = torch.tensor(chosen, dtype=torch.long, device=device)
        if isinstance(one.terms, MeanOutput):
            return
        says = one.terms if one.first is None else one.first
        if levels is None and (sink == "levels" or (sink == "own" and says.sink is None)):
            raise ValueError(
                f"layer {one.layer}: the rule for the first position needs its log odds, levels[{one.layer}]"
            )
        self._rows[id(one)] = self._head_rows(one, one.terms, sink, levels)
        if one.first is not None:
            self._first[id(one)] = self._head_rows(one, one.first, sink, levels)

    def _head_rows(self, one: Replacement, terms: LoopTerms, sink: SinkRule, levels: FloatArray | None) -> HeadRows:
        static = terms.static
        if static is None:
            return HeadRows(terms, self._heads[id(one)], None, sink, levels)
        if not np.array_equal(static.ids, self._vocabulary.cpu().numpy()):
            raise ValueError(f"layer {one.layer}: the static inputs are of another vocabulary")
        if id(static) not in self._known:
            self._known[id(static)] = TokenRows(static)
        self._tables[id(static)] = self._known[id(static)]
        return HeadRows(terms, self._heads[id(one)], self._tables[id(static)], sink, levels)

    def before_model(self, module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Take in the tokens of a pass, where the outermost module that is called starts.

        Raises:
            UsageError: inputs that are no token ids, or a cache that was filled elsewhere.
        """
        if self._paused or self._inside is not None:
            return
        given = keywords.get("input_ids", arguments[0] if arguments else None)
        mask = keywords.get("attention_mask", arguments[1] if len(arguments) > 1 else None)
        if given is None:
            raise UsageError("replaced heads read token ids; the model was given embeddings")
        if isinstance(mask, dict) or (mask is not None and mask.ndim != 2):
            raise UsageError("replaced heads take an attention mask [texts, tokens]; the model was given another kind")
        cache = keywords.get("past_key_values")
        before = 0 if cache is None else int(cache.get_seq_length())
        if before == 0:
            ids, old = given, given[:, :0]
            self._statics.clear()
            self._keys.clear()
        elif self.tokens is None or self.tokens.ids.shape != (len(given), before):
            raise UsageError("the cache of the model was filled while its heads were not replaced")
        elif self._cache is not None and cache is not self._cache:
            raise UsageError("the cache is another than that of the pass before; replaced heads follow one at a time")
        else:
            ids, old = torch.cat([self.tokens.ids, given], 1), self.tokens.local
        self._cache = cache
        valid = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        at = torch.searchsorted(self._vocabulary, given).clamp(max=len(self._vocabulary) - 1)
        local = torch.where(self._vocabulary[at] == given, at, -1)
        fresh = valid[:, -given.shape[1] :]
        self._count(given[fresh], local[fresh])
        # padding is never a key of a text: any row will do
        local = torch.where(fresh, local, 0)
        position = (valid.long().cumsum(1) - 1).clamp(min=0)
        before_rows = {} if before == 0 or self.tokens is None else self.tokens.rows
        rows = {id(table): table.rows(local, given) for table in self._tables.values()}
        rows = {name: torch.cat([before_rows[name], new], 1) if before else new for name, new in rows.items()}
        self.tokens = Tokens(ids, torch.cat([old, local], 1), valid, position, given.shape[1], rows)
        self._inside = module

    def after_model(self, module: torch.nn.Module, arguments: Any, output: Any) -> None:
        """A pass is over where the module that started it ends, by an error too."""
        if module is self._inside:
            self._inside = None
            self._cache = getattr(output, "past_key_values", None) or self._cache  # the model may have made it

    def _count(self, ids: torch.Tensor, local: torch.Tensor) -> None:
        unseen = ids[local < 0].tolist()
        self.seen.tokens += len(ids)
        self.seen.outside += len(unseen)
        self.seen.kinds.update(unseen)
        if unseen:
            self._paused = True
            try:
                for table in self._tables.values():
                    table.learn(unseen)
            finally:
                self._paused = False

    def before_layer(self, layer: int, module: torch.nn.Module, hidden: torch.Tensor, options: dict[str, Any]) -> None:
        """Ask a layer for static queries and keys of the new tokens, at their positions."""
        if self._inside is None or self._asking:
            return
        self.layer = layer
        wanted: dict[int, StaticHeads] = {}
        for one in self._replaced.get(layer, ()):
            for terms in one.read:
                if "placed" in {terms.query, terms.key}:
                    assert terms.static is not None
                    wanted[id(terms.static)] = terms.static
        for number, static in wanted.items():
            query, key = self._ask(module, self._inputs(static, hidden), options)
            self._statics[number] = Statics(query, self._all_keys(number, key))

    def _all_keys(self, number: int, key: torch.Tensor) -> torch.Tensor:
        """[B, G, T, d] static keys of all tokens so far, from those of the new ones."""
        tokens, kept = self.tokens, self._keys.setdefault(number, Grown())
        assert tokens is not None
        if tokens.new < tokens.length and kept.length != tokens.length - tokens.new:
            raise UsageError("a pass before this one was broken off; start again without its cache")
        return kept.upto(tokens.length, tokens.new, lambda at: key)

    def _inputs(self, static: StaticHeads, hidden: torch.Tensor) -> torch.Tensor:
        """[B, t, D] static inputs of the new tokens; in layer 0 they are the model's own."""
        if static.call.layer == 0:
            return hidden
        assert self.tokens is not None
        tokens = self.tokens.on(hidden.device)
        table, new = self._tables[id(static)], slice(tokens.length - tokens.new, None)
        rows, position = tokens.rows[id(table)][:, new], tokens.position[:, new]
        if static.sink_type is not None:
            rows = torch.where((position == 0) & tokens.valid[:, new], static.sink_type, rows)
        inputs = table.inputs.of(rows)
        if static.effect is not None:
            inputs = inputs + static.effect[position.clamp(max=len(static.effect) - 1)]
        return inputs.to(hidden.dtype)

    def _statics_of(self, terms: LoopTerms) -> Statics | None:
        return None if terms.static is None else self._statics.get(id(terms.static))

    def _ask(
        self, module: torch.nn.Module, hidden: torch.Tensor, options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries [B, H, t, d] and keys [B, G, t, d] of a layer for given inputs.

        What ends the call is not kept: it knows all frames that it passed, and these would hold their tensors.
        """
        self._asking = True
        try:
            kept = {name: value for name, value in options.items() if name not in DROPPED}
            module.forward(hidden, attention_mask=None, **kept)
        except _Asked as asked:
            return asked.query, asked.key
        finally:
            self._asking = False
        raise UsageError(f"layer {self.layer} does not hand its queries and keys over")

    def attend(
        self, layer: int, product: Product, value: torch.Tensor, plain: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """The outputs of a layer's heads, [B, H, t, d]: of replaced heads by their rows, of the others as they are.

        Args:
            layer: which.
            product: its queries and keys.
            value: [B, G, L, d].
            plain: computes the outputs of all heads without replacement.
        """
        if self._asking:
            raise _Asked(product.query, product.key)
        replaced = self._replaced.get(layer, ())
        if self._inside is None:
            raise UsageError("a layer attends outside the model and its body, so its tokens are not known")
        assert self.tokens is not None
        tokens, heads = self.tokens.on(product.query.device), product.query.shape[1]
        if product.key.shape[2] > tokens.length:
            raise UsageError("replaced heads need a cache that holds no more keys than there are tokens")
        if sum(len(self._heads[id(one)]) for one in replaced) == heads:
            output = value.new_empty(len(value), heads, tokens.new, value.shape[-1])
        else:
            output = plain().clone()
        groups = key_heads(heads, value.shape[1]).to(value.device)
        for one in replaced:
            chosen = self._heads[id(one)]
            if isinstance(one.terms, MeanOutput):
                mean = torch.as_tensor(one.terms.values, dtype=output.dtype, device=output.device)
                output[:, chosen] = mean[chosen][:, None]
                continue
            odds = None
            if one.first is not None:
                odds = self._first[id(one)].odds(product, tokens, self._statics_of(one.first))
            rows = self._rows[id(one)].of(product, tokens, self._statics_of(one.terms), odds)
            if self.on_rows is not None:
                self.on_rows(layer, chosen, rows)
            if len(chosen) == heads:
                output[:, chosen] = by_group(rows.to(value.dtype), value, chosen).to(output.dtype)
            else:
                output[:, chosen] = (rows.to(value.dtype) @ value[:, groups[chosen]]).to(output.dtype)
        if self.on_output is not None:
            self.on_output(layer, output)
        return output
