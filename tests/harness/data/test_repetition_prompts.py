"""The prompts that repetition is judged on: how many, how long, in which groups, and that no two groups share text."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer

from harness.config.load import load_config, shipped_configs
from harness.data.prompts import Prompt, load_prompts

JUDGED, CONFIRM = "repetition.yaml", "repetition-confirm.yaml"
FROZEN = "5b435c192bfa2631ee3b99109ce5b6a2567134b5406e35979dc365ce442219f8"
KINDS = {"prose", "dialogue", "list", "code", "instructions", "dictionary", "poem", "table", "letter", "log"}
RUN = 6  # tokens in a row that two groups may not share


def shared_runs(texts: Sequence[Sequence[Hashable]], groups: Sequence[str], length: int = RUN) -> dict[Any, set[str]]:
    """The runs of `length` tokens that occur in more than one group, with these groups."""
    found: dict[Any, set[str]] = {}
    for text, group in zip(texts, groups, strict=True):
        for start in range(len(text) - length + 1):
            found.setdefault(tuple(text[start : start + length]), set()).add(group)
    return {run: where for run, where in found.items() if len(where) > 1}


def repeated_openings(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """The first three words that more than one text begins with."""
    counts = Counter(tuple(re.findall(r"\w+", text.casefold())[:3]) for text in texts)
    return [opening for opening, count in counts.items() if count > 1]


def wrong_lengths(
    ids: Sequence[Sequence[int]], names: Sequence[str], shortest: int = 32, longest: int = 64
) -> list[str]:
    """Which prompts do not have `shortest` to `longest` tokens."""
    return [name for name, own in zip(names, ids, strict=True) if not shortest <= len(own) <= longest]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Prompt]]:
    """The prompts of both files, as a run reads them."""
    folder = tmp_path_factory.mktemp("prompts")
    found = {}
    for name in (JUDGED, CONFIRM):
        file = str(shipped_configs() / "prompts" / name)
        config = {"name": "x", "models": ["m"], "prompts": file, "experiments": [{"kind": "heads"}]}
        (folder / name).write_text(yaml.safe_dump(config))
        loaded = load_config(folder / name)
        found[name] = load_prompts(loaded)
        assert not loaded.left_out
    return found


@pytest.fixture(scope="module")
def tokenizer(smollm2: Any) -> Tokenizer:
    return Tokenizer.from_file(str(smollm2.path / "tokenizer.json"))


def ids_of(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize(("name", "number", "groups"), [(JUDGED, 240, 150), (CONFIRM, 60, 40)])
def test_numbers_kinds_and_groups(prompts: dict[str, list[Prompt]], name: str, number: int, groups: int) -> None:
    own = prompts[name]
    kinds = Counter(prompt.kind for prompt in own)
    sizes = Counter(prompt.group for prompt in own)
    assert len(own) >= number
    assert set(kinds) == KINDS
    assert len(set(kinds.values())) == 1
    assert len(sizes) >= groups
    assert 1 < max(sizes.values()) <= 3
    named = [prompt for prompt in own if prompt.group != prompt.id]
    assert all(sizes[prompt.group] > 1 for prompt in named)
    assert len({(prompt.group, prompt.kind) for prompt in named}) == len(named)  # one subject, several kinds


def test_the_two_files_have_no_id_group_or_opening_in_common(prompts: dict[str, list[Prompt]]) -> None:
    for part in ("id", "group"):
        assert not set.intersection(*({getattr(prompt, part) for prompt in own} for own in prompts.values()))
    texts = [prompt.text for own in prompts.values() for prompt in own]
    assert repeated_openings(texts) == []
    assert all(text == text.strip() for text in texts)


def test_the_confirmation_prompts_are_frozen() -> None:
    """They were written before the first fit, and no figure changes them."""
    assert hashlib.sha256((shipped_configs() / "prompts" / CONFIRM).read_bytes()).hexdigest() == FROZEN


@pytest.mark.weights
def test_lengths_in_tokens(prompts: dict[str, list[Prompt]], tokenizer: Tokenizer) -> None:
    every = [prompt for own in prompts.values() for prompt in own]
    ids = ids_of(tokenizer, [prompt.text for prompt in every])
    assert wrong_lengths(ids, [prompt.id for prompt in every]) == []


@pytest.mark.weights
def test_no_two_groups_share_a_run_of_tokens(prompts: dict[str, list[Prompt]], tokenizer: Tokenizer) -> None:
    """Nor does one of them share a run with the prompts that other experiments read, and choices were made on."""
    texts = [prompt.text for own in prompts.values() for prompt in own]
    groups = [prompt.group for own in prompts.values() for prompt in own]
    for name in ("quickstart.yaml", "heads.yaml", "one-layer.yaml", "chat.yaml"):
        other = yaml.safe_load(Path(shipped_configs() / "prompts" / name).read_text(encoding="utf-8"))
        texts += [item["text"] for item in other]
        groups += ["another file"] * len(other)
    shared = shared_runs(ids_of(tokenizer, texts), groups)
    assert {tokenizer.decode(list(run)): where for run, where in shared.items()} == {}


def test_the_checks_find_what_they_look_for() -> None:
    words = ["abcdefgh", "xbcdefgy", "bcdefxyz"]
    assert shared_runs(words, ["one", "two", "three"]) == {tuple("bcdefg"): {"one", "two"}}
    assert shared_runs(words, ["one", "one", "three"]) == {}
    assert shared_runs(words, ["one", "one", "three"], length=5) == {tuple("bcdef"): {"one", "three"}}
    assert repeated_openings(["One day, she said", "one day she went", "One day he left"]) == [("one", "day", "she")]
    assert wrong_lengths([[0] * 31, [0] * 32, [0] * 64, [0] * 65], list("abcd")) == ["a", "d"]
