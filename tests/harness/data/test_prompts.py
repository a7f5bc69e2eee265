"""Prompts: their split never mixes, stays stratified, and does not move when other prompts come and go."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.config.load import load_config
from harness.core.errors import UsageError
from harness.data.prompts import Prompt, limited, load_prompts, split

kinds = st.lists(st.sampled_from("abc"), min_size=2, max_size=60)


def make(names: list[str]) -> list[Prompt]:
    return [Prompt(f"p{index}", kind, "text") for index, kind in enumerate(names)]


@given(kinds, st.floats(0.05, 0.95), st.integers(0, 2**40))
def test_a_split_is_stratified(names: list[str], share: float, seed: int) -> None:
    found = split(make(names), share, seed)
    assert [p.id for p in found] == [p.id for p in make(names)]
    held = Counter(p.kind for p in found if p.split == "held_out")
    for kind, size in Counter(names).items():
        if size > 1:
            assert 1 <= held[kind] <= size - 1
        assert abs(held[kind] - share * size) <= 1 + 1e-9


def test_the_shipped_prompts_have_what_the_quickstart_promises() -> None:
    prompts = load_prompts(load_config("quickstart"))
    assert len(prompts) >= 40
    held = Counter(p.kind for p in prompts if p.split == "held_out")
    assert set(held) == {"prose", "dialogue", "list", "code", "instructions"}
    assert sum(held.values()) >= 10
    assert max(held.values()) - min(held.values()) <= 1


@given(st.integers(1, 8))
def test_a_limit_takes_kinds_in_turn_from_each_split(limit: int) -> None:
    prompts = split(make(list("aaaabbbbcccc")), 0.34, 0)
    few = limited(prompts, limit, 0)
    for part in ("train", "held_out"):
        whole = [p for p in prompts if p.split == part]
        kept = Counter(p.kind for p in few if p.split == part)
        assert sum(kept.values()) == min(limit, len(whole))
        assert max(kept.values()) - min(kept[kind] for kind in "abc") <= 1 + (sum(kept.values()) == len(whole))


def prompts_of(tmp_path: Path, content: Any, **changes: Any) -> list[Prompt]:
    (tmp_path / "p.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    config = {"name": "x", "models": ["m"], "prompts": "p.yaml", "experiments": [{"kind": "heads"}], **changes}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    return load_prompts(load_config(tmp_path / "c.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: b", "prompts are a list"),
        ([{"id": "a", "text": "t"}], "prompt 0 must have the keys id, kind and text"),
        ([{"id": "a", "kind": "k", "text": " "}], "must be texts that are not empty"),
        ([{"id": "a", "kind": "k", "text": "t"}] * 2, "id 'a' occurs twice"),
        ([{"id": "a", "kind": "k", "text": "t"}], "leave none for"),
    ],
)
def test_malformed_prompts(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        prompts_of(tmp_path, content)


def test_a_missing_file_of_prompts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'other\.yaml': no such file"):
        prompts_of(tmp_path, [], prompts="other.yaml")


def test_prompts_from_a_local_dataset(tmp_path: Path) -> None:
    lines = [
        '{"id": "a", "body": "one", "sort": "x"}',
        '{"id": "b", "body": "two", "sort": "y"}',
        '{"id": "c", "body": " ", "sort": "y"}',
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(lines))
    spec = {"dataset": "d.jsonl", "column": "body", "kind_column": "sort"}
    found = prompts_of(tmp_path, [], prompts=spec, held_out=0.5)
    assert {(p.id, p.kind, p.text) for p in found} == {("a", "x", "one"), ("b", "y", "two")}
    with pytest.raises(UsageError, match="has no column 'text'"):
        prompts_of(tmp_path, [], prompts={"dataset": "d.jsonl"})
    with pytest.raises(UsageError, match="unknown ending"):
        prompts_of(tmp_path, [], prompts={"dataset": "p.yaml"})


def test_a_prompt_without_a_group_is_one_of_its_own(tmp_path: Path) -> None:
    content = [{"id": name, "kind": "k", "text": f"text {name}"} for name in "abc"]
    alone = prompts_of(tmp_path, content, held_out=0.4)
    for item in content[:2]:
        item["group"] = "g"
    together = prompts_of(tmp_path, content, held_out=0.4)
    assert [p.group for p in alone] == ["a", "b", "c"]
    assert [p.group for p in together] == ["g", "g", "c"]
    assert [p.as_dict().get("group") for p in together] == ["g", "g", None]
    assert all("group" not in p.as_dict() for p in alone)
    content[2]["group"] = " "
    with pytest.raises(UsageError, match="must be texts that are not empty"):
        prompts_of(tmp_path, content)
