"""Prompts that are turns of a chat: left out where a model has no chat template, and on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import small_models
import yaml

import harness
from harness.config.load import Config, PromptFiles, load_config
from harness.core.errors import UsageError
from harness.data.prompts import load_prompts

PROMPTS = [
    {"id": f"p{n}", "kind": "chat" if n % 4 == 0 else "ab"[n % 2], "text": f"w{n + 20} w{n + 30} w{n + 40}",
     **({"chat": True} if n % 4 < 2 else {})}
    for n in range(16)
]  # fmt: skip
PLAIN = {f"p{n}" for n in range(16) if n % 4 >= 2}
"""Neither of the kind `chat` nor a turn of a chat."""


def config(model: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "chats", "models": [str(model)], "prompts": PROMPTS, "held_out": 0.5,
        "generation": {"max_new_tokens": 4, "strategies": ["greedy"], "ignore_eos": True},
        "experiments": [{"kind": "generation", "surrogates": ["n-gram"]}], **changes,
    }  # fmt: skip


def with_template(folder: Path) -> Path:
    tokenizer = small_models.tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    path: Path = small_models.save(small_models.llama(2), folder)
    tokenizer.save_pretrained(path)
    return path


def test_a_model_without_template_leaves_chats_out_by_itself(small_model: Path, tmp_path: Path) -> None:
    """For every model of the run: they are compared on the same prompts."""
    other = with_template(tmp_path / "chatting")
    run = harness.run(config(small_model, models=[str(other), str(small_model)]), out=tmp_path / "run")
    rows = run.rows[run.rows["prompt"].notna()]
    assert set(rows["prompt"]) == PLAIN
    assert rows.groupby("model")["prompt"].nunique().tolist() == [len(PLAIN)] * 2
    said = [note for note in run.manifest["notes"] if "chat template" in note]
    assert said == [f"{small_model} has no chat template: 8 prompts that are turns of a chat are left out"]
    again = harness.run(config(small_model, models=[str(other), str(small_model)]), out=tmp_path / "run")
    assert again.manifest["config_hash"] == run.manifest["config_hash"]


def test_a_model_with_a_template_reads_them(tmp_path: Path) -> None:
    run = harness.run(config(with_template(tmp_path / "chatting")), out=tmp_path / "run")
    assert set(run.rows["prompt"].dropna()) == {prompt["id"] for prompt in PROMPTS}
    assert not any("chat template" in note for note in run.manifest.get("notes", []))


def test_where_every_prompt_is_to_be_a_chat_a_missing_template_is_an_error(small_model: Path, tmp_path: Path) -> None:
    generation = {"max_new_tokens": 4, "chat": True}
    with pytest.raises(UsageError, match="has no chat template"):
        harness.run(config(small_model, generation=generation), out=tmp_path / "run")


@pytest.mark.parametrize("form", ["file", "files", "inline"])
def test_kinds_are_left_out_on_request(form: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(PROMPTS))
    given = {"file": str(tmp_path / "p.yaml"), "files": [str(tmp_path / "p.yaml")], "inline": PROMPTS}[form]
    loaded = load_config(config(tmp_path, prompts=given), ["prompts.leave_out=[chat]"])
    assert isinstance(loaded.config.prompts, PromptFiles)
    assert {prompt.id for prompt in load_prompts(loaded)} == PLAIN
    loaded = load_config(config(tmp_path, prompts={"files": given, "leave_out": ["a"]}))
    assert {prompt.kind for prompt in load_prompts(loaded)} == {"b", "chat"}
    assert Config.model_validate(loaded.config.model_dump(mode="json")) == loaded.config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prompts.leave_out=[caht]", "no prompt of .* is of the kind 'caht'; did you mean 'chat'"),
        ("prompts.leave_out=chat", "leave_out: must be a list of texts, got 'chat'"),
        ("prompts.leave_uot=[chat]", "prompts"),
        ("prompts={leave_out: [chat]}", "files"),
        ("prompts={files: [], leave_out: [chat]}", "the list is empty"),
        ("prompts.leave_out=[chat, a, b]", "0 different prompts"),
    ],
)
def test_mistakes_are_one_line(override: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(PROMPTS))
    with pytest.raises(UsageError, match=message) as caught:
        load_prompts(load_config(config(tmp_path, prompts=str(tmp_path / "p.yaml")), [override]))
    assert "\n" not in str(caught.value)
