"""Base transitions read off a whole model: what it says after a neutral context and one token.

The token alone would not do: the first position of a text is an attention sink, and a model's answer to a one-token
prompt is not its bigram.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ccmc import BaseTransition
from ccmc.base import Factors, exponents, tail_scale

IntArray = np.ndarray[Any, np.dtype[np.int64]]
BATCH = 64
NO_BASE = "the model gives some tokens no probability, so that base transitions cannot be read off it; say base: none"


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
        ValueError: the neutral context is empty, or the model gives some tokens no probability.
    """
    if not len(neutral):
        raise ValueError("a neutral context has at least one token: the first position of a text is a sink")
    before = torch.tensor(list(neutral), device=model.device)
    size = len(_after(model, before[None])[0])
    asked = np.arange(size, dtype=np.int64) if queries is None else np.asarray(queries, dtype=np.int64)
    kept, powers, mean = min(top, size), exponents().tolist(), np.zeros(size)
    found: list[tuple[np.ndarray[Any, Any], ...]] = []
    with _heard(model) as last:
        for low in range(0, len(asked), BATCH):
            progress(low / len(asked), f"reading base transitions, {low} of {len(asked)} tokens")
            part = torch.as_tensor(asked[low : low + BATCH], device=model.device)
            logits = _after(model, torch.cat([before.repeat(len(part), 1), part[:, None]], dim=1))
            if not torch.isfinite(logits).all():
                raise ValueError(NO_BASE)
            norm = torch.logsumexp(logits.double(), dim=-1)
            log = logits - norm[:, None].float()
            best = torch.topk(log, kept, dim=-1)
            mean += log.exp().sum(0, dtype=torch.float64).cpu().numpy()
            sums = torch.stack([torch.exp(a * log).sum(-1, dtype=torch.float64).log() for a in powers], dim=1)
            hidden = last.pop() if last else torch.empty((len(part), 0))
            block = (best.indices.int(), best.values.double(), hidden.float(), norm, sums)
            found.append(tuple(values.cpu().numpy() for values in block))
    tokens, log_p, inputs, log_norm, log_sums = (np.concatenate(values) for values in zip(*found, strict=True))
    unigram = np.maximum(mean / mean.sum(), 1e-12)
    log_unigram = np.log(unigram / unigram.sum())
    row = np.full(size, -1, dtype=np.int64)
    row[asked] = np.arange(len(asked))
    scale = tail_scale(tokens, log_p, log_unigram)
    return BaseTransition(row, tokens, log_p, scale, log_unigram, factors_of(model, inputs, log_norm, log_sums))


def vocabulary_size(model: Any, token: int) -> int:
    """Over how many tokens a model's distributions are, read off that after a token."""
    return int(_after(model, torch.tensor([[token]], device=model.device)).shape[1])


def rules_out(model: Any, neutral: Sequence[int]) -> bool:
    """Does a model give some tokens no probability, as one does that cannot leave its context?"""
    return not bool(torch.isfinite(_after(model, torch.tensor([list(neutral)], device=model.device))).all())


def _after(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """[B, V] float32 logits after the last token of ids [B, L]."""
    with torch.inference_mode():
        logits: torch.Tensor = model(ids, use_cache=False, logits_to_keep=1).logits[:, -1].float()
    return logits


@contextmanager
def _heard(model: Any) -> Iterator[list[torch.Tensor]]:
    """What the model's output layer is given for the last token, while the block lasts; nothing where it has none."""
    last: list[torch.Tensor] = []
    head = model.get_output_embeddings()
    if head is None:
        yield last
        return
    hook = head.register_forward_pre_hook(lambda module, given: last.append(given[0][:, -1]))
    try:
        yield last
    finally:
        hook.remove()


def factors_of(model: Any, hidden: Any, log_norm: Any, log_sums: Any) -> Factors | None:
    """The rows as logits of the model's output layer; None where its logits are something else than it gives.

    Args:
        model: of `loading`.
        hidden: [R, d] what its output layer was given.
        log_norm, log_sums: as of `ccmc.base.Factors`.
    """
    head = model.get_output_embeddings()
    if head is None:
        return None
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
    own = base.row[query] >= 0
    if base.factors is not None and own.any() and not own.all():  # sparse rows would not be those of `log_at`
        both = np.empty(len(query))
        for some in (own, ~own):
            both[some] = expected_log(base, query[some], p[torch.as_tensor(some, device=p.device)])
        return both
    if base.factors is not None and own.all():
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
        kept = p[torch.as_tensor(has, device=p.device)[:, None], top].double().cpu().numpy()
        total = p.sum(1, dtype=torch.float64).cpu().numpy()[has]
        left = np.clip(total - kept.sum(axis=1), 0.0, None)
        scale = base.log_scale[row]
        of_tail = found[has] - (kept * base.log_unigram[base.tokens[row]]).sum(axis=1)
        with np.errstate(invalid="ignore"):
            shifted = of_tail + np.where(left > 0, left * scale, 0.0)
        found[has] = shifted + (kept * base.log_p[row]).sum(axis=1)
    return found
