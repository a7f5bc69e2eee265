"""A prompt as users write it: in a file of prompts, or in a config itself."""

from __future__ import annotations

import unicodedata
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from harness.config.forms import Called
from harness.config.strict import Growing

LONGEST_NAME = 200  # characters of an id or a kind

FilePath = Annotated[str, Called("a path", "paths")]


def check_name(value: str) -> str:
    """The id, kind or group of a prompt, unchanged. Rows, tables and file lists show it on a line of its own.

    Raises:
        ValueError: it is empty, too long, or holds line breaks or other control characters.
    """
    if not value.strip():
        raise ValueError("id, kind, group and text must be texts that are not empty")
    if len(value) > LONGEST_NAME:
        raise ValueError(f"must have at most {LONGEST_NAME} characters, got {len(value)}")
    for character in value:
        if unicodedata.category(character) in {"Cc", "Zl", "Zp"}:
            raise ValueError(f"must not hold the control character U+{ord(character):04X}, got {value[:40]!r}")
    return value


class InlinePrompt(Growing):
    """A text to be continued."""

    called: ClassVar[Called] = Called("{id, kind, text}", "{id, kind, text}")
    later: ClassVar[frozenset[str]] = frozenset({"chat", "group"})

    id: str = Field(description="of the prompt in rows; each occurs once")
    kind: str = Field(description="by which splits are stratified")
    text: str = Field(description="what the model continues")
    chat: bool = Field(default=False, description="a user's turn of the model's chat template")
    group: str | None = Field(default=None, description="of prompts that share a subject; the id where there is none")

    @field_validator("id", "kind", "group")
    @classmethod
    def _names(cls, value: str | None) -> str | None:
        return None if value is None else check_name(value)

    @field_validator("text")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("id, kind and text must be texts that are not empty")
        return value
