"""The setting `models`: a list of names, or a mapping with `allow_mismatch`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from harness.config.load import load_config
from harness.config.models import ModelNames
from harness.core.errors import UsageError
from harness.core.hashing import canonical_hash

CONFIG: dict[str, Any] = {"name": "x", "models": ["a", "b"], "experiments": [{"kind": "one-layer"}]}


def written(*overrides: str, **changes: Any) -> Any:
    return load_config({**CONFIG, **changes}, overrides).config.model_dump(mode="json")["models"]


def test_a_list_is_written_as_it_always_was() -> None:
    config = load_config(CONFIG).config
    assert config.models == ("a", "b")
    assert isinstance(config.models, tuple)
    assert not config.models.allow_mismatch
    assert written() == ["a", "b"]
    assert written(models={"names": ["a", "b"], "allow_mismatch": False}) == ["a", "b"]


def test_mismatches_are_allowed_by_a_mapping_or_an_override_in_any_order() -> None:
    wanted = {"names": ["a", "b"], "allow_mismatch": True}
    assert written(models=wanted) == wanted
    assert written("models.allow_mismatch=true") == wanted
    assert written("models=[a, b]", "models.allow_mismatch=true", models=["c"]) == wanted
    assert written("models.allow_mismatch=true", "models=[a, b]", models=["c"]) == wanted
    assert written("models.allow_mismatch=true", "models.1=b", models=["a", "c"]) == wanted
    assert written("models.names=[a, b]", "models.allow_mismatch=true", models=["c"]) == wanted
    assert written("models.allow_mismatch=true", "models.allow_mismatch=false") == ["a", "b"]
    without = {key: value for key, value in CONFIG.items() if key != "models"}
    config = load_config(without, ["models.allow_mismatch=true", "models=[a]"]).config
    assert (list(config.models), config.models.allow_mismatch) == (["a"], True)


def test_the_flag_changes_the_hash_of_a_config_and_nothing_else_of_it() -> None:
    plain, allowed = (load_config(CONFIG, text).config for text in ([], ["models.allow_mismatch=true"]))
    dumped = [config.model_dump(mode="json") for config in (plain, allowed)]
    assert canonical_hash(dumped[0]) != canonical_hash(dumped[1])
    assert dumped[0] == {**dumped[1], "models": ["a", "b"]}
    assert plain != allowed
    assert load_config(allowed).config == allowed
    assert load_config(dumped[1]).config == allowed


def test_names_survive_the_way_to_a_worker() -> None:
    for names in (ModelNames("ab"), ModelNames("ab", allow_mismatch=True)):
        again = pickle.loads(pickle.dumps(names))
        assert (again, again.allow_mismatch) == (names, names.allow_mismatch)
    assert ModelNames("ab") != ModelNames("ab", allow_mismatch=True)
    assert ModelNames("ab") == ("a", "b")


def test_included_names_stay_where_only_the_flag_is_given(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("name: x\nmodels: [a, b]\nexperiments: [{kind: one-layer}]\n")
    (tmp_path / "high.yaml").write_text("include: low.yaml\nmodels: {allow_mismatch: true}\n")
    config = load_config(tmp_path / "high.yaml").config
    assert (config.models, config.models.allow_mismatch) == (ModelNames("ab", allow_mismatch=True), True)
    (tmp_path / "top.yaml").write_text("include: high.yaml\nmodels: [c]\n")
    config = load_config(tmp_path / "top.yaml").config
    assert (list(config.models), config.models.allow_mismatch) == (["c"], True)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"name": ["a"]}, "unknown key 'name'; did you mean 'names'"),
        ({"names": ["a"], "allow_mismatch": "yes"}, "allow_mismatch is true or false, got 'yes'"),
        ({"names": ["a", "a"], "allow_mismatch": True}, "a model is listed twice: .'a', 'a'."),
        ({"names": "a"}, "models"),
        ({"names": [1]}, "models"),
        ("a", "models"),
        (None, "models"),
    ],
)
def test_other_forms_are_refused_in_one_line(models: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_config({**CONFIG, "models": models})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["models.allow=true", "models.names.5=x", "models.a.b=c"])
def test_overrides_that_lead_nowhere_are_refused(text: str) -> None:
    for first in ([], ["models.allow_mismatch=true"]):
        with pytest.raises(UsageError) as caught:
            load_config(CONFIG, [*first, text])
        assert "\n" not in str(caught.value)
