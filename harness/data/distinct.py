"""Every text once: empty texts and duplicates are left out before prompts are split, and reported with their ids."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Protocol, TypeVar

from harness.config.load import LoadedConfig
from harness.core.errors import UsageError

SHOWN = 240  # characters of ids in a note; the manifest has all


class _Prompt(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def chat(self) -> bool: ...


P = TypeVar("P", bound=_Prompt)


def distinct(
    loaded: LoadedConfig, prompts: Sequence[P], empty: Sequence[str], where: str, repeated_rows: bool = False
) -> list[P]:
    """The prompts without those whose text has come before: one text is one unit, whatever its ids.

    Two texts are the same where every character is, and both are or are not a turn of a chat. Texts that differ in
    nothing but case, white space or the composition of characters are kept, with a note.

    Args:
        loaded: the config of the run; its notes and `left_out` say what was left out.
        prompts: as they were read; none is empty.
        empty: ids of the texts that are empty.
        where: the key of the config, for messages.
        repeated_rows: a row that occurs again with the same id is a duplicate, not a mistake.

    Raises:
        UsageError: two prompts have the same id.
    """
    by_id: dict[str, P] = {}
    first: dict[tuple[str, bool], str] = {}
    alike: dict[tuple[str, bool], list[str]] = {}
    duplicates: dict[str, list[str]] = {}
    kept = []
    for prompt in prompts:
        known = by_id.setdefault(prompt.id, prompt)
        if known is not prompt and not (repeated_rows and known.text == prompt.text):
            same = "" if known.text == prompt.text else ", with different texts"
            raise UsageError(f"{where}: id {prompt.id!r} occurs twice{same}")
        original = first.setdefault((prompt.text, prompt.chat), prompt.id)
        if known is not prompt or original != prompt.id:
            duplicates.setdefault(original, []).append(prompt.id)
            continue
        alike.setdefault((_folded(prompt.text), prompt.chat), []).append(prompt.id)
        kept.append(prompt)
    _report(loaded, where, list(empty), duplicates, [ids for ids in alike.values() if len(ids) > 1])
    return kept


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _report(
    loaded: LoadedConfig, where: str, empty: list[str], duplicates: dict[str, list[str]], alike: list[list[str]]
) -> None:
    if empty:
        loaded.notes.add(f"{where}: empty texts are left out: {len(empty)}, with ids {_cut([repr(x) for x in empty])}")
    if duplicates:
        number = sum(len(ids) for ids in duplicates.values())
        pairs = [
            f"{', '.join(map(repr, ids[:5]))}{' ...' if len(ids) > 5 else ''} as {kept!r}"
            for kept, ids in duplicates.items()
        ]
        loaded.notes.add(f"{where}: texts that occur again are left out: {number}, with ids {_cut(pairs)}")
    if alike:
        groups = [" and ".join(map(repr, ids[:5])) for ids in alike]
        loaded.notes.add(f"{where}: texts that differ in case or white space only are kept as several: {_cut(groups)}")
    known = loaded.left_out
    if empty:
        known["empty"] = list(dict.fromkeys([*known.get("empty", []), *empty]))
    if duplicates:
        known["duplicates"] = {**known.get("duplicates", {}), **duplicates}


def _cut(parts: list[str]) -> str:
    """As many parts as fit into a note."""
    shown = parts[:1]
    for part in parts[1:]:
        if len("; ".join(shown)) + len(part) > SHOWN:
            break
        shown.append(part)
    more = len(parts) - len(shown)
    return "; ".join(shown) + (f"; and {more} more, see prompts in manifest.json" if more else "")
