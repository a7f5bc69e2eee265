"""From texts to the token ids that a model reads: the only door, with its conventions.

- Every text, and every later window of a long one, begins with what the tokenizer puts before a text, as a rule one
  BOS token or nothing (`bos: auto`); with the BOS token (`always`); or with nothing (`never`). A chat begins as its
  template says, unless it is `always` or `never`. No text begins with two BOS tokens.
- What the tokenizer adds after a text, an EOS token as a rule, is left out: the model continues a text.
- Special strings in texts and in chats are read as text, unless `special_strings: parse` is set.
- Nothing is cut off or filled up, whatever the tokenizer's file says about it.
- A text without tokens, with unknown tokens only, or with a token that the model has not, is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from harness.core.errors import UsageError, one_line
from harness.core.notes import Notes
from harness.data.chat import render
from harness.data.special_strings import PlainReading, left_out, special_tokens

Bos = Literal["auto", "always", "never"]
SpecialStrings = Literal["split", "parse"]


@dataclass(frozen=True)
class Encoded:
    """The ids of a text, apart from those that every window of it begins with.

    Attributes:
        start: BOS, or whatever else comes before every window; may be empty.
        ids: of the text itself.
    """

    start: tuple[int, ...]
    ids: list[int]

    @property
    def whole(self) -> list[int]:
        """All ids, as the model reads them."""
        return [*self.start, *self.ids]

    def windows(self, length: int) -> list[list[int]]:
        """The text in pieces of at most `length` ids; each begins with `start`."""
        step = max(length - len(self.start), 1)
        return [[*self.start, *self.ids[first : first + step]] for first in range(0, len(self.ids), step)]


@dataclass(frozen=True)
class _Read:
    """What a tokenizer made of a text: what it put before and after it, the ids between, and where they come from."""

    before: list[int]
    ids: list[int]
    after: list[int]
    offsets: list[tuple[int, int]] | None = None


class Reader:
    """Makes token ids of texts for one model. What it decided about them, it tells in `report`.

    Args:
        tokenizer: of `transformers`.
        name: of the model, for messages.
        size: how many tokens the model has.
        bos: how a text begins; see the module.
        special_strings: are special strings in texts plain text (`split`), or tokens (`parse`)?
        notes: get what was decided.

    Raises:
        UsageError: `bos: always` where the tokenizer has no BOS token.
    """

    def __init__(
        self,
        tokenizer: Any,
        name: str,
        size: int,
        bos: Bos = "auto",
        special_strings: SpecialStrings = "split",
        notes: Notes | None = None,
    ) -> None:
        self.tokenizer, self.name, self.size, self.bos = tokenizer, name, size, bos
        self.splits, self.notes = special_strings == "split", Notes() if notes is None else notes
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is not None:
            self._backend.no_truncation()
            self._backend.no_padding()
            self._backend.encode_special_tokens = False
        if bos == "always" and tokenizer.bos_token_id is None:
            raise UsageError(f"generation.bos: always: the tokenizer of {name!r} has no BOS token; use auto or never")
        self._added_after: Counter[int] = Counter()
        self._held: dict[str, Counter[str]] = {}  # of each text, its special strings
        self._lost: dict[str, list[str]] = {}  # of each text, the characters that are in no token

    def text(self, text: str, what: str) -> Encoded:
        """The ids of a plain text.

        Args:
            text: what to encode.
            what: the text, for messages, such as "prompt 'a'".

        Raises:
            UsageError: a text that the tokenizer or the model cannot take; names the text and the model.
        """
        read = self._read(text, what)
        self._added_after.update(read.after)
        if read.offsets is not None and (lost := left_out(text, read.offsets)):
            self._lost[what] = lost
        if not read.ids:
            raise UsageError(f"{what} has no tokens for model {self.name!r}: its tokenizer leaves all of it out")
        return self._checked(self._begun(read.before, read.ids), what)

    def chat(self, text: str, what: str) -> Encoded:
        """The ids of a user's turn in the model's chat template. `start` is empty: a chat is not cut into windows.

        Args:
            text: of the user.
            what: the text, for messages.

        Raises:
            UsageError: as `text`; no chat template, or one that refuses the text.
        """
        try:
            if self.splits:
                ids = self._plain_chat(text, what)
            else:
                ids = self._ordinary(render(self.tokenizer, text), special_tokens_added=False).ids
                self._count(ids, self._ordinary(render(self.tokenizer, "x"), special_tokens_added=False).ids, what)
        except UsageError as error:
            raise UsageError(f"{what}: {error}") from None
        if not ids:
            raise UsageError(f"{what} has no tokens for model {self.name!r}: its chat template leaves all of it out")
        first = self.tokenizer.bos_token_id
        if self.bos == "always" and ids[0] != first:
            ids = [first, *ids]
        elif self.bos == "never" and first is not None:
            ids = ids[next((place for place, token in enumerate(ids) if token != first), len(ids)) :]
        return self._checked(Encoded((), ids), what)

    def report(self, texts: str) -> None:
        """Add a note for each thing that was decided about texts since the last report.

        Args:
            texts: what they were, in the plural, such as "prompts".
        """
        notes = self.notes
        spelt = self.tokenizer.convert_ids_to_tokens
        if self._added_after:
            added = ", ".join(repr(spelt(token)) for token in self._added_after)
            notes.add(f"{self.name}: its tokenizer puts {added} after a text: left out, as the model continues texts")
        if self._held:
            names: Counter[str] = sum(self._held.values(), Counter())
            shown = ", ".join(repr(name) for name, _ in names.most_common(3)) + (", ..." if len(names) > 3 else "")
            number, of = names.total(), len(self._held)
            held = f"{of} {texts if of > 1 else texts.removesuffix('s')} {'hold' if of > 1 else 'holds'} {number}"
            held += f" special string{'s' if number > 1 else ''} ({shown})"
            if self.splits:
                way = "read as plain text; generation.special_strings: parse reads them as tokens"
            else:
                way = "read as tokens, as generation.special_strings: parse says"
            notes.add(f"{self.name}: {held}, {way}")
        if self._lost:
            what, letters = next(iter(self._lost.items()))
            number = sum(map(len, self._lost.values()))
            notes.add(
                f"{self.name}: its tokenizer leaves out {number} character{'s' if number > 1 else ''} of "
                f"{len(self._lost)} {texts if len(self._lost) > 1 else texts.removesuffix('s')}, the first is "
                f"{letters[0]!r} of {what}"
            )
        self._added_after, self._held, self._lost = Counter(), {}, {}

    @cached_property
    def _special(self) -> dict[str, int]:
        return special_tokens(self.tokenizer)

    @cached_property
    def _plain(self) -> PlainReading:
        return PlainReading(self.tokenizer, self._special)

    def _begun(self, before: list[int], ids: list[int]) -> Encoded:
        """The ids with what comes before every window, by the convention."""
        first = self.tokenizer.bos_token_id
        if self.bos == "never":
            before = []
        elif self.bos == "always" and first not in before:
            before = [first, *before]
        if before and not self.splits and ids[: len(before)] == before:
            ids = ids[len(before) :]  # the text begins with it, too: once is enough
        return Encoded(tuple(before), ids)

    def _read(self, text: str, what: str) -> _Read:
        """What the tokenizer makes of a text, its special strings read as the settings say."""
        try:
            read = self._ordinary(text)
        except UsageError as error:
            raise UsageError(f"{what}: {error}") from None
        special = set(self._special.values())
        if not special.intersection(read.ids):
            return read
        if not self.splits:
            self._count(read.ids, [], what)
            return read
        if self._backend is None:
            return self._slowly(read, text, what)
        try:
            plain = self._encode(self._plain.backend, text)
        except UsageError as error:
            raise UsageError(f"{what}: {error}") from None
        self._count(read.ids, plain.ids, what)
        self._refuse_whole(what)
        return plain

    def _plain_chat(self, text: str, what: str) -> list[int]:
        """A chat whose own special strings are tokens, and those of the user's text are text."""
        ordinary = self._ordinary(render(self.tokenizer, text), special_tokens_added=False).ids
        if self._backend is None:
            hidden = next((name for name in self._special if name in text), None)
            if hidden is None:
                return ordinary
            raise UsageError(
                f"it holds {hidden!r}, a special string, and the tokenizer of {self.name!r} cannot read it as text "
                "in a chat; take it out, or set generation.special_strings: parse"
            )
        plain = self._plain
        if plain.hide(text) == text:
            return ordinary
        made = self._encode(plain.backend, plain.reveal(render(self.tokenizer, plain.hide(text))), False)
        self._count(ordinary, made.ids, what)
        self._refuse_whole(what)
        return made.ids

    def _slowly(self, read: _Read, text: str, what: str) -> _Read:
        """The plain reading by a tokenizer without a backend of `tokenizers`."""
        made = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids
        ids = [int(token) for token in made]
        self._count(read.ids, ids, what)
        known = {name: token for name, token in self._special.items() if token != self.tokenizer.unk_token_id}
        whole = next((name for name, token in known.items() if token in ids and name in text), None)
        if whole is not None:
            raise self._not_text(whole, what)
        return _Read(read.before, ids, read.after)

    def _refuse_whole(self, what: str) -> None:
        """Refuse a text with a special string that the tokenizer has no other tokens for."""
        for name in self._held.get(what, ()):
            try:
                fits = self._plain.fits(name)
            except Exception:  # tokenizers raises a bare Exception for a word that is in no vocabulary
                fits = False
            if not fits:
                raise self._not_text(name, what)

    def _not_text(self, name: str, what: str) -> UsageError:
        return UsageError(
            f"{what} holds {name!r}, a special string that the tokenizer of {self.name!r} has no other tokens for; "
            "take it out, or set generation.special_strings: parse to read it as the token"
        )

    def _count(self, ordinary: list[int], plain: list[int], what: str) -> None:
        """Note which special strings a text holds: tokens of the ordinary reading that the plain one has not."""
        names = {token: name for name, token in self._special.items()}
        found = Counter(names[token] for token in ordinary if token in names)
        found -= Counter(names[token] for token in plain if token in names)
        if found:
            self._held[what] = found

    def _ordinary(self, text: str, special_tokens_added: bool = True) -> _Read:
        if self._backend is not None:
            return self._encode(self._backend, text, special_tokens_added)
        try:
            made = self.tokenizer(text, add_special_tokens=special_tokens_added, verbose=False).input_ids
            bare = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        except Exception as error:  # each tokenizer written in Python raises its own kind
            raise self._not_taken(text, error) from None
        whole, ids = [int(token) for token in made], [int(token) for token in bare]
        places = [place for place in range(len(whole) - len(ids) + 1) if whole[place : place + len(ids)] == ids]
        around = self.tokenizer.build_inputs_with_special_tokens([-1]) if len(places) > 1 else []  # as in <s><s></s>
        first = around.index(-1) if -1 in around else places[0] if places else 0
        return _Read(whole[:first], ids, whole[first + len(ids) :])

    def _encode(self, backend: Any, text: str, special_tokens_added: bool = True) -> _Read:
        try:
            made = backend.encode(text, add_special_tokens=special_tokens_added)
        except Exception as error:  # tokenizers raises a bare Exception for a word in no vocabulary
            raise self._not_taken(text, error) from None
        own = [place for place, sequence in enumerate(made.sequence_ids) if sequence is not None]
        first, last = (own[0], own[-1] + 1) if own else (len(made.ids), len(made.ids))
        return _Read(made.ids[:first], made.ids[first:last], made.ids[last:], made.offsets[first:last])

    def _not_taken(self, text: str, error: Exception) -> UsageError:
        size, known = len(self.tokenizer), self.tokenizer.get_vocab()
        words = [word for word in text.split() if word not in known]
        if words and known.keys() == {str(token) for token in range(size)}:
            return UsageError(
                f"{words[0][:20]!r} is no token: the model has no tokenizer, its texts are ids from 0 to {size - 1} "
                "with blanks between them; give prompts of ids, or save a tokenizer into its folder"
            )
        return UsageError(f"the tokenizer cannot take {text[:20]!r}: {one_line(error)[:120]}")

    def _checked(self, encoded: Encoded, what: str) -> Encoded:
        """Refuse ids that the model has not, and texts that the tokenizer knows nothing of."""
        check_ids(encoded.whole, what, self.name, self.size, self.tokenizer)
        unknown = self.tokenizer.unk_token_id
        ends = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
        if unknown is not None and unknown not in ends and {*encoded.ids} == {unknown}:
            raise UsageError(
                f"{what}: the tokenizer of {self.name!r} knows none of it, every token is "
                f"{self.tokenizer.unk_token!r}; is it the tokenizer of another model or language?"
            )
        return encoded


def check_ids(ids: list[int], what: str, name: str, size: int, tokenizer: Any = None) -> None:
    """Refuse ids that a model has no tokens for.

    Args:
        ids: of a text.
        what, name: the text and the model, for the message.
        size: how many tokens the model has.
        tokenizer: to spell the token in the message, where there is one.

    Raises:
        UsageError: names the text, the position, the id and the model.
    """
    place = next((place for place, token in enumerate(ids) if not 0 <= token < size), None)
    if place is not None:
        spelt = "" if tokenizer is None or ids[place] < 0 else f", {tokenizer.convert_ids_to_tokens(ids[place])!r}"
        raise UsageError(
            f"{what}: position {place} has token {ids[place]}{spelt}, the model {name!r} has only {size} tokens"
        )
