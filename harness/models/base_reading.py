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
from ccmc.base import Factors, exponents, tail_scale

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
    head = model.get_output_embeddings()
    size = int(head.weight.shape[0])
    asked = np.arange(size, dtype=np.int64) if queries is None else np.asarray(queries, dtype=np.int64)
    kept, powers = min(top, size), exponents()
    tokens, log_p = np.empty((len(asked), kept), np.int32), np.empty((len(asked), kept))
    hidden, log_norm = np.empty((len(asked), head.weight.shape[1]), np.float32), np.empty(len(asked))
    mean, log_sums = np.zeros(size), np.empty((len(asked), len(powers)))
    before = torch.tensor(list(neutral), device=model.device)
    last: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda module, given: last.append(given[0][:, -1]))
    try:
        with torch.inference_mode():
            for low in range(0, len(asked), BATCH):
                rows = slice(low, low + BATCH)
                part = torch.as_tensor(asked[rows], device=model.device)
                ids = torch.cat([before.repeat(len(part), 1), part[:, None]], dim=1)
                logits = model(ids, use_cache=False, logits_to_keep=1).logits[:, -1].float()
                norm = torch.logsumexp(logits.double(), dim=-1)
                log = logits - norm[:, None].float()
                best = torch.topk(log, kept, dim=-1)
                tokens[rows], log_p[rows] = best.indices.cpu().numpy(), best.values.double().cpu().numpy()
                mean += log.exp().sum(0, dtype=torch.float64).cpu().numpy()
                for place, power in enumerate(powers.tolist()):
                    log_sums[rows, place] = torch.exp(power * log).sum(-1, dtype=torch.float64).log().cpu().numpy()
                hidden[rows], log_norm[rows] = last.pop().float().cpu().numpy(), norm.cpu().numpy()
                progress(low / len(asked), f"reading base transitions, {low} of {len(asked)} tokens")
    finally:
        hook.remove()
    unigram = np.maximum(mean / mean.sum(), 1e-12)
    log_unigram = np.log(unigram / unigram.sum())
    row = np.full(size, -1, dtype=np.int64)
    row[asked] = np.arange(len(asked))
    scale = tail_scale(tokens, log_p, log_unigram)
    return BaseTransition(row, tokens, log_p, scale, log_unigram, factors_of(model, hidden, log_norm, log_sums))


def factors_of(model: Any, hidden: Any, log_norm: Any, log_sums: Any) -> Factors | None:
    """The rows as logits of the model's output layer; None where its logits are something else than it gives.

    Args:
        model: of `loading`.
        hidden: [R, d] what its output layer was given.
        log_norm, log_sums: as of `ccmc.base.Factors`.
    """
    head = model.get_output_embeddings()
    keys = head.weight.detach().float().cpu().numpy()
    bias = getattr(head, "bias", None)
    shift = np.zeros(len(keys)) if bias is None else bias.detach().double().cpu().numpy()
    cap = float(getattr(model.config, "final_logit_softcapping", None) or 0.0)
    scale = float(getattr(model.config, "logit_scale", None) or 1.0)
    found = Factors(hidden, keys * np.float32(scale), shift, cap, log_norm, log_sums)
    total = np.exp(found.log_row(0)).sum() if len(hidden) else 1.0
    return found if abs(total - 1) < 1e-3 else None


def expected_log(base: BaseTransition, query: IntArray, p: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[n] sum over all tokens of p x log P0[query, :].

    Args:
        base: P0.
        query: [n] tokens.
        p: [n, V] distributions.
    """
    if base.factors is not None and (base.row[query] >= 0).all():
        rows = base.row[query]
        of = torch.as_tensor(base.factors.hidden[rows]) @ torch.as_tensor(base.factors.keys).T
        log = of + torch.as_tensor(base.factors.bias, dtype=of.dtype)
        if base.factors.cap:
            log = base.factors.cap * torch.tanh(log / base.factors.cap)
        expected: np.ndarray[Any, np.dtype[np.float64]] = (p.cpu() * log).sum(-1, dtype=torch.float64).numpy()
        return expected - p.sum(-1, dtype=torch.float64).cpu().numpy() * base.factors.log_norm[rows]
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
