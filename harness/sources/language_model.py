"""What a causal language model does: its continuations, and its next-token distributions restricted to its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.seeds import derive_seed
from harness.texts import Text

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Progress = Callable[[float, str], None]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    return [] if ends is None else [int(e) for e in (ends if isinstance(ends, list | tuple) else [ends])]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    temperature: float | None,
    max_new_tokens: int,
    seed: int,
    batch_size: int = 16,
    ignore_eos: bool = False,
    progress: Progress = lambda share, what: None,
) -> list[IntArray]:
    """Continue prompts.

    Args:
        model, tokenizer: of `loading`.
        prompts: token ids, any lengths.
        temperature: None decodes greedily; otherwise softmax(logits / temperature) is sampled as it is.
        max_new_tokens: length of a continuation that no end token cuts short.
        seed: of the samples; each batch has its own.
        batch_size: prompts of like length are continued together, padded on the left.
        ignore_eos: go on past the end token.

    Returns:
        One continuation per prompt, in the order of the prompts, without prompt and end token.
    """
    ends = [] if ignore_eos else _end_tokens(model, tokenizer)
    pad = next((t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if t is not None), 0)
    how: dict[str, Any] = (
        {"do_sample": False} if temperature is None else {"do_sample": True, "temperature": temperature}
    )
    if temperature is not None:
        how |= {"top_k": 0, "top_p": 1.0}
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    found: list[IntArray | None] = [None] * len(prompts)
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        progress(first / len(order), f"prompts {first + 1}-{first + len(batch)} of {len(order)}")
        width = max(len(prompts[index]) for index in batch)
        tokens = torch.full((len(batch), width), pad, dtype=torch.long)  # [B, L]
        mask = torch.zeros_like(tokens)
        for row, index in enumerate(batch):
            tokens[row, width - len(prompts[index]) :] = torch.as_tensor(prompts[index])
            mask[row, width - len(prompts[index]) :] = 1
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(derive_seed(seed, "batch", first))
            out = model.generate(
                tokens.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                pad_token_id=pad,
                eos_token_id=ends or None,
                **how,
            )
        for row, index in enumerate(batch):
            continuation = out[row, width:].cpu().numpy().astype(np.int64)
            stops = np.flatnonzero(np.isin(continuation, ends))
            found[index] = continuation[: stops[0]] if len(stops) else continuation
    return [c for c in found if c is not None]


@dataclass(frozen=True, slots=True)
class NextTokens:
    """A model's next-token distributions along one text.

    Attributes:
        restricted: [n, U] probability of each type of the text, restricted to the context and renormalised.
        in_context_mass: [n] probability that the model gave to the tokens of the context in all.
    """

    restricted: FloatArray
    in_context_mass: FloatArray


def next_token_distributions(model: Any, ids: Sequence[int] | IntArray, text: Text) -> NextTokens:
    """Score a text with the model.

    Args:
        model: of `loading`.
        ids: [T] token ids of the text, in the model's vocabulary.
        text: the same tokens in local ids; its contexts are the ones to score.
    """
    with torch.inference_mode():
        logits = model(torch.as_tensor(ids, device=model.device)[None]).logits[0]  # [T, vocabulary]
        wanted = logits[torch.as_tensor(text.positions, device=model.device)].double()  # [n, vocabulary]
        log_z = torch.logsumexp(wanted, dim=-1)  # [n]
        model_ids = np.zeros(len(text.types), dtype=np.int64)
        model_ids[text.key_index] = np.asarray(ids)[text.first :]
        of_types = wanted[:, torch.as_tensor(model_ids, device=model.device)] - log_z[:, None]  # [n, U]
    probability = np.where(text.counts > 0, np.exp(of_types.cpu().numpy()), 0.0)
    mass = probability.sum(axis=1)
    return NextTokens(probability / mass[:, None], mass)
