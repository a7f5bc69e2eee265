"""Base transitions read off a whole model: what it says after a neutral context and one token.

The token alone would not do: the first position of a text is an attention sink, and a model's answer to a one-token
prompt is not its bigram.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ccmc import BaseTransition
from ccmc.base import tail_scale

IntArray = np.ndarray[Any, np.dtype[np.int64]]
BATCH = 64


def read_base(
    model: Any,
    neutral: Sequence[int],
    queries: IntArray | None = None,
    top: int = 256,
    progress: Callable[[float, str], None] = lambda share, what: None,
) -> BaseTransition:
    """P0[i, :] = the model's next-token distribution after the neutral context and token i.

    Args:
        model: of `loading`.
        neutral: [L] ids of the neutral context, at least one.
        queries: [R] tokens to ask for; None: the whole vocabulary.
        top: how many tokens a row keeps; the rest of its probability has the proportions of the mean of all rows.
        progress: told the share that is done.

    Returns:
        P0 over the model's output vocabulary.

    Raises:
        ValueError: the neutral context is empty.
    """
    if not len(neutral):
        raise ValueError("a neutral context has at least one token: the first position of a text is a sink")
    size = int(model.get_output_embeddings().weight.shape[0])
    asked = np.arange(size, dtype=np.int64) if queries is None else np.asarray(queries, dtype=np.int64)
    kept = min(top, size)
    tokens, log_p = np.empty((len(asked), kept), np.int32), np.empty((len(asked), kept))
    mean = np.zeros(size)
    before = torch.tensor(list(neutral), device=model.device)
    with torch.inference_mode():
        for low in range(0, len(asked), BATCH):
            part = torch.as_tensor(asked[low : low + BATCH], device=model.device)
            ids = torch.cat([before.repeat(len(part), 1), part[:, None]], dim=1)
            log = torch.log_softmax(model(ids, use_cache=False).logits[:, -1].double(), dim=-1)
            best = torch.topk(log, kept, dim=-1)
            tokens[low : low + BATCH], log_p[low : low + BATCH] = best.indices.cpu().numpy(), best.values.cpu().numpy()
            mean += log.exp().sum(0).cpu().numpy()
            progress(low / len(asked), f"reading base transitions, {low} of {len(asked)} tokens")
    unigram = np.maximum(mean / mean.sum(), 1e-12)
    log_unigram = np.log(unigram / unigram.sum())
    row = np.full(size, -1, dtype=np.int64)
    row[asked] = np.arange(len(asked))
    return BaseTransition(row, tokens, log_p, tail_scale(tokens, log_p, log_unigram), log_unigram)


def expected_log(base: BaseTransition, query: IntArray, p: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[n] sum over all tokens of p x log P0[query, :].

    Args:
        base: P0.
        query: [n] tokens.
        p: [n, V] distributions.
    """
    unigram = torch.as_tensor(base.log_unigram, dtype=p.dtype, device=p.device)
    found = (p @ unigram).double().cpu().numpy()
    stored = base.row[query]
    has = np.flatnonzero(stored >= 0)
    if len(has):
        row = stored[has]
        top = torch.as_tensor(base.tokens[row].astype(np.int64), device=p.device)
        kept = torch.gather(p[torch.as_tensor(has, device=p.device)], 1, top).double().cpu().numpy()
        total = p[torch.as_tensor(has, device=p.device)].double().sum(1).cpu().numpy()
        left = np.clip(total - kept.sum(axis=1), 0.0, None)
        scale = base.log_scale[row]
        of_tail = found[has] - (kept * base.log_unigram[base.tokens[row]]).sum(axis=1)
        with np.errstate(invalid="ignore"):
            shifted = of_tail + np.where(left > 0, left * scale, 0.0)
        found[has] = shifted + (kept * base.log_p[row]).sum(axis=1)
    return found
