"""Wrong configs, overrides and prompts of any kind are one line: what, where, what is accepted.

CCMC_FUZZ=N tries N of each kind; by default a few hundred.
"""

from __future__ import annotations

import copy
import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from mutations import changed

from harness.config.load import LoadedConfig, config_names, find_config, load_config
from harness.config.reading import read_yaml
from harness.core.errors import UsageError
from harness.data.prompts import load_prompts

CASES = int(os.environ.get("CCMC_FUZZ", "150"))
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 2**63, 10**40, 0.5, 1.0, -0.0, float("nan"), float("inf"), "", " ", "x", "3", "all",
    "greedy", "\x00", "a\nb", "\x1b[31m", "x" * 2000, [], [None], [[]], ["x", "x"], [1, 2], {}, {"a": 1},
    {"kind": "heads"}, {"kind": "nothing"}, {"temperature": -1}, [{"kind": "heads"}] * 2, {"dataset": ""},
    [{"id": "a"}],
)  # fmt: skip
PYDANTIC = (
    "Input should",
    "validation error",
    "type=",
    "pydantic",
    "union_tag",
    "function-",
    "str_type",
    "tagged-union",
)


def check(read: Any, about: object) -> object:
    """Read something: it succeeds, or says in one line of our words what is wrong."""
    try:
        return read()
    except UsageError as error:
        said = str(error)
        assert said
        assert "\n" not in said, f"{about}: {said}"
        assert len(said) <= 600, f"{about}: {len(said)} characters: {said[:300]}"
        assert not any(word in said for word in PYDANTIC), f"{about}: {said}"
        assert not any(ord(sign) < 32 for sign in said), f"{about}: {said!r}"
        return None


@pytest.fixture(scope="module")
def shipped() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in config_names():
        found.append(load_config(find_config(name)).given)
    return found


def test_changed_configs(shipped: list[dict[str, Any]]) -> None:
    outcomes = []
    for case in range(CASES):
        dice = random.Random(case)
        made = changed(dice.choice(shipped), dice, ODD)
        if dice.random() < 0.3:
            made = changed(made, dice, ODD)
        outcomes.append(check(lambda made=made: load_config(made), case))
    assert any(isinstance(found, LoadedConfig) for found in outcomes)
    assert any(found is None for found in outcomes)


def test_overrides() -> None:
    keys = ["seed", "generation.seeds", "generation", "experiments", "experiments.0", "experiments.heads.layers",
            "models", "models.allow_mismatch", "prompts", "prompts.dataset", "held_out", "x", "", ".", "a..b",
            "experiments.99.kind", "generation.strategies.0", "generation.strategies.0.temperature", "seed.x",
            "\x00", "é" * 50]  # fmt: skip
    values = ["3", "true", "[", "]", "{a: 1", "[1, 2]", "!!python/object/apply:os.system [id]", "&a [*a]", "*x",
              "012",
              "1:30", "1e3", "nan", "null", "'", '"\\ud83d"', "- x", "a: b: c", "\t", "yes", "0x10", "9" * 400,
              "[" * 500,
              "{x: &a [1], y: *a}", "2024-01-01", "?", "%", "@", "`", "|", ">"]  # fmt: skip
    for case in range(CASES):
        dice = random.Random(case)
        text = dice.choice(keys) + dice.choice(["=", "", "==", " = "]) + dice.choice(values)
        check(lambda text=text: load_config("quickstart", [text]), text)


def test_config_files_of_any_bytes(tmp_path: Path) -> None:
    whole = find_config("quickstart").read_bytes()
    path = tmp_path / "c.yaml"
    for case in range(CASES):
        dice = random.Random(case)
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if dice.random() < 0.3:
            data = data[: dice.randrange(len(data))]
        path.write_bytes(bytes(data))
        check(lambda: load_config(path), case)
    assert sorted(tmp_path.iterdir()) == [path]


def test_prompts_of_any_kind(tmp_path: Path) -> None:
    good = [{"id": f"p{i}", "kind": "k", "text": f"text {i}"} for i in range(6)]
    path = tmp_path / "p.yaml"
    config = {"name": "fuzz", "models": ["m"], "prompts": str(path), "experiments": [{"kind": "heads"}]}
    texts: tuple[Any, ...] = (*ODD, "x" * 1_000_000, "\u0000", "\u200b", "é", "\U0001f600", "w " * 100_000)
    for case in range(min(CASES, 2000)):
        dice = random.Random(case)
        made: Any = copy.deepcopy(good)
        made[dice.randrange(6)][dice.choice(["id", "kind", "text", "chat", "more"])] = dice.choice(texts)
        if dice.random() < 0.1:
            made = dice.choice(ODD)
        if dice.random() < 0.5:
            path.write_text(yaml.safe_dump(made, allow_unicode=dice.random() < 0.5), encoding="utf-8")
            check(lambda: load_prompts(load_config(config)), case)
        else:
            check(lambda made=made: load_prompts(load_config({**config, "prompts": made})), case)
    assert sorted(tmp_path.iterdir()) == [path]


def test_yaml_of_any_text(tmp_path: Path) -> None:
    path = tmp_path / "y.yaml"
    pieces = ["- ", "a: ", "{", "}", "[", "]", "'", '"', "&x ", "*x", "!!python/name:os", "\n", "  ", "#", "|", "\t",
              "---\n",
              "...\n", "<<: *x", "? ", "0o7", "é", "\\u0000", "1" * 30]  # fmt: skip
    for case in range(CASES):
        dice = random.Random(case)
        path.write_text("".join(dice.choice(pieces) for _ in range(dice.randrange(1, 40))), encoding="utf-8")
        check(lambda: read_yaml(path), case)
