"""Models and tokenizers from files, checked before they are used. Never remote code."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from harness.errors import UsageError, one_line
from harness.sources import one_layer_hf  # registers the one-layer model with transformers

transformers.utils.logging.set_verbosity_error()
assert one_layer_hf.OneLayerConfig.model_type in transformers.CONFIG_MAPPING
transformers.utils.logging.disable_progress_bar()


def pick_device(device: str) -> str:
    """The device to compute on: `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        UsageError: where the named device is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    if (device == "cuda" and not cuda) or (device == "mps" and not mps):
        raise UsageError(f"device: {device} is not available here; use auto or cpu")
    return device


@lru_cache(maxsize=4)
def load_config(path: Path) -> Any:
    """The (text) config of a model folder.

    Raises:
        UsageError: an architecture that transformers does not know, or an encoder-decoder.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(f"model {path.name}: {one_line(error)[:200]}") from None
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(
            f"model {path.name}: {config.model_type} is an encoder-decoder; a causal language model is needed"
        )
    return config.get_text_config()


@lru_cache(maxsize=4)
def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a model folder, padding on the left as generation needs.

    A one-layer model that was saved without one takes token ids as texts.

    Raises:
        UsageError: no tokenizer, or one with more tokens than the model has.
    """
    config = load_config(path)
    if config.model_type == one_layer_hf.OneLayerConfig.model_type and not any(path.glob("tokenizer*")):
        return one_layer_hf.integer_tokenizer(config.vocab_size)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
    except (ValueError, OSError, KeyError, json.JSONDecodeError) as error:
        raise UsageError(f"model {path.name}: no usable tokenizer: {one_line(error)[:200]}") from None
    size = config.vocab_size
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= size:
        raise UsageError(f"model {path.name}: its tokenizer has id {largest}, the model has only {size} tokens")
    return tokenizer


@lru_cache(maxsize=1)
def load_model(path: Path, device: str) -> Any:
    """The causal language model of a folder, in float32 and evaluation mode.

    Args:
        path: folder with config.json and safetensors.
        device: cpu, cuda or mps.

    Raises:
        UsageError: weights that cannot be read, or do not fill the whole model.
    """
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"model {path.name}: its weights cannot be loaded: {one_line(error)[:200]}") from None
    absent = sorted({*loaded["missing_keys"], *(str(key) for key, *_ in loaded["mismatched_keys"])})
    if absent:  # transformers would make them up at random
        raise UsageError(
            f"model {path.name}: its weights lack {absent[0]} (of {len(absent)} missing or of another shape)"
        )
    return model.eval().requires_grad_(False).to(device)


def context_window(config: Any) -> int | None:
    """How many tokens a model takes at most, or None where its config does not say."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def encode(tokenizer: Any, text: str, chat: bool = False) -> list[int]:
    """The ids of a text, with the special tokens that the tokenizer adds by itself.

    Args:
        tokenizer: of a model.
        text: what to encode.
        chat: put it into the chat template, as a user's turn that the model answers.

    Raises:
        UsageError: a tokenizer without a chat template, or one that cannot take the text.
    """
    if not chat:
        return _ids(tokenizer, text)
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("chat: the model's tokenizer has no chat template; leave chat out")
    turns = [{"role": "user", "content": text}]
    made = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
    return [int(token) for token in made["input_ids"]]


def encode_long(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text of any length; the tokenizer does not warn that it is longer than the window."""
    return _ids(tokenizer, text)


def _ids(tokenizer: Any, text: str) -> list[int]:
    try:
        return [int(token) for token in tokenizer(text, verbose=False).input_ids]
    except Exception as error:  # tokenizers raises a bare Exception for a word that is in no vocabulary
        size = len(tokenizer)
        if tokenizer.get_vocab().keys() == {str(token) for token in range(size)}:
            words = [word for word in text.split() if word not in tokenizer.get_vocab()]
            raise UsageError(
                f"{words[0][:20]!r} is no token: the model has no tokenizer, its texts are ids from 0 to {size - 1} "
                "with blanks between them; give prompts of ids, or save a tokenizer into its folder"
            ) from None
        raise UsageError(f"the tokenizer cannot take {text[:20]!r}: {one_line(error)[:120]}") from None


def check_known(tokenizer: Any, ids: list[int], what: str, name: str) -> None:
    """Refuse a text of which the tokenizer knows nothing: it is not the tokenizer of the model, or not its language.

    Raises:
        UsageError: every token is the unknown one; names the text and the model.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        return
    if ids and all(token == unknown for token in ids):
        raise UsageError(
            f"{what}: the tokenizer of {name!r} knows none of it, every token is {tokenizer.unk_token!r}; is it the "
            "tokenizer of another model or language?"
        )


def check_prompts(name: str, path: Path, prompts: list[tuple[str, str, bool]], max_new_tokens: int) -> None:
    """Refuse prompts that the model cannot take.

    Args:
        name: of the model, for the message.
        path: its folder.
        prompts: (id, text, is it a chat?).
        max_new_tokens: how far each will be continued.

    Raises:
        UsageError: names the prompt, its length and the window.
    """
    tokenizer, window = load_tokenizer(path), context_window(load_config(path))
    for prompt_id, text, chat in prompts:
        ids = encode(tokenizer, text, chat)
        check_known(tokenizer, ids, f"prompt {prompt_id!r}", name)
        length = len(ids)
        if length == 0:
            raise UsageError(f"prompt {prompt_id!r} has no tokens for model {name!r}")
        if window is not None and length > window:
            raise UsageError(
                f"prompt {prompt_id!r} has {length} tokens, the window of {name!r} is {window}; shorten it"
            )
        if window is not None and length + max_new_tokens > window:
            raise UsageError(
                f"prompt {prompt_id!r} has {length} tokens; with generation.max_new_tokens {max_new_tokens} that is "
                f"more than the window of {name!r}, {window}; lower max_new_tokens or shorten the prompt"
            )
