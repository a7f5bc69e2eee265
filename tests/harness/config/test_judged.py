"""The setting `judged`: prompts of their own to be judged on, all others are fitted to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.config.load import load_config
from harness.core.errors import UsageError
from harness.data.prompts import load_prompts
from harness.data.splits import folds_of

GIVEN: dict[str, Any] = {"name": "t", "models": ["m"], "prompts": "train.yaml", "experiments": [{"kind": "repetition"}]}


def prompts(folder: Path, file: str, ids: list[str], group: str = "") -> None:
    extra = {"group": group} if group else {}
    texts = [{"id": name, "kind": "k", "text": f"text {name}", **extra} for name in ids]
    (folder / file).write_text(yaml.safe_dump(texts), encoding="utf-8")


def read(folder: Path, **more: Any) -> Any:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**GIVEN, **more}), encoding="utf-8")
    return load_prompts(load_config(path))


def test_all_of_one_file_are_fitted_to_and_all_of_the_other_judged(tmp_path: Path) -> None:
    prompts(tmp_path, "train.yaml", ["a", "b", "c"])
    prompts(tmp_path, "new.yaml", ["x", "y"])
    found = read(tmp_path, judged="new.yaml")
    assert [(p.id, p.split, p.fold) for p in found] == [
        ("a", "train", None),
        ("b", "train", None),
        ("c", "train", None),
        ("x", "held_out", 0),
        ("y", "held_out", 0),
    ]
    (fold,) = folds_of(found)
    assert ([p.id for p in fold.train], [p.id for p in fold.judged]) == (["a", "b", "c"], ["x", "y"])
    several = read(tmp_path, judged=["new.yaml"], limit=1)
    assert [p.split for p in several] == ["train", "held_out"]


def test_it_stands_alone(tmp_path: Path) -> None:
    for other in ({"held_out": 0.3}, {"folds": 5}):
        with pytest.raises(UsageError, match=f"both judged and {next(iter(other))}: .* are given"):
            load_config({**GIVEN, **other, "judged": "new.yaml"})
    with pytest.raises(UsageError, match="judged: the list is empty"):
        load_config({**GIVEN, "judged": []})
    with pytest.raises(UsageError, match="judged: there are no `prompts`"):
        load_config({**GIVEN, "prompts": None, "judged": "new.yaml"})
    prompts(tmp_path, "train.yaml", ["a"])
    with pytest.raises(UsageError, match=r"judged: 'new\.yaml': no such file"):
        read(tmp_path, judged="new.yaml")


def test_no_group_stands_on_both_sides_and_no_text_is_on_both(tmp_path: Path) -> None:
    prompts(tmp_path, "train.yaml", ["a", "b"], group="g")
    prompts(tmp_path, "new.yaml", ["x"], group="g")
    with pytest.raises(UsageError, match="group 'g' has prompts of both `prompts` and `judged`"):
        read(tmp_path, judged="new.yaml")
    prompts(tmp_path, "train.yaml", ["a"])
    (tmp_path / "new.yaml").write_text(yaml.safe_dump([{"id": "x", "kind": "k", "text": "text a"}]), encoding="utf-8")
    with pytest.raises(UsageError, match="leave none for held_out; add prompts or change judged"):
        read(tmp_path, judged="new.yaml")


def test_it_is_recorded_only_where_it_is_set() -> None:
    assert "judged" not in load_config(GIVEN).config.model_dump(mode="json")
    recorded = load_config({**GIVEN, "judged": "new.yaml"}).config.model_dump(mode="json")
    assert recorded["judged"] == "new.yaml"
    assert "held_out" not in recorded
