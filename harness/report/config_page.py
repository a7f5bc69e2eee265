"""configs/README.md: every setting of a run and of its experiments, and what each shipped config is for.

Keys, types, defaults, ranges and descriptions come from the settings models, so the page cannot name a setting that
does not exist. The prose around them is `notes.md` in the same folder.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from harness.config.load import Config, config_names, shipped_configs
from harness.core import registry

OWN = "ccmc-harness"
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_SCALARS = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}


def leading_comment(text: str) -> str:
    """The comment that a YAML file starts with, as one paragraph; empty where there is none."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return " ".join(line for line in lines if line)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings models that a type mentions, in its order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        if not isinstance(annotation, type) or get_origin(annotation) is not None:
            yield from _models_in(part)


def _type(annotation: Any) -> str:
    """A type in words, such as "list of integer, or null"."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(_type(part) for part in get_args(annotation)))
    if origin is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if origin is dict:
        return "mapping of {} to {}".format(*(_type(part) for part in get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return _SCALARS[annotation]


def _bounds(metadata: Any) -> Iterator[str]:
    for bound in metadata:
        for name, sign in _BOUNDS.items():
            value = getattr(bound, name, None)
            if value is not None:
                power = value.bit_length() - 1 if isinstance(value, int) and value > 2**31 else 0
                yield f"{sign} 2^{power}" if power and value == 2**power else f"{sign} {value:g}"
        if getattr(bound, "min_length", None) is not None:
            yield "not empty" if bound.min_length == 1 else f"length >= {bound.min_length}"
        if getattr(bound, "max_length", None) is not None:
            yield f"length <= {bound.max_length}"


def _range(field: FieldInfo) -> str:
    """The bounds of a setting, and of each element of a list."""
    own = ", ".join(_bounds(field.metadata))
    inner = next((part for part in get_args(field.annotation) if get_origin(part) is Annotated), None)
    each = ", ".join(_bounds(x for meta in inner.__metadata__ for x in getattr(meta, "metadata", ()))) if inner else ""
    return "; ".join(part for part in (own, f"each {each}" if each else "") if part)


def _default(field: FieldInfo) -> str:
    """The default as YAML, in code; "required" where there is none."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "see below"
    plain = [
        item.model_dump(mode="json", exclude_none=True) if isinstance(item, BaseModel) else item
        for item in (value if isinstance(value, tuple) else (value,))
    ]
    shown = yaml.safe_dump(plain, default_flow_style=True, width=10_000).strip()
    return f"`{shown if isinstance(value, tuple) else shown[1:-1]}`"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown themselves."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def settings_table(model: type[BaseModel]) -> str:
    """The settings of a model as a Markdown table, one per row."""
    smoke = getattr(model, "smoke", {})
    rows = []
    for key, field in model.model_fields.items():
        about = field.description or ""
        if key in smoke:
            entries = "entries up to" if get_origin(field.annotation) is tuple else "at most"
            about += f"; with `--limit N` {entries} {smoke[key]:,} x N"
        if key != "kind":
            rows.append([f"`{key}`", _type(field.annotation), _default(field), _range(field), about])
    return _table(("key", "type", "default", "range", "what it is"), rows)


def _sections(model: type[BaseModel], path: str, skip: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """(path, model) of a settings model and of all models inside it."""
    yield path, model
    for key, field in model.model_fields.items():
        below = f"{path}.{key}" if path else key
        for inner in dict.fromkeys(_models_in(field.annotation)):
            if key != skip:
                yield from _sections(inner, below)


def _section(heading: str, model: type[BaseModel]) -> str:
    return f"{heading}\n\n{inspect.getdoc(model) or ''}\n\n{settings_table(model)}"


def _of_experiments() -> Iterator[str]:
    for kind, declared in registry.experiments().items():
        if declared.package == OWN:
            sections = _sections(registry.experiment(kind).Settings, "")
            for path, model in sections:
                yield _section(f"#### `{kind}`: `{path}`" if path else f"### `kind: {kind}`", model)


def _shipped(root: Path) -> Iterator[str]:
    """What the shipped configs and prompts are for, from their leading comments."""
    configs = {name: root / f"{name}.yaml" for name in config_names()}
    prompts = {f"prompts/{path.name}": path for path in sorted((root / "prompts").glob("*.yaml"))}
    for what, files in {"config": configs, "prompts": prompts}.items():
        texts = {name: leading_comment(path.read_text(encoding="utf-8")) for name, path in files.items()}
        yield _table((what, "what it is for"), [[f"`{name}`", text] for name, text in texts.items()])


def config_page() -> str:
    """The text of configs/README.md."""
    root = shipped_configs()
    notes = (root / "notes.md").read_text(encoding="utf-8").strip()
    parts = [
        "<!-- Written by `ccmc docs` from the settings models, the configs and notes.md: edit those. -->",
        "# Configs",
        notes,
        "## Shipped configs",
        *_shipped(root),
        "## Settings of a run",
        *(
            _section(f"### `{path}`" if path else "### Top level", model)
            for path, model in _sections(Config, "", skip="experiments")
        ),
        "## Settings of experiments",
        *_of_experiments(),
    ]
    return "\n\n".join(parts) + "\n"
