"""The text of single tokens, by a model's own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def piece_maker(folder: Path | None) -> Callable[[int], str]:
    """Text of a token id: by the model's own tokenizer where it is on this machine, else the id.

    Args:
        folder: of the model's files; None where they are not on this machine.
    """
    if folder is None or not (folder / "tokenizer_config.json").is_file():
        return lambda token: f" {token}"
    decode = _decoder(folder)
    made: dict[int, str] = {}

    def piece(token: int) -> str:
        if token not in made:
            text, first = decode([token]), decode([token, token])
            # word-level decoders put the blank between two tokens, not into one
            made[token] = text if first == text + text else f"{text} "
        return made[token]

    return piece


def _decoder(folder: Path) -> Callable[[list[int]], str]:
    """Ids to text. What transformers would do with a plain file of a tokenizer is done without it: it takes seconds."""
    file = folder / "tokenizer.json"
    try:
        told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        plain = isinstance(told, dict) and not told.get("clean_up_tokenization_spaces")
    except ValueError:
        plain = False
    if plain and file.is_file():
        from tokenizers import Tokenizer

        with suppress(Exception):  # a file that is none: transformers says so in one line
            quick = Tokenizer.from_file(str(file))
            return lambda ids: str(quick.decode(ids, skip_special_tokens=False))
    from harness.models import tokenizers

    tokenizer = tokenizers.load_tokenizer(folder)
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False))
