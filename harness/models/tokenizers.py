"""Tokenizers from the folders of models, and the prompts of a run as token ids."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from harness.config.decoding import Generation
from harness.core.errors import UsageError, one_line
from harness.core.notes import Notes
from harness.data.tokenisation import Reader
from harness.models import one_layer_hf
from harness.models.loading import called, context_window, load_config
from harness.models.one_layer_config import OneLayerConfig

_GENERIC = {"PreTrainedTokenizerFast", "TokenizersBackend"}


@lru_cache(maxsize=4)
def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a model folder, padding on the left as generation needs.

    A one-layer model that was saved without one takes token ids as texts. A tokenizer may have more tokens than the
    model, as Gemma 3 has one for images: they are no mistake until a text holds one.

    Raises:
        UsageError: no tokenizer that can be loaded.
    """
    config, name = load_config(path), f"model {called(path)!r}"
    if config.model_type == OneLayerConfig.model_type and not any(path.glob("tokenizer*")):
        return one_layer_hf.integer_tokenizer(config.vocab_size)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
        if _replaced(tokenizer, path):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(path, padding_side="left")
        _check_unknown(tokenizer)
    except Exception as error:  # a missing library, a file that is none, an unknown class: each its own kind
        raise UsageError(f"{name}: no usable tokenizer: {one_line(error)[:200]}") from None
    return tokenizer


def _check_unknown(tokenizer: Any) -> None:
    """Refuse an unknown token that the vocabulary has not: each look at its id would look for itself without end.

    Raises:
        ValueError: names it.
    """
    try:
        _ = tokenizer.unk_token_id
    except RecursionError:
        raise ValueError(f"its unknown token {tokenizer.unk_token!r} is not in its vocabulary") from None


def _replaced(tokenizer: Any, path: Path) -> bool:
    """Did transformers take another class, by the kind of model, than the one that the tokenizer was saved with?

    A tokenizer of the general class is what its tokenizer.json says and nothing else; another class splits otherwise.
    """
    about = path / "tokenizer_config.json"
    if type(tokenizer).__name__ in _GENERIC or not about.is_file() or not (path / "tokenizer.json").is_file():
        return False
    return json.loads(about.read_text(encoding="utf-8")).get("tokenizer_class") in _GENERIC


def make_reader(path: Path, name: str, generation: Generation | None = None, notes: Notes | None = None) -> Reader:
    """What makes token ids of texts for a model.

    Args:
        path: folder of the model.
        name: of the model, for messages.
        generation: how texts begin, and how their special strings are read; None for the defaults.
        notes: get what was decided about texts.

    Raises:
        UsageError: no usable tokenizer, or one without the BOS token that `generation` demands.
    """
    settings = generation or Generation()
    size = int(load_config(path).vocab_size)
    return Reader(load_tokenizer(path), name, size, settings.bos, settings.special_strings, notes)


def read_prompts(
    reader: Reader, path: Path, prompts: Iterable[tuple[str, str, bool]], max_new_tokens: int
) -> dict[str, list[int]]:
    """The token ids of prompts; those that the model cannot take are refused.

    Args:
        reader: of the model.
        path: its folder.
        prompts: (id, text, is it a chat?).
        max_new_tokens: how far each will be continued.

    Returns:
        Prompt -> its token ids.

    Raises:
        UsageError: names the prompt, its length and the window.
    """
    name, window = reader.name, context_window(load_config(path))
    found = {}
    for prompt_id, text, chat in prompts:
        what = f"prompt {prompt_id!r}"
        ids = found[prompt_id] = (reader.chat if chat else reader.text)(text, what).whole
        length = len(ids)
        if window is not None and length > window:
            raise UsageError(f"{what} has {length} tokens, the window of {name!r} is {window}; shorten it")
        if window is not None and length + max_new_tokens > window:
            raise UsageError(
                f"{what} has {length} tokens; with generation.max_new_tokens {max_new_tokens} that is "
                f"more than the window of {name!r}, {window}; lower max_new_tokens or shorten the prompt"
            )
    reader.report("prompts")
    return found
