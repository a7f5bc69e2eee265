"""The ids that a unit stored are the ones that its settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from stores import work_on

from harness.core.hashing import canonical_hash
from harness.core.rows import Rows
from harness.runs.token_ids import token_problems
from harness.runs.units import Unit, Work
from harness.runs.verify import verify

IDS = {"a": [1, 2, 3], "b": [4]}


def keep(work: Work) -> pd.DataFrame:
    """Store the ids of prompts."""
    tokens = work.local["tokens"]
    frame = pd.DataFrame([{"prompt": name, "prompt_tokens": ids, "continuation": []} for name, ids in tokens.items()])
    frame.to_parquet(work.folder / "trajectories.parquet")
    rows = Rows(experiment="test")
    rows.add("length", 1.0)
    return rows.frame()


def unit(tokens: dict[str, list[int]], names: str = "ab") -> Unit:
    prompts: list[Any] = [{"id": name, "tokens_sha256": canonical_hash(IDS[name])} for name in names]
    return Unit("test_token_ids:keep", "keep", {"prompts": prompts}, local={"tokens": tokens})


@pytest.mark.parametrize(
    ("tokens", "names", "problem"),
    [
        (IDS, "ab", None),
        ({**IDS, "a": [1, 2, 9]}, "ab", "token ids of prompt 'a' are not those of its settings"),
        ({"a": IDS["a"]}, "ab", "lacks prompt 'b'"),
        (IDS, "aab", "its settings name prompt 'a' twice"),
    ],
)
def test_ids_are_compared_with_the_settings(
    tmp_path: Path, tokens: dict[str, list[int]], names: str, problem: str | None
) -> None:
    one = unit(tokens, names)
    run, _ = work_on(tmp_path / "run", [one])
    found = token_problems(run.path / "units" / one.key)
    assert (found == []) if problem is None else (problem in found[0])
    assert (problem is None) == (not any("prompt" in line for line in verify(run.path).problems))


@pytest.mark.parametrize("change", [{}, {"tokens": [1, 2, 9]}, {"document": "b"}, {"piece": 1}, {"split": "train"}])
def test_ids_of_given_texts_are_compared_with_their_hash(tmp_path: Path, change: dict[str, Any]) -> None:
    pieces = [
        {"document": "a", "split": "held_out", "piece": 0, "tokens": [1, 2, 3]},
        {"document": "a", "split": "held_out", "piece": 3, "tokens": [4]},
    ]
    settings = {"model": "m", "revision": None, "pieces": canonical_hash(pieces)}
    stored = {"pieces": [{**pieces[0], **change}, pieces[1]]}
    one = Unit("harness.experiments._shared.given_texts:keep_texts", "texts", settings, local=stored)
    run, _ = work_on(tmp_path / "run", [one])
    expected = ["trajectories.parquet: the token ids of its texts are not those of its settings"] if change else []
    assert token_problems(run.path / "units" / one.key) == expected
    assert [line for line in verify(run.path).problems if "token ids" in line] == [
        f"units/{one.key} (texts): {line}" for line in expected
    ]
