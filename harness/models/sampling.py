"""Drawing the next token inside `model.generate`, with random numbers that belong to each prompt.

The distribution is that of transformers: its own processors, in its order, and then softmax. Only the draw is made
here, because `torch.multinomial` takes its numbers from one stream for the whole batch: there, another prompt beside it
changes every continuation.

A token is drawn by halving: the ids are split into two halves, one is chosen by its share of the probability, and so
on, with a number of its own for each of the log2(vocabulary) choices. Two computations of one distribution that differ
by rounding, such as batches of other sizes, then rarely give another token: a choice changes where a number falls
between two shares that are equal but for rounding, which has a probability of about the rounding error itself. With one
number and the inverse of the cumulative distribution every boundary between two tokens is such a place: with errors of
6e-6 in 49,152 logits of 6 nats one draw in 175 changed, by halving one in 130,000. Gumbel-max is about as good as
halving (Daliri et al. 2024), but needs a number for every token, made on the CPU to be the same on every device: 4
million for each step of 16 prompts and 262,144 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers as hf
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from harness.core.noise import uniforms

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


def cuts(temperature: float, options: dict[str, Any]) -> list[LogitsProcessor]:
    """The processors of temperature, top_h, top_k, top_p and min_p, in the order in which transformers applies them."""
    made: list[LogitsProcessor] = []
    if temperature != 1.0:
        made.append(TemperatureLogitsWarper(float(temperature)))
    if options.get("top_h") is not None:
        made.append(hf.TopHLogitsWarper(float(options["top_h"])))
    if options.get("top_k") is not None:
        made.append(TopKLogitsWarper(int(options["top_k"])))
    if options.get("top_p") is not None:
        made.append(TopPLogitsWarper(float(options["top_p"])))
    if options.get("min_p") is not None:
        made.append(MinPLogitsWarper(float(options["min_p"])))
    return made


def levels(size: int) -> int:
    """How many choices between two halves lead to one of `size` tokens."""
    return max(size - 1, 0).bit_length()


_BLOCK = 512  # tokens of a block, a power of 2: the first choices are between sums of blocks, the last inside one


def draw(scores: torch.Tensor, uniform: FloatArray) -> tuple[IntArray, BoolArray]:
    """Draw one token for each row from softmax(scores). The choices are made on the CPU, which gets two small tables.

    Args:
        scores: [B, V] logits, minus infinity where a token is forbidden.
        uniform: [B, levels(V)] in [0, 1).

    Returns:
        tokens [B], each of positive probability; and [B] whether the row was a distribution at all: not NaN, and not
        every token forbidden.
    """
    if scores.device.type == "mps":  # has no float64
        scores = scores.cpu()
    rows, size = scores.shape
    width = min(_BLOCK, 1 << levels(size))
    weight = torch.exp(scores - scores.amax(-1, keepdim=True))
    weight = torch.nn.functional.pad(weight, (0, -size % width)).view(rows, -1, width)
    sums = weight.sum(-1, dtype=torch.float64).cpu().numpy().cumsum(axis=1)  # [B, blocks]
    high = levels(sums.shape[1])
    block = _halve(sums, uniform[:, :high])
    chosen = (
        weight[torch.arange(rows), torch.as_tensor(block, device=weight.device)].double().cpu().numpy()
    )  # [B, width]
    return block * width + _halve(chosen.cumsum(axis=1), uniform[:, high:]), np.isfinite(sums[:, -1])


def _halve(cumulative: FloatArray, uniform: FloatArray) -> IntArray:
    """The place [B] that choices between two halves lead to.

    Args:
        cumulative: [B, n] sums of the weights up to each place.
        uniform: [B, levels(n)].
    """
    rows, last, depth = np.arange(len(cumulative)), cumulative.shape[1] - 1, uniform.shape[1]
    place = np.zeros(len(cumulative), dtype=np.int64)  # the first of those that are left
    below, above = np.zeros(len(cumulative)), cumulative[:, -1]  # the sums before them and up to their last
    for level in range(depth):
        half = 1 << (depth - 1 - level)
        between = cumulative[rows, np.minimum(place + (half - 1), last)]
        upper = (uniform[:, level] * (above - below) >= between - below) & (above > between)
        place = place + half * upper
        below, above = np.where(upper, between, below), np.where(upper, above, between)
    return place


class Draw(LogitsProcessor):  # type: ignore[misc]
    """Leaves only the token that was drawn, so that greedy decoding takes it: stand it last.

    Args:
        prompts: [B] the ids of each row's prompt.
        seed: of the samples.
        steps: how many tokens will be drawn, at most.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], seed: int, steps: int) -> None:
        self._prompts, self._seed, self._steps = prompts, seed, steps
        self._uniforms: FloatArray | None = None  # [steps, B, levels]
        self._unsound: list[BoolArray] = []  # per step [B]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self._uniforms is None:
            each = levels(scores.shape[1])
            numbers = [uniforms(self._seed, prompt, self._steps, each) for prompt in self._prompts]
            self._uniforms = np.stack(numbers, axis=1)
        token, sound = draw(scores, self._uniforms[len(self._unsound)])
        self._unsound.append(~sound)
        left = torch.full_like(scores, -torch.inf)
        return left.scatter_(1, torch.as_tensor(token, device=scores.device)[:, None], 0.0)  # type: ignore[return-value]

    def first_unsound(self, row: int, length: int) -> int | None:
        """The first of `length` steps at which a row had no distribution to draw from; None where there is none."""
        return next((step for step, unsound in enumerate(self._unsound[:length]) if unsound[row]), None)


class Sound(LogitsProcessor):  # type: ignore[misc]
    """Changes nothing, and notes where the largest logit of a row is not finite: NaN, infinite, all are forbidden."""

    def __init__(self) -> None:
        self._unsound: list[torch.Tensor] = []  # per step [B]
        self._table: BoolArray | None = None  # [steps, B]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self._unsound.append(~torch.isfinite(scores.amax(-1)))  # the largest of some numbers and a NaN is NaN
        return scores

    def first_unsound(self, row: int, length: int) -> int | None:
        """The first of `length` steps at which a row was unsound; None where there is none."""
        if not self._unsound:
            return None
        if self._table is None:
            self._table = torch.stack(self._unsound).cpu().numpy()
        places = np.flatnonzero(self._table[:length, row])
        return int(places[0]) if len(places) else None


class UnsoundOutputError(FloatingPointError):
    """A model that says nothing about the next token of a text.

    Attributes:
        index: of the prompt.
        reason: where and why, without the prompt's name.
    """

    def __init__(self, index: int, step: int) -> None:
        self.index = index
        self.reason = (
            f"the model gives no probabilities for token {step} of its text, its logits are NaN or infinite, or every "
            "token is forbidden; look at its weights, or loosen the strategy"
        )
        super().__init__(f"prompt {index}: {self.reason}")
