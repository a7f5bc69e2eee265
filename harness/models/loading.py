"""Models and tokenizers from files, checked before they are used. Never remote code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from harness.core.errors import UsageError, one_line
from harness.models import one_layer_hf
from harness.models.config_file import called, read_config
from harness.models.first_pass import check_output
from harness.models.one_layer_config import OneLayerConfig
from harness.models.weights import read_model

__all__ = [
    "called",
    "check_known",
    "check_output",
    "check_prompts",
    "context_window",
    "encode",
    "encode_long",
    "load_config",
    "load_model",
    "load_tokenizer",
    "model_of",
    "notes_on",
    "pick_device",
]


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


def load_config(path: Path) -> Any:
    """The (text) config of a model folder.

    Raises:
        UsageError: an architecture that transformers does not have, a config that it refuses, an encoder-decoder, or no
            language model at all.
    """
    return read_config(path).text


@lru_cache(maxsize=4)
def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a model folder, padding on the left as generation needs.

    A one-layer model that was saved without one takes token ids as texts.

    Raises:
        UsageError: no tokenizer, or one of more tokens than the model has. Special tokens beyond them, as Gemma 3 has
            one for images, are no mistake until a text holds one: see `check_known`.
    """
    config, name = load_config(path), f"model {called(path)!r}"
    if config.model_type == OneLayerConfig.model_type and not any(path.glob("tokenizer*")):
        return one_layer_hf.integer_tokenizer(config.vocab_size)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
        if _replaced(tokenizer, path):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(path, padding_side="left")
    except Exception as error:  # a missing library, a file that is none, an unknown class: each its own kind
        raise UsageError(f"{name}: no usable tokenizer: {one_line(error)[:200]}") from None
    vocabulary = tokenizer.get_vocab()
    for special in {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}:
        vocabulary.pop(special, None)
    largest = max(vocabulary, key=lambda token: vocabulary[token], default=None)
    if largest is not None and vocabulary[largest] >= config.vocab_size:
        raise UsageError(
            f"{name}: its tokenizer has id {vocabulary[largest]}, the model has only {config.vocab_size} tokens; "
            f"{largest[:20]!r} is none of them"
        )
    return tokenizer


_GENERIC = {"PreTrainedTokenizerFast", "TokenizersBackend"}


def _replaced(tokenizer: Any, path: Path) -> bool:
    """Did transformers take another class, by the kind of model, than the one that the tokenizer was saved with?

    A tokenizer of the general class is what its tokenizer.json says and nothing else; another class splits otherwise.
    """
    about = path / "tokenizer_config.json"
    if type(tokenizer).__name__ in _GENERIC or not about.is_file() or not (path / "tokenizer.json").is_file():
        return False
    return json.loads(about.read_text(encoding="utf-8")).get("tokenizer_class") in _GENERIC


def load_model(path: Path, device: str, allow_mismatch: bool = False) -> Any:
    """The causal language model of a folder, in float32 and evaluation mode.

    Args:
        path: folder with config.json and safetensors.
        device: cpu, cuda or mps.
        allow_mismatch: go on where files and config do not agree; see `weights.read_model`.

    Raises:
        UsageError: files that cannot be read, or that do not agree with the config; weights that are NaN or infinite.
    """
    return read_model(path, device, allow_mismatch).model


def model_of(local: Mapping[str, Any]) -> Any:
    """The model of a unit, by what the plan gave it to find it on this machine: path, device, allow_mismatch."""
    return load_model(Path(local["path"]), local["device"], local.get("allow_mismatch", False))


def notes_on(path: Path, device: str, allow_mismatch: bool = False) -> tuple[str, ...]:
    """What was set aside or does not fit in a model that has been loaded, one line each."""
    return (*read_config(path).notes, *read_model(path, device, allow_mismatch).notes)


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


def check_known(tokenizer: Any, ids: list[int], what: str, name: str, size: int) -> None:
    """Refuse a text with a token that the model has not, or whose tokens are all unknown to the tokenizer.

    Args:
        tokenizer: of the model.
        ids: of the text.
        what, name: the text and the model, for the message.
        size: how many tokens the model has.

    Raises:
        UsageError: a token beyond the model's; or every token is the unknown one, so that it is not the tokenizer of
            the model, or not its language. Names the text and the model.
    """
    beyond = next((place for place, token in enumerate(ids) if token >= size), None)
    if beyond is not None:
        raise UsageError(
            f"{what}: position {beyond} has token {ids[beyond]}, {tokenizer.convert_ids_to_tokens(ids[beyond])!r}, the "
            f"model {name!r} has only {size} tokens"
        )
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        return
    if ids and all(token == unknown for token in ids):
        raise UsageError(
            f"{what}: the tokenizer of {name!r} knows none of it, every token is {tokenizer.unk_token!r}; is it the "
            "tokenizer of another model or language?"
        )


def check_prompts(
    name: str, path: Path, prompts: list[tuple[str, str, bool]], max_new_tokens: int
) -> dict[str, list[int]]:
    """The token ids of prompts; those that the model cannot take are refused.

    Args:
        name: of the model, for the message.
        path: its folder.
        prompts: (id, text, is it a chat?).
        max_new_tokens: how far each will be continued.

    Returns:
        Prompt -> its token ids.

    Raises:
        UsageError: names the prompt, its length and the window.
    """
    tokenizer, config = load_tokenizer(path), load_config(path)
    window = context_window(config)
    found = {}
    for prompt_id, text, chat in prompts:
        ids = found[prompt_id] = encode(tokenizer, text, chat)
        check_known(tokenizer, ids, f"prompt {prompt_id!r}", name, config.vocab_size)
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
    return found
