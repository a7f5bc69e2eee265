"""The model's log-probability of each token that it wrote: kept while it writes, or found in one pass afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a model thought of each token of a continuation, before it was written: softmax(logits), nothing cut off.

    Attributes:
        log_probability: [T] of the token that was written, nats.
        entropy: [T] of the distribution, nats.
        in_context_mass: [T] probability of the tokens that stood in prompt and continuation so far.
        argmax: [T] the most probable token.
    """

    log_probability: FloatArray
    entropy: FloatArray
    in_context_mass: FloatArray
    argmax: IntArray


def score_tokens(model: Any, prompt: IntArray, continuation: IntArray, block: int = 64) -> TokenScores:
    """Score a finished continuation in one pass.

    Args:
        model: of `loading`.
        prompt: [L] token ids, at least one.
        continuation: [T] token ids.
        block: positions whose distributions are held at once.
    """
    ids = np.concatenate([prompt, continuation]).astype(np.int64)
    length, start = len(continuation), len(prompt) - 1
    log_probability, entropy, mass = np.zeros(length), np.zeros(length), np.zeros(length)
    argmax = np.zeros(length, dtype=np.int64)
    with torch.inference_mode():
        tokens = torch.as_tensor(ids, device=model.device)
        logits = model(tokens[None]).logits[0] if length else None  # [L + T, V]
        for first in range(0, length, block):
            assert logits is not None
            rows = slice(start + first, start + min(first + block, length))
            log = torch.log_softmax(logits[rows].double(), -1)  # [b, V]
            probability = log.exp()
            here = slice(first, first + len(log))
            log_probability[here] = log.gather(1, tokens[rows.start + 1 : rows.stop + 1, None])[:, 0].cpu().numpy()
            entropy[here] = -(probability * log).nan_to_num(0.0).sum(-1).cpu().numpy()
            argmax[here] = log.argmax(-1).cpu().numpy()
            for row in range(len(log)):
                seen = torch.as_tensor(np.unique(ids[: rows.start + row + 1]), device=model.device)
                mass[first + row] = float(probability[row, seen].sum())
    return TokenScores(log_probability, entropy, mass, argmax)


class Recorder(LogitsProcessor):  # type: ignore[misc]
    """Changes nothing, and keeps what the model says before anything else changes it: stand it first.

    Args:
        starts: where the prompt of each row begins, behind its padding.
    """

    def __init__(self, starts: Sequence[int]) -> None:
        self.starts = list(starts)
        self._seen: torch.Tensor | None = None  # [B, V] 1 where a token is in the context
        self._log: torch.Tensor | None = None  # [B, V] log-probabilities of the last step
        self._kept: list[torch.Tensor] = []  # per step [3, B]: entropy, mass in the context, most probable token
        self._chosen: list[torch.Tensor] = []  # per step but the last [B] log-probability of the token that was taken
        self._table: tuple[FloatArray, FloatArray] | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self._seen is None:
            self._seen = torch.zeros_like(scores, dtype=torch.float32)
            for row, start in enumerate(self.starts):
                self._seen[row, input_ids[row, start:]] = 1.0
        elif self._log is not None:
            last = input_ids[:, -1:]
            self._chosen.append(self._log.gather(1, last)[:, 0])
            self._seen.scatter_(1, last, 1.0)
        self._log = torch.log_softmax(scores.float(), dim=-1)
        p = torch.exp(self._log)
        entropy = -(p * self._log).nan_to_num(0.0).sum(-1)
        best = self._log.argmax(-1).double()
        self._kept.append(torch.stack([entropy.double(), (p * self._seen).sum(-1).double(), best]))
        return scores

    def scores(self, row: int, written: torch.Tensor, length: int) -> TokenScores:
        """The scores of one row of the batch.

        Args:
            row: which.
            written: [S] the tokens of all steps.
            length: how many of them to keep, from the first.
        """
        if self._table is None:
            self._table = (
                torch.stack(self._kept).cpu().numpy(),
                torch.stack(self._chosen).double().cpu().numpy() if (self._chosen) else np.zeros((0, len(self.starts))),
            )
        kept, chosen = self._table
        log_probability = chosen[:length, row]
        if length > len(log_probability):
            assert self._log is not None
            log_probability = np.append(log_probability, float(self._log[row, written[length - 1]]))
        entropy, mass, best = kept[:length, :, row].T
        return TokenScores(log_probability, entropy, mass, best.astype(np.int64))
