"""Interventions inside a running model, each with a strength: what is taken from scores, outputs, MLPs or logits.

A strength of 0 is the model as it is. One code path serves passes over texts, padded on the left or not, and `generate`
with a cache. What is taken from scores or outputs never touches the first position, the attention sink: its score
stays, and so does the output of its own query, which sees nothing else. Beam search reorders the rows of a batch and is
not supported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from harness.attention.capture import FloatArray, IntArray, attention_modules, key_heads
from harness.attention.loop_rows import Product, Sight, Tokens, by_group
from harness.attention.loop_running import Running
from harness.attention.replacing import attached, check_reach
from harness.core.errors import UsageError
from harness.core.noise import uniforms
from harness.core.seeds import derive_seed

Heads = Mapping[int, Sequence[int] | None]
"""Layer -> its heads, None for all of them."""
NO_VOCABULARY = np.zeros(1, dtype=np.int64)


class Intervention:
    """Something that is done to a model while it runs.

    Attributes:
        full: the strength at which it is complete; beyond it nothing is tried.
    """

    full: ClassVar[float] = 1.0

    def check(self, model: Any) -> None:
        """Refuse a model that lacks what is changed.

        Raises:
            UsageError: names the model's kind.
        """

    def bias(self, tokens: Tokens, sight: Sight) -> torch.Tensor | None:
        """[B, t, L] what strength 1 adds to scores, float64; None where scores stay."""
        return None

    def heads_of(self, layer: int) -> Sequence[int] | None:
        """Which heads of a layer get the bias; None for all."""
        return ()

    def output(self, layer: int, output: torch.Tensor, tokens: Tokens, strength: float) -> None:
        """Change the outputs [B, H, t, d] of the heads of a layer in place."""

    def hooks(self, model: Any, running: Running, strength: float) -> list[Any]:
        """Handles of further hooks on the model."""
        return []


@dataclass(frozen=True)
class Counts(Intervention):
    """log m is taken from the scores, m how often the key's token has occurred among the positions that the query sees.

    A token that occurs m times has m positions, so that all of them together lose the factor m.

    Attributes:
        heads: that lose it.
    """

    heads: Heads

    def heads_of(self, layer: int) -> Sequence[int] | None:
        return self.heads.get(layer, ())

    def bias(self, tokens: Tokens, sight: Sight) -> torch.Tensor:
        ids = tokens.ids[:, sight.keys]
        same = (ids[:, :, None] == ids[:, None, :]).double()  # [B, L, L]
        counted = (sight.seen & ~sight.first[:, None] & tokens.valid[:, None, sight.keys]).double()  # [B, t, L]
        return -torch.log((counted @ same).clamp(min=1.0)).masked_fill(sight.first[:, None], 0.0)


@dataclass(frozen=True)
class Recency(Intervention):
    """log(n / (1 + d)) is taken from the scores: d how far the key lies back, n how many positions the query sees.

    The farthest position loses nothing, the query's own position log n: a head whose attention falls as 1 / (1 + d)
    then attends evenly.

    Attributes:
        heads: that lose it.
    """

    full: ClassVar[float] = 2.0
    heads: Heads

    def heads_of(self, layer: int) -> Sequence[int] | None:
        return self.heads.get(layer, ())

    def bias(self, tokens: Tokens, sight: Sight) -> torch.Tensor:
        seen = (sight.seen & tokens.valid[:, None, sight.keys]).sum(-1, keepdim=True).clamp(min=1).double()  # [B, t, 1]
        distance = (1.0 + sight.distance.clamp(min=0).double())[None]
        return -torch.log((seen / distance).clamp(min=1.0)).masked_fill(sight.first[:, None], 0.0)


@dataclass(frozen=True, eq=False)
class OutputTable:
    """The mean outputs of some heads of a layer, by query token.

    Attributes:
        heads: which.
        ids: [K] tokens in the model's ids, sorted.
        values: [h, K + 1, d]; the last is the head's mean over all tokens, for tokens that are not among them.
    """

    heads: Sequence[int]
    ids: IntArray
    values: FloatArray


class MeanOutputs(Intervention):
    """Heads hand on (1 - strength) x their output + strength x its mean over training texts, by query token.

    Args:
        tables: layer -> the means of its heads.
    """

    def __init__(self, tables: Mapping[int, OutputTable]) -> None:
        self.tables = tables
        self._kept: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def output(self, layer: int, output: torch.Tensor, tokens: Tokens, strength: float) -> None:
        if layer not in self.tables:
            return
        if layer not in self._kept:
            table = self.tables[layer]
            self._kept[layer] = (
                torch.tensor(list(table.heads), device=output.device),
                torch.as_tensor(table.ids, device=output.device),
                torch.as_tensor(table.values, dtype=output.dtype, device=output.device),
            )
        heads, ids, values = self._kept[layer]
        asked, position = tokens.ids[:, -tokens.new :], tokens.position[:, -tokens.new :]
        at = torch.searchsorted(ids, asked.contiguous()).clamp(max=len(ids) - 1)
        row = torch.where(ids[at] == asked, at, len(ids))  # [B, t]
        mean = values[:, row].transpose(0, 1)  # [B, h, t, d]
        share = torch.where(position > 0, strength, 0.0).to(output.dtype)[:, None, :, None]
        output[:, heads] = (1 - share) * output[:, heads] + share * mean


@dataclass(frozen=True)
class MLPNoise(Intervention):
    """Gaussian noise on what MLPs hand on, `strength` times as large as their root mean square on training texts.

    The noise of a position belongs to the seed and to the tokens up to it: neither the batch nor a cache changes it.

    Attributes:
        scale: layer -> root mean square of the outputs of its MLP.
        seed: of the noise.
    """

    full: ClassVar[float] = 4.0
    scale: Mapping[int, float]
    seed: int

    def check(self, model: Any) -> None:
        mlp_modules(model)

    def hooks(self, model: Any, running: Running, strength: float) -> list[Any]:
        def after(layer: int) -> Callable[..., torch.Tensor]:
            def add(module: torch.nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
                assert running.tokens is not None
                noise = self._drawn(running.tokens, layer, output.shape[-1]).to(output.device, output.dtype)
                return output + strength * self.scale[layer] * noise.reshape(output.shape)

            return add

        return [module.register_forward_hook(after(layer)) for layer, module in mlp_modules(model).items()]

    def _drawn(self, tokens: Tokens, layer: int, width: int) -> torch.Tensor:
        """[B, t, D] standard normal numbers of a layer; 0 for padding and the first position."""
        made = torch.full((len(tokens.ids), tokens.new, width), 0.5, dtype=torch.float64)
        ids, seed = tokens.ids.cpu().numpy(), derive_seed(self.seed, layer)
        start, position = tokens.valid.long().argmax(1).tolist(), tokens.position.tolist()
        for row in range(len(ids)):
            for step in range(tokens.new):
                at = tokens.length - tokens.new + step
                if at > start[row] and position[row][at] > 0:
                    drawn = uniforms(seed, ids[row, start[row] : at + 1], 1, width)[0]
                    made[row, step] = torch.as_tensor(drawn)
        noise: torch.Tensor = torch.special.ndtri(made.clamp(min=1e-300))
        return noise


@dataclass(frozen=True)
class Penalty(Intervention):
    """What decoders do: logits of tokens of the context are held back, at every position of a text.

    Attributes:
        kind: "repetition": logits of tokens that have occurred are divided by 1 + strength where positive, multiplied
            where negative (Keskar et al., 2019); "frequency": strength x how often a token has occurred is subtracted,
            those of the prompt included.
    """

    full: ClassVar[float] = 9.0
    kind: Literal["repetition", "frequency"]

    def hooks(self, model: Any, running: Running, strength: float) -> list[Any]:
        def after(module: torch.nn.Module, given: Any, output: Any) -> Any:
            assert running.tokens is not None
            tokens = running.tokens.on(output.logits.device)
            output.logits = penalised(output.logits, tokens, self.kind, strength)
            return output

        return [model.register_forward_hook(after)]


def penalised(logits: torch.Tensor, tokens: Tokens, kind: str, strength: float) -> torch.Tensor:
    """Logits [B, k, V] of the last k positions under a penalty of the tokens up to each; changed in place."""
    if logits.shape[1] > tokens.new:
        raise UsageError("the model gives more logits than it was given tokens")
    for step in range(logits.shape[1]):
        stop = tokens.length - logits.shape[1] + step + 1
        ids, valid = tokens.ids[:, :stop], tokens.valid[:, :stop].to(logits.dtype)
        own = logits[:, step]
        if kind == "frequency":
            own.scatter_add_(1, ids, -strength * valid)
            continue
        weight = torch.zeros_like(own).scatter_add_(1, ids, valid)
        held = torch.where(own < 0, own * (1 + strength), own / (1 + strength))
        logits[:, step] = torch.where(weight > 0, held, own)
    return logits


class _Changed(Running):
    """A model that runs under an intervention."""

    def __init__(self, model: Any, change: Intervention, strength: float) -> None:
        super().__init__(model, [], NO_VOCABULARY)
        self.change, self.strength = change, strength
        self._bias: dict[tuple[int, int | None, torch.device], torch.Tensor] = {}
        self.on_output = self._output

    def _output(self, layer: int, output: torch.Tensor) -> None:
        assert self.tokens is not None
        self.change.output(layer, output, self.tokens.on(output.device), self.strength)

    def before_model(self, module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if self._inside is None:
            self._bias.clear()
        super().before_model(module, arguments, keywords)

    def attend(
        self, layer: int, product: Product, value: torch.Tensor, plain: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        chosen, tokens, count = self.change.heads_of(layer), self.tokens, product.query.shape[1]
        if chosen is not None and len(chosen) == 0:
            return super().attend(layer, product, value, plain)
        if self._inside is None or tokens is None or product.key.shape[2] > tokens.length:
            return super().attend(layer, product, value, plain)  # which says what is wrong
        heads = torch.arange(count) if chosen is None else torch.tensor(sorted(chosen))
        heads = heads.to(value.device)
        score = product.scores(product.query, product.key, heads)
        score = (
            score
            + self._of(product, tokens.on(score.device)).to(torch.promote_types(score.dtype, torch.float32))[:, None]
        )
        rows = torch.softmax(score, -1).to(value.dtype)
        if len(heads) == count:
            return by_group(rows, value, heads)
        output = plain().clone()
        groups = key_heads(count, value.shape[1]).to(value.device)
        output[:, heads] = (rows @ value[:, groups[heads]]).to(output.dtype)
        return output

    def _of(self, product: Product, tokens: Tokens) -> torch.Tensor:
        """[B, t, L] what is added to scores, -inf where a query must not look; made once for a pass."""
        key = product.key.shape[2], product.window, tokens.ids.device
        if key not in self._bias:
            sight = tokens.sight(product.key.shape[2], product.window)
            bias = self.change.bias(tokens, sight)
            assert bias is not None
            self._bias[key] = (self.strength * bias).masked_fill(~sight.seen, -torch.inf)
        return self._bias[key]


@contextmanager
def intervene(model: Any, change: Intervention, strength: float) -> Iterator[None]:
    """Within this block a model runs under an intervention; without strength it is the model as it is.

    Args:
        model: a causal language model of transformers, of a family that the capture supports. Padding is on the left.
        change: what is done.
        strength: from 0 to `change.full`.

    Raises:
        UsageError: the model cannot be reached, or lacks what is changed.
        ValueError: a strength outside of its range.
    """
    if not 0 <= strength <= change.full:
        raise ValueError(f"the strength lies between 0 and {change.full:g}, got {strength:g}")
    check_reach(model)
    change.check(model)
    if strength == 0:
        yield
        return
    running = _Changed(model, change, strength)
    with attached(model, running), ExitStack() as stack:
        for handle in change.hooks(model, running, strength):
            stack.callback(handle.remove)
        yield


def mlp_modules(model: Any) -> dict[int, torch.nn.Module]:
    """Layer -> the module whose output its MLP adds to the residual stream.

    Raises:
        UsageError: there is not one for each layer.
    """
    layers = len(attention_modules(model))
    for name in ("mlp", "fc2"):  # OPT has no module for the whole of it
        found = [module for path, module in model.named_modules() if path.rpartition(".")[2] == name]
        if found and len(found) == layers:
            return dict(enumerate(found))
    kind = model.config.get_text_config().model_type
    raise UsageError(f"the MLPs of {kind} cannot be told apart, so no noise is added to them; leave out mlp-noise")
