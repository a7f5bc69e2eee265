"""Special strings, such as `<|im_start|>`, in texts that people wrote: which they are, and how to read them as text.

A tokenizer takes every special string of a text for the token of that name, whoever wrote it. To read one as plain
text, the tokenizer is copied and its special tokens get names that no text holds; what was their name is then text
like any other. A chat template's own special strings are replaced by these names, so they still become tokens.
"""

from __future__ import annotations

import json
import re
import secrets
from functools import cached_property
from typing import Any

from harness.core.errors import UsageError

_TAG = re.compile(r"<\|.+\|>", re.DOTALL)
_WRITTEN_AS_TAG = re.compile(r"[<\[{|].*[>\]}|]", re.DOTALL)


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """The tokens of a tokenizer whose names are special strings, with their ids.

    They are the added tokens that the tokenizer marks as special or names (BOS, EOS, padding, ...), those written as
    `<|...|>`, and tags such as `<think>` that its chat template writes. Other added tokens are ordinary vocabulary, as
    runs of blanks are in some tokenizers and HTML tags in others; so is a name of one character, such as a full stop
    that also serves as padding.
    """
    named, templates = set(tokenizer.all_special_tokens), _templates(tokenizer)
    found = {}
    for token, added in tokenizer.added_tokens_decoder.items():
        text = str(added)
        tag = _TAG.fullmatch(text) or (_WRITTEN_AS_TAG.fullmatch(text) and text in templates)
        if len(text.strip()) > 1 and (added.special or text in named or tag):
            found[text] = int(token)
    return found


def _templates(tokenizer: Any) -> str:
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        return "\n".join(map(str, template.values()))
    return str(template or "")


class PlainReading:
    """A copy of a tokenizer that reads special strings as text; see the module.

    Args:
        tokenizer: of `transformers`, with a backend of `tokenizers`.
        special: name -> id of its special tokens.
    """

    def __init__(self, tokenizer: Any, special: dict[str, int]) -> None:
        self.special = special
        salt = secrets.token_hex(8)  # nobody can write these names into a text
        self._alias = {name: f"ccmc{salt}x{token}x" for name, token in special.items()}
        self._hidden = f"\ue000{int(salt, 16)}."
        self._name = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
        self._state = tokenizer.backend_tokenizer.to_str()

    @cached_property
    def backend(self) -> Any:
        """The copy: a `tokenizers.Tokenizer`.

        Raises:
            UsageError: the copy has other ids than the tokenizer.
        """
        from tokenizers import Tokenizer

        state = json.loads(self._state)
        for added in state["added_tokens"]:
            added["content"] = self._alias.get(added["content"], added["content"])
        _rename(state["model"], self._alias)
        state["truncation"] = state["padding"] = None
        copy = Tokenizer.from_str(json.dumps(state))
        copy.encode_special_tokens = False
        for name, token in self.special.items():
            if copy.token_to_id(self._alias[name]) != token:
                raise UsageError(
                    f"the tokenizer's special string {name!r} cannot be distinguished from text; set "
                    "generation.special_strings: parse"
                )
        return copy

    def hide(self, text: str) -> str:
        """A text whose special strings are replaced by marks that a chat template passes on unread."""
        names = list(self.special)
        return self._name.sub(lambda found: f"{self._hidden}{names.index(found[0])}\ue001", text)

    def reveal(self, text: str) -> str:
        """What a template made of a hidden text: its own special strings are tokens, those of the text are text.

        Raises:
            UsageError: the template cut a mark in two.
        """
        names = list(self.special)
        text = self._name.sub(lambda found: self._alias[found[0]], text)
        mark = re.compile(re.escape(self._hidden) + r"(\d+)\ue001")
        text = mark.sub(lambda found: names[int(found[1])], text)
        if self._hidden in text or self._hidden[:-1] in text:
            raise UsageError(
                "the chat template cuts a special string of the text in two; take it out, or set "
                "generation.special_strings: parse"
            )
        return text

    def fits(self, name: str) -> bool:
        """Are there other tokens for a special string, and do they spell all of it?"""
        made = self.backend.encode(name, add_special_tokens=False)
        unknown = self.unknown
        if not made.ids or any(token in self.special.values() or token == unknown for token in made.ids):
            return bool(made.ids) and self.special[name] == unknown
        return not left_out(name, made.offsets)

    @cached_property
    def unknown(self) -> int | None:
        """The id that stands for text without a token of its own."""
        model = self.backend.model
        index = getattr(model, "unk_id", None)
        if index is not None:
            return int(index)
        name = getattr(model, "unk_token", None)
        found = None if name is None else self.backend.token_to_id(name)
        return None if found is None else int(found)


def _rename(model: dict[str, Any], alias: dict[str, str]) -> None:
    """Give tokens of a model of `tokenizers` other names, and make sure that no merge of pieces leads to them."""
    if model.get("unk_token") in alias:
        model["unk_token"] = alias[model["unk_token"]]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram
        model["vocab"] = [[alias.get(piece, piece), score] for piece, score in vocabulary]
        return
    model["vocab"] = {alias.get(piece, piece): token for piece, token in vocabulary.items()}
    gone = alias.keys() & vocabulary.keys()
    if gone and "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [pair for pair in pairs if not gone & {*pair, "".join(pair)}]


def left_out(text: str, offsets: list[tuple[int, int]]) -> list[str]:
    """The characters of a text, blanks apart, that are in no token.

    Args:
        text: that was encoded.
        offsets: first and last place of each token in it, the last not included.
    """
    seen = bytearray(len(text))
    for first, last in offsets:
        seen[first:last] = b"\1" * (min(last, len(text)) - first)
    if 0 not in seen:
        return []
    return [letter for letter, covered in zip(text, seen, strict=True) if not covered and not letter.isspace()]
