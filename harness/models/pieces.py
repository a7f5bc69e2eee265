"""The text of single tokens, by a model's own tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def piece_maker(folder: Path | None) -> Callable[[int], str]:
    """Text of a token id: by the model's own tokenizer where it is on this machine, else the id.

    Args:
        folder: of the model's files; None where they are not on this machine.
    """
    from harness.models import tokenizers  # transformers takes seconds to import

    if folder is None or not (folder / "tokenizer_config.json").is_file():
        return lambda token: f" {token}"
    tokenizer = tokenizers.load_tokenizer(folder)
    made: dict[int, str] = {}

    def piece(token: int) -> str:
        if token not in made:
            text = str(tokenizer.decode([token], skip_special_tokens=False))
            first = str(tokenizer.decode([token, token], skip_special_tokens=False))
            # word-level decoders put the blank between two tokens, not into one
            made[token] = text if first == text + text else f"{text} "
        return made[token]

    return piece
