"""What a causal language model does: its continuations and its next-token distributions in context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import sparse
from transformers import GenerationConfig, LogitsProcessorList

from harness.config.model_defaults import BEAMS_ONLY
from harness.core.memory import out_of_memory
from harness.data.texts import Text
from harness.models.halves import full
from harness.models.model_defaults import further_cuts, holds
from harness.models.penalties import penalties
from harness.models.sampling import Draw, Sound, UnsoundOutputError, cuts
from harness.models.token_scores import Recorder, TokenScores, score_tokens

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Progress = Callable[[float, str], None]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    return [] if ends is None else [int(e) for e in (ends if isinstance(ends, list | tuple) else [ends])]


def generate(  # eleven: what is decoded, how, and who is informed; all but the first three by name
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    temperature: float | None,
    max_new_tokens: int,
    seed: int,
    batch_size: int = 16,
    ignore_eos: bool = False,
    options: Mapping[str, Any] | None = None,
    record: Callable[[int, TokenScores], None] | None = None,
    progress: Progress = lambda share, what: None,
) -> list[IntArray]:
    """Continue prompts.

    Args:
        model, tokenizer: of `loading`.
        prompts: token ids, any lengths.
        temperature: None takes the most likely token; otherwise softmax(logits / temperature) is sampled.
        max_new_tokens: length of a continuation that no end token cuts short.
        seed: of the samples. With the ids of a prompt it decides its continuation, whatever other prompts there are;
            two prompts of the same ids are continued in the same way.
        batch_size: prompts of like length are continued together, padded on the left; where memory does not do for so
            many, half as many, and so on.
        ignore_eos: go on past the end token.
        options: top_k, top_p, min_p, beams, repetition_penalty, no_repeat_ngram, and the
            fields of `model_defaults`; what is not given is off.
        record: gets the number of a prompt and what the model thought of each token of its continuation. It is kept
            as the tokens are drawn; only beams, which are chosen afterwards, take another pass over each text.

    Returns:
        One continuation per prompt, in the order of the prompts, without prompt and end token.

    Raises:
        UnsoundOutputError: logits that are NaN or infinite, or a strategy that forbids every token.
    """
    ends = [] if ignore_eos else _end_tokens(model, tokenizer)
    size = model.config.get_text_config().vocab_size
    pad = next((t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if t is not None and t < size), 0)
    options = dict(options or {})
    beams = int(options.get("beams", 1))
    config = GenerationConfig(
        do_sample=False, num_beams=beams, max_new_tokens=max_new_tokens, pad_token_id=pad, eos_token_id=ends or None,
        **({name: options[name] for name in BEAMS_ONLY if name in options} if beams > 1 else {}),
    )  # fmt: skip
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    found: list[IntArray | None] = [None] * len(prompts)
    first, said = 0, ""
    while first < len(order):
        batch = order[first : first + batch_size]
        progress(first / len(order), f"prompts {first + 1}-{first + len(batch)} of {len(order)}{said}")
        tokens, mask = _padded([prompts[index] for index in batch], pad)
        width = tokens.shape[1]
        starts = [width - len(prompts[index]) for index in batch for _ in range(beams)]
        recorder = Recorder(starts) if record is not None and beams == 1 else None
        sound = Sound()
        processors = [sound, *([recorder] if recorder else []), *penalties(options, starts)]
        processors += holds(options, starts, width, max_new_tokens, ends, model.device)
        last = further_cuts(options, model.device)
        judges: list[Sound | Draw] = [sound]  # of what the model says, and of what the strategy leaves of it
        if temperature is not None:
            judges.append(Draw([prompts[index] for index in batch], seed, max_new_tokens))
            processors += [*cuts(temperature, options), *last, judges[-1]]
        else:
            judges += [Sound()] if beams == 1 else []
            processors += [*last, *judges[1:]]
        out = _written(model, tokens, mask, processors, config)
        if out is None:  # nothing of the batch is kept, so that it can be done in parts
            batch_size = len(batch) // 2
            said = f", {batch_size} at once for lack of memory"
            continue
        for row, index in enumerate(batch):
            kept = found[index] = _until_end(out[row, width:], ends)
            for judge, place in product(judges, range(row * beams, (row + 1) * beams)):
                if (step := judge.first_unsound(place, len(kept) + 1)) is not None:
                    raise UnsoundOutputError(index, step)
            if recorder is not None and record is not None:
                record(index, recorder.scores(row, out[row, width:], len(kept)))
            elif record is not None:
                record(index, score_tokens(model, np.asarray(prompts[index], dtype=np.int64), kept))
        first += len(batch)
    return [c for c in found if c is not None]


def _written(
    model: Any, tokens: torch.Tensor, mask: torch.Tensor, processors: list[Any], config: GenerationConfig
) -> torch.Tensor | None:
    """What `_write` gives; None where memory does not do for a batch of several prompts."""
    try:
        return _write(model, tokens, mask, processors, config)
    except (MemoryError, RuntimeError) as error:
        if len(tokens) == 1 or not out_of_memory(error):
            raise
    if torch.cuda.is_available():  # outside the handler: the error held on to what was computed
        torch.cuda.empty_cache()
    return None


def _write(
    model: Any, tokens: torch.Tensor, mask: torch.Tensor, processors: list[Any], config: GenerationConfig
) -> torch.Tensor:
    """`model.generate` on one padded batch, decoded as `config` says and nothing else: [B, L + steps].

    transformers fills what a given config leaves open from the config of the model, which holds whatever lay in its
    folder: suppressed tokens, a time limit, several sequences per prompt. For this call the model has an empty one.

    Raises:
        RuntimeError: where the texts that come back are not continuations of these prompts, one each, in their order.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        with torch.inference_mode():
            out: torch.Tensor = model.generate(
                tokens.to(model.device),
                generation_config=config,
                attention_mask=mask.to(model.device),
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(model.device),
                logits_processor=LogitsProcessorList(processors),
            )
    finally:
        model.generation_config = own
    _check_continued(out, tokens, int(config.max_new_tokens))
    return out


def _check_continued(out: Any, tokens: torch.Tensor, most: int) -> None:
    """One continuation of at most `most` tokens for each prompt of `tokens` [B, L], behind the prompt itself."""
    if not isinstance(out, torch.Tensor):
        raise RuntimeError(f"generate returned a {type(out).__name__}; a tensor of token ids is expected")
    (count, width), shape = tokens.shape, tuple(out.shape)
    if len(shape) != 2 or shape[0] != count:
        raise RuntimeError(
            f"generate returned {shape[0] if shape else 0} sequences for {count} prompts; they cannot be matched, "
            "nothing of this batch is kept"
        )
    if not width <= shape[1] <= width + most:
        raise RuntimeError(
            f"generate returned sequences of {shape[1]} tokens for prompts of {width} and at most {most} new ones"
        )
    changed = (out[:, :width].cpu() != tokens).any(-1).nonzero()
    if len(changed):
        raise RuntimeError(f"generate returned in row {int(changed[0])} a text that does not begin with its prompt")


def _until_end(tokens: torch.Tensor, ends: list[int]) -> IntArray:
    """Generated tokens [T] up to the first end token, which is left out."""
    continuation = tokens.cpu().numpy().astype(np.int64)
    stops = np.flatnonzero(np.isin(continuation, ends))
    return continuation[: stops[0]] if len(stops) else continuation


def _padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of any lengths padded on the left: tokens [B, L] and mask [B, L]."""
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = torch.as_tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return tokens, mask


@dataclass(frozen=True, slots=True)
class NextTokens:
    """A model's next-token distributions along one text.

    Attributes:
        restricted: [n, U] probability of each type of the text, restricted to the context and renormalised.
        in_context_mass: [n] probability that the model gave to the tokens of the context in all.
        outside: [n, K] the largest probabilities of local tokens outside the context, unchanged; only on request.
    """

    restricted: FloatArray
    in_context_mass: FloatArray
    outside: sparse.csr_array | None = None


OUTSIDE = 64  # tokens outside the context that are kept per position


def next_token_distributions(
    model: Any, ids: Sequence[int] | IntArray, text: Text, vocabulary: IntArray | None = None
) -> NextTokens:
    """Score a text with the model.

    Args:
        model: of `loading`.
        ids: [T] token ids of the text, in the model's vocabulary.
        text: the same tokens in local ids; its contexts are the ones to score.
        vocabulary: [K] the token id of each local id; given, what lies outside the context is kept too.
    """
    with torch.inference_mode():
        logits = model(torch.as_tensor(ids, device=model.device)[None]).logits[0]  # [T, vocabulary]
    return distributions_of(logits, ids, text, vocabulary)


def distributions_of(
    logits: torch.Tensor, ids: Sequence[int] | IntArray, text: Text, vocabulary: IntArray | None = None
) -> NextTokens:
    """The same from logits [T, V] that are at hand."""
    with torch.inference_mode():
        wanted = full(logits[torch.as_tensor(text.positions, device=logits.device)])  # [n, V]
        top = wanted.max(dim=-1).values
        log_z = top.double() + torch.exp(wanted - top[:, None]).sum(-1, dtype=torch.float64).log()  # [n]
        model_ids = np.zeros(len(text.types), dtype=np.int64)
        model_ids[text.key_index] = np.asarray(ids)[text.first :]
        of_types = wanted[:, torch.as_tensor(model_ids, device=logits.device)] - log_z[:, None]  # [n, U]
        outside = None
        if vocabulary is not None:
            outside = _largest_outside(wanted, log_z, text, vocabulary)
    probability = np.where(text.counts > 0, np.exp(of_types.cpu().numpy()), 0.0)
    mass = probability.sum(axis=1)
    return NextTokens(probability / mass[:, None], mass, outside)


def _largest_outside(logits: torch.Tensor, log_z: torch.Tensor, text: Text, vocabulary: IntArray) -> sparse.csr_array:
    """The OUTSIDE largest probabilities of local tokens that are not in the context: [n, K]."""
    of_all = torch.exp(logits[:, torch.as_tensor(vocabulary, device=logits.device)] - log_z[:, None])  # [n, K]
    row, column = np.nonzero(text.counts)
    of_all[torch.as_tensor(row), torch.as_tensor(text.types[column])] = 0.0
    kept = min(OUTSIDE, of_all.shape[1])
    top = torch.topk(of_all, kept, dim=1, sorted=False)
    place = np.repeat(np.arange(len(text)), kept), top.indices.cpu().numpy().ravel()
    table = sparse.csr_array((top.values.cpu().numpy().ravel(), place), shape=(len(text), len(vocabulary)))
    table.eliminate_zeros()
    return table
