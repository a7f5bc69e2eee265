"""Walks of a law over the vocabulary to which a decoding strategy is applied, as it is to a model's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from harness.core.noise import uniforms_of_each
from harness.data.texts import FloatArray, IntArray

TOGETHER = 16  # paths whose laws are cut in one call


class LawReader(Protocol):
    """A growing context: tokens in, log laws [laws, V] out."""

    def read(self, tokens: Any, laws: int = 1) -> FloatArray: ...


def cut_walks(
    reader: Callable[[], LawReader | None], prompts: Sequence[IntArray], steps: int, seed: int, temperature: float,
    options: Mapping[str, Any],
) -> IntArray:  # fmt: skip
    """Continue prompts: [n, steps]. A prompt's tokens, its number among equal ones and the seed decide its path.

    A step takes a pass over the vocabulary, and of `top_p` a sort of it: some 3 ms a path with 50,000 tokens.

    Args:
        reader: of an empty context, under the law that is walked.
        prompts: n sequences of token ids.
        steps: tokens to add to each.
        seed: of the samples.
        temperature, options: of the strategy, see `harness.models.sampling.cuts`.
    """
    import torch

    from harness.models.sampling import cuts, draw, levels

    processors = cuts(temperature, dict(options))
    out = np.empty((len(prompts), steps), dtype=np.int64)
    of_each: Iterator[FloatArray] | None = None
    for first in range(0, len(prompts) if steps else 0, TOGETHER):
        part = prompts[first : first + TOGETHER]
        readers = [one for one in (reader() for _ in part) if one is not None]
        laws = np.concatenate([one.read(prompt) for one, prompt in zip(readers, part, strict=True)])
        of_each = of_each or uniforms_of_each(seed, prompts, steps, levels(laws.shape[1]))
        numbers = list(islice(of_each, len(part)))
        for step in range(steps):
            scores = torch.from_numpy(laws).float()
            for processor in processors:
                scores = processor(torch.zeros((len(part), 1), dtype=torch.long), scores)
            token, _ = draw(scores, np.stack([of_path[step] for of_path in numbers]))
            out[first : first + len(part), step] = token
            if step < steps - 1:
                laws = np.concatenate([one.read([t]) for one, t in zip(readers, token.tolist(), strict=True)])
    return out
