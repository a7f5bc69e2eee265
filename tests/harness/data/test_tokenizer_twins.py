"""One tokenizer in two versions, compiled and written in Python: texts have the same ids by either."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from harness.core.errors import UsageError
from harness.core.notes import Notes
from harness.data.tokenisation import Reader

SPECIAL = ["<unk>", "<s>", "</s>"]
PIECES = {piece: index for index, piece in enumerate([*SPECIAL, *"abcdefgh </>s", "é"])}
NAMES: dict[str, Any] = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}


class Slow(PreTrainedTokenizer):
    """A character is a token; BOS comes before a text and EOS after it."""

    def __init__(self, lower: bool = False, **settings: Any) -> None:
        self.lower = lower
        super().__init__(**{**NAMES, **settings})

    @property
    def vocab_size(self) -> int:
        return len(PIECES)

    def get_vocab(self) -> dict[str, int]:
        return dict(PIECES)

    def _tokenize(self, text: str, **settings: Any) -> list[str]:
        return list(text.lower() if self.lower else text)

    def _convert_token_to_id(self, token: str) -> int:
        return PIECES.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return {index: piece for piece, index in PIECES.items()}[index]

    def build_inputs_with_special_tokens(self, one: list[int], two: list[int] | None = None) -> list[int]:
        return [1, *one, 2]


def fast() -> PreTrainedTokenizerFast:
    """The same, compiled."""
    plain = Tokenizer(models.WordLevel(PIECES, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    plain.add_special_tokens(SPECIAL)
    ids = [(name, PIECES[name]) for name in SPECIAL]
    plain.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=plain, **NAMES)


def read(tokenizer: Any, text: str, **settings: Any) -> tuple[list[int], list[str]]:
    """Ids and notes, or the message of a refusal as the only note."""
    reader = Reader(tokenizer, "mine", len(PIECES), notes=Notes(), **settings)
    try:
        found = reader.text(text, "prompt 'a'").whole
    except UsageError as error:
        return [], [str(error)]
    reader.report("prompts")
    return found, list(reader.notes)


@pytest.mark.parametrize("bos", ["auto", "always", "never"])
@pytest.mark.parametrize("special_strings", ["split", "parse"])
@pytest.mark.parametrize(
    "text", ["abc", "a b", " a ", "café", "xa", "a</s>b", "<s>a", "</s></s>", "<s>", "<unk>a", "xyz", "", "a <s> b"]
)
def test_both_versions_read_a_text_alike(text: str, special_strings: str, bos: str) -> None:
    slow, quick = (read(one, text, bos=bos, special_strings=special_strings) for one in (Slow(), fast()))
    assert slow == quick
    if text == "abc":
        assert slow[0] == [*([] if bos == "never" else [1]), 3, 4, 5]
        assert "puts '</s>' after a text: left out" in slow[1][0]
    if "</s>" in text and special_strings == "split":
        assert 2 not in slow[0] and re.search("special string", " ".join(slow[1]))
