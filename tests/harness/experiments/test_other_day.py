"""A chat template that writes the date: a run started on one day is not continued on another."""

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
    with pytest.raises(UsageError, match="holds another run: its prompts' token ids differ for"):
        harness.run(config, out=tmp_path / "run")
