"""Every field of the settings refuses values of another type: one line that names the field, and exit code 2."""

from __future__ import annotations

import copy
import math
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from harness.cli.app import invoke
from harness.config.decoding import Sampling
from harness.config.inline import InlinePrompt
from harness.config.load import Config, DatasetPrompts, load_config
from harness.config.texts import GivenTexts, Prose
from harness.core import registry
from harness.core.errors import UsageError

DATASET = {"dataset": "d.jsonl"}
PROMPTS = [{"id": "a", "kind": "k", "text": "t"}]
NEEDED: dict[str, dict[str, Any]] = {"count-ablation": {"prose": DATASET}, "heads": {"texts": DATASET}}
WRONG: tuple[tuple[str, Any], ...] = (  # the kind of a value, and one of it that is no member of any enumeration
    ("text", "three"), ("bool", True), ("int", 3), ("float", 1.5), ("nan", math.nan), ("inf", -math.inf),
    ("list", [[7]]), ("dict", {"a": 1}), ("null", None), ("negative", -3), ("large", 2**70),
)  # fmt: skip


def whole() -> dict[str, Any]:
    """A config with every experiment, whose fields of the deepest settings are there."""
    return {
        "name": "every-field",
        "models": ["m"],
        "prompts": "p.yaml",
        "generation": {"strategies": [{"temperature": 1.0}]},
        "experiments": [{"kind": kind, **copy.deepcopy(NEEDED.get(kind, {}))} for kind in registry.experiments()],
    }


def kinds_of(annotation: Any) -> set[str]:
    """The kinds of values that a type takes."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kinds_of(parts[0])
    if origin in (Union, types.UnionType):
        return set().union(*map(kinds_of, parts))
    if origin is Literal:
        return {{str: "one of", bool: "one of", int: "one of"}[type(part)] for part in parts}
    if origin in (tuple, list):
        return {"list"}
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return {"dict"}
    return {{str: "text", int: "int", float: "float", bool: "bool", types.NoneType: "null"}[annotation]}


def fields() -> Iterator[tuple[tuple[Any, ...], type[BaseModel], str]]:
    """Where each settings model stands in the config, the model, and each of its fields."""
    places: list[tuple[tuple[Any, ...], type[BaseModel]]] = [
        ((), Config),
        (("generation",), Config.model_fields["generation"].annotation),  # type: ignore[list-item]
        (("generation", "strategies", 0), Sampling),
        (("prompts",), DatasetPrompts),
        (("prompts", 0), InlinePrompt),
    ]
    for place, kind in enumerate(registry.experiments()):
        places.append((("experiments", place), registry.experiment(kind).Settings))
    names = list(registry.experiments())
    places.append((("experiments", names.index("heads"), "texts"), GivenTexts))
    places.append((("experiments", names.index("count-ablation"), "prose"), Prose))
    for where, model in places:
        for name in model.model_fields:
            yield where, model, name


def wrong_values(annotation: Any, metadata: Any) -> Iterator[Any]:
    """Values of kinds that the field does not take, alone and, for a list, as its entry."""
    taken = kinds_of(annotation)
    least = [
        bound for one in metadata for bound in (getattr(one, "ge", None), getattr(one, "gt", None)) if bound is not None
    ]
    for kind, value in WRONG:
        if kind in taken or (kind == "int" and taken & {"float"}):
            continue
        if (
            kind == "negative"
            and not (taken & {"int", "float"} and least and min(least) >= 0)
            and taken & {"int", "float"}
        ):
            continue
        if kind == "large" and "float" in taken:
            continue
        yield value
    for part in (annotation, *get_args(annotation)):
        if get_origin(part) is tuple and {*kinds_of(get_args(part)[0])} & {"int", "float"}:
            yield from (["three"], [True], [None], [math.nan], [[1]])
        elif get_origin(part) is tuple and kinds_of(get_args(part)[0]) == {"text"}:
            yield from ([3], [True], [None], [["a"]])


def put(
    config: dict[str, Any], where: tuple[Any, ...], model: type[BaseModel], name: str, value: Any
) -> dict[str, Any]:
    if model is DatasetPrompts:
        config["prompts"] = dict(DATASET)
    elif model is InlinePrompt:
        config["prompts"] = copy.deepcopy(PROMPTS)
    inner: Any = config
    for key in where:
        inner = inner[key]
    inner[name] = value
    return config


def test_the_config_itself_is_right() -> None:
    assert load_config(whole()).config.experiments[-1]
    assert len(list(fields())) > 120


@pytest.mark.parametrize("model", list(dict.fromkeys(model for _, model, _ in fields())), ids=lambda m: m.__name__)
def test_a_value_of_another_type_is_one_line_that_names_the_field(
    model: type[BaseModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried, own = 0, [(where, name) for where, one, name in fields() if one is model]
    for where, name in own:
        field = model.model_fields[name]
        refused = None
        for value in wrong_values(field.annotation, field.metadata):
            made = put(whole(), where, model, name, value)
            with pytest.raises(UsageError) as caught:
                load_config(copy.deepcopy(made))
                pytest.fail(f"{model.__name__}.{name} takes {value!r}")
            said = str(caught.value)
            assert "\n" not in said
            assert name in said, f"{name} = {value!r}: {said}"
            tried, refused = tried + 1, made
        if refused is not None:  # the last of them, as people meet it
            (tmp_path / "c.yaml").write_text(yaml.safe_dump(refused))
            assert invoke(["run", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]) == 2
            lines = capsys.readouterr().err.strip().splitlines()
            assert len(lines) == 1
            assert name in lines[0]
    assert tried >= 4 * len(own)
    assert not (tmp_path / "run").exists()
