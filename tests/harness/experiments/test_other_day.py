"""Texts that have other token ids on another day, as with a chat template that writes the date: another run."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import small_models
from transformers.utils import chat_template_utils

import harness
from harness.core.errors import UsageError
from harness.data.tokenisation import Encoded, Reader


def test_a_run_is_not_continued_with_other_token_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        today = 1

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 1, cls.today, tzinfo=tz)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    folder = small_models.save(small_models.llama(2), tmp_path / "model")
    about = json.loads((folder / "tokenizer_config.json").read_text())
    about["chat_template"] = "w{{ strftime_now('%d') | int }} {{ messages[0]['content'] }}"
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    prompts = [{"id": str(i), "kind": "a", "text": t} for i, t in enumerate(small_models.random_texts(4, 8))]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    config = {
        "name": "dated",
        "models": [str(folder)],
        "prompts": str(tmp_path / "prompts.json"),
        "generation": {"max_new_tokens": 4, "chat": True, "strategies": ["greedy"]},
        "experiments": [{"kind": "generation", "rollout_seeds": 2}],
    }
    run = harness.run(config, out=tmp_path / "run")
    assert len(run.manifest["models"][0]["tokens_sha256"]) == 64
    Clock.today = 2
    with pytest.raises(UsageError, match="holds another run: the token ids of its prompts differ for"):
        harness.run(config, out=tmp_path / "run")


class Planned(Exception):  # noqa: N818 - no error: the run is not needed any further
    """The run has its directory and its plan."""


@pytest.mark.parametrize(
    ("experiment", "which", "what"),
    [
        ({"kind": "generation"}, "prompt", "prompts"),
        ({"kind": "heads", "layers": [0], "texts": {"dataset": "prompts.json", "min_tokens": 3}}, "document", "texts"),
        ({"kind": "count-ablation", "prose": "prompts.json"}, "prose", "texts"),
    ],
    ids=["prompts", "texts of heads", "prose"],
)
def test_no_kind_of_text_may_change_its_ids(
    tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch, experiment: Any, which: str, what: str
) -> None:
    prompts = [{"id": str(i), "kind": "a", "text": t} for i, t in enumerate(small_models.random_texts(4, 8))]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    config = {
        "name": "changed",
        "models": [str(small_model)],
        "prompts": "prompts.json",
        "held_out": 0.5,
        "generation": {"max_new_tokens": 4},
        "experiments": [experiment],
    }
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    plans: list[set[str]] = []

    def stop(store: Any, plan: Any) -> None:
        plans.append({unit.key for unit in plan})
        raise Planned

    def plan(out: str) -> None:
        with pytest.raises(Planned):
            harness.run(tmp_path / "c.yaml", out=tmp_path / out, on_plan=stop)

    plan("run")
    plan("run")
    assert plans[0] == plans[1]
    plain = Reader.text

    def text(self: Reader, text: str, what: str) -> Encoded:
        found = plain(self, text, what)
        return Encoded(found.start, found.ids[::-1]) if which in what else found

    monkeypatch.setattr(Reader, "text", text)
    with pytest.raises(UsageError, match=f"holds another run: the token ids of its {what} differ for"):
        harness.run(tmp_path / "c.yaml", out=tmp_path / "run")
    plan("other")
    assert plans[2] - plans[0]
