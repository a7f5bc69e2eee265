"""Configs: includes, overrides, and one line for everything that is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.config.decoding import Sampling
from harness.config.load import Config, apply_override, find_config, load_config, shipped_configs
from harness.core.errors import UsageError
from harness.core.hashing import canonical_hash

MINIMAL: dict[str, Any] = {"name": "x", "experiments": [{"kind": "one-layer"}]}
MODEL: dict[str, Any] = {"name": "x", "models": ["smollm2-135m"], "prompts": "p.yaml"}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_later_keys_win_over_included_ones(tmp_path: Path) -> None:
    write(tmp_path, "parts/low.yaml", "seed: 1\nheld_out: 0.4\ngeneration: {max_new_tokens: 5, seeds: 2}\n")
    text = "name: x\ninclude: ../parts/low.yaml\nseed: 7\ngeneration: {seeds: 3}\nexperiments: [{kind: one-layer}]\n"
    found = load_config(write(tmp_path, "sub/top.yaml", text)).config
    assert (found.seed, found.held_out) == (7, 0.4)
    assert (found.generation.max_new_tokens, found.generation.seeds) == (5, 3)


def test_includes_that_go_round_or_are_missing(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "include: b.yaml\n")
    write(tmp_path, "b.yaml", "include: a.yaml\n")
    with pytest.raises(UsageError, match="includes itself"):
        load_config(tmp_path / "a.yaml")
    with pytest.raises(UsageError, match=r"include 'nowhere\.yaml': no such file"):
        load_config(write(tmp_path, "c.yaml", "include: nowhere.yaml\n"))


def test_overrides_enter_lists_by_index_and_by_kind() -> None:
    data = {"a": {"b": 1}, "experiments": [{"kind": "one-layer"}, {"kind": "heads", "layers": "all"}]}
    for text in ("a.b=2", "a.c.d=[1, 2]", "experiments.heads.layers=[0, 5]", "experiments.0.repetitions=3"):
        apply_override(data, text)
    assert data["a"] == {"b": 2, "c": {"d": [1, 2]}}
    assert data["experiments"] == [{"kind": "one-layer", "repetitions": 3}, {"kind": "heads", "layers": [0, 5]}]


def test_one_mistake_is_one_mistake() -> None:
    with pytest.raises(UsageError, match=r"strategies\.0: must be 'greedy' or a mapping.*, got 'warm'$"):
        load_config("quickstart", ["generation.strategies=[warm]"])
    with pytest.raises(UsageError, match="strategies: must have at least 1 item, got 0"):
        load_config("quickstart", ["generation.strategies=[]"])
    with pytest.raises(UsageError, match=r"\(and 1 more\)$"):
        load_config("quickstart", ["generation.strategies=[warm]", "seed=x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "write it as a.b=value"),
        ("=3", "write it as a.b=value"),
        ("name.x=1", "'name' is a value, it has no 'x'"),
        ("experiments.haeds.layers=1", "no element 'haeds'; did you mean 'heads'"),
        ("experiments.9.layers=1", "no element '9'"),
        ("seed=[", "not valid YAML"),
    ],
)
def test_overrides_that_lead_nowhere(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        apply_override({"name": "x", "experiments": [{"kind": "heads"}]}, text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generaton": {}}, "unknown key 'generaton'; did you mean 'generation'"),
        ({"generation": {"seed": 3}}, "generation: unknown key 'seed'; did you mean 'seeds'"),
        ({"seed": -1}, "seed: .*got -1"),
        ({"held_out": 1.0}, "held_out: "),
        ({"name": "a/b"}, "name: "),
        ({"experiments": []}, "experiments: "),
        ({"experiments": [{"kind": "one-leyer"}]}, "kind 'one-leyer'; did you mean 'one-layer'"),
        ({"experiments": [{"kind": "heads"}]}, "needs `models`"),
        ({**MODEL, "prompts": None, "experiments": [{"kind": "heads"}]}, "needs `prompts`"),
        ({**MODEL, "experiments": [{"kind": "heads", "surrogates": ["count"]}]}, "'count'; did you mean 'counts'"),
        ({**MODEL, "experiments": [{"kind": "heads", "layers": []}]}, "no layer is listed"),
        ({**MODEL, "models": ["a", "a"]}, "listed twice"),
        ({"generation": {"strategies": ["greedy", "greedy"]}}, "listed twice"),
        ({"generation": {"strategies": [{"temperature": 0}]}}, "temperature"),
        ({"experiments": [{"kind": "one-layer"}, {"kind": "one-layer"}]}, "listed twice"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_config({**MINIMAL, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "line 1 not valid YAML"),
        ("- a\n- b\n", "a config is a mapping"),
        ("name: a\nname: b\n", "'name' is written twice"),
        ("name: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_files_that_are_no_configs(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        load_config(write(tmp_path, "bad.yaml", text))


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_config(tmp_path / "bad.yaml")


def test_shipped_configs_are_found_by_name_and_typos_are_answered() -> None:
    assert find_config("quickstart") == shipped_configs() / "quickstart.yaml"
    with pytest.raises(UsageError, match="did you mean 'quickstart'"):
        find_config("quikstart")


def test_the_hash_is_that_of_the_settings_not_of_their_order() -> None:
    assert canonical_hash({"a": 1, "b": [1, 2]}) == canonical_hash({"b": [1, 2], "a": 1})
    assert canonical_hash({"a": 1}) != canonical_hash({"a": 2})


def test_a_config_object_and_its_mapping_are_the_same_run() -> None:
    config = Config.model_validate({**MINIMAL, "generation": {"strategies": [Sampling(temperature=0.5)]}})
    assert load_config(config).config == config
    assert load_config(MINIMAL, limit=3).config.limit == 3


@pytest.mark.parametrize("sizes", ["[1]", "[4, 0]"])
def test_the_paper_needs_two_tokens(sizes: str) -> None:
    with pytest.raises(UsageError, match=r"vocab_sizes.*must be at least 2"):
        load_config("paper/sample-complexity", [f"experiments.sample-complexity.vocab_sizes={sizes}"])
