"""Values and types of settings in words: what is accepted, such as "a list of whole numbers", and what was given."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Discriminator, Tag
from pydantic.fields import FieldInfo

CUT = 60  # characters of a value that are shown
_ONE: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_MANY: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false"}
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Called:
    """What messages call a type: `Annotated[str, Called("a path", "paths")]`, or a settings model's `called`."""

    one: str
    many: str


@dataclass(frozen=True)
class Form:
    """A type without its wrappers.

    Attributes:
        kind: the plain type, a settings model, `tuple`, `Literal` or `Union`; None where anything goes.
        parts: of a tuple its entry, of a union its members, of a literal its values.
        called: its name in messages, if it has one of its own.
        optional: null is accepted too.
        key: of a union, the key by which its members are told apart.
        tag: of a member of a union, the tag that stands for it.
    """

    kind: Any
    parts: tuple[Any, ...] = ()
    called: Called | None = None
    optional: bool = False
    key: str | None = None
    tag: str | None = None


def form_of(annotation: Any) -> Form:
    """Unwrap the annotation of a field."""
    called = key = tag = None
    while get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
        for item in extra:
            called = item if isinstance(item, Called) else called
            tag = item.tag if isinstance(item, Tag) else tag
            key = item.discriminator if isinstance(item, FieldInfo) and item.discriminator else key
            key = "" if isinstance(item, Discriminator) else key
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        members = tuple(arg for arg in args if arg is not type(None))
        if len(members) == 1:
            inner = form_of(members[0])
            return Form(inner.kind, inner.parts, called or inner.called, True, inner.key, tag)
        return Form(Union, members, called, len(members) < len(args), None if key is None else str(key), tag)
    if origin is Literal:
        return Form(Literal, args, called, tag=tag)
    if origin in (tuple, list):
        return Form(tuple, args[:1] or (Any,), called, tag=tag)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Form(dict, args[1:], called, tag=tag)
    return Form(None if annotation is Any else annotation, (), called, tag=tag)


def is_model(kind: Any) -> bool:
    """Is this a settings model?"""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def accepted(annotation: Any) -> str:
    """What a setting of this type accepts, such as "a path, a list of paths or a mapping {dataset: ...}"."""
    return _one(form_of(annotation))


def _one(form: Form) -> str:
    if form.called:
        return form.called.one
    if form.kind is Union and form.key:
        return f"a mapping {{{form.key}: ...}}"
    if form.kind is Union:
        return _either([_one(form_of(part)) for part in form.parts])
    if form.kind is Literal:
        return _either([spelled(value) for value in form.parts])
    if form.kind is tuple:
        return f"a list of {_many(form_of(form.parts[0]))}"
    if is_model(form.kind):
        return _called(form.kind).one
    return "a mapping" if form.kind is dict else _ONE.get(form.kind, "another value")


def _many(form: Form) -> str:
    if form.called:
        return form.called.many
    if is_model(form.kind):
        return _called(form.kind).many
    if form.kind is Union and form.key:
        return f"mappings {{{form.key}: ...}}"
    if form.kind is Union or form.kind is Literal:
        return f"entries, each {_one(form)}"
    return _MANY.get(form.kind) or _one(form)


def _called(model: Any) -> Called:
    """The name of a settings model: its own, or its required keys."""
    if isinstance(own := getattr(model, "called", None), Called):
        return own
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    inside = f" {{{', '.join(f'{name}: ...' for name in required)}}}" if required else ""
    return Called(f"a mapping{inside}", f"mappings{inside}")


def _either(words: Sequence[str]) -> str:
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def fits(value: Any, annotation: Any) -> bool:
    """Has a value the outer shape of a type: a text, a number, a list, a mapping?"""
    form = form_of(annotation)
    if form.kind is Union:
        return any(fits(value, part) for part in form.parts)
    if form.kind is Literal:
        return any(type(value) is type(one) for one in form.parts)
    if form.kind is tuple:
        return isinstance(value, list | tuple)
    if form.kind is dict or is_model(form.kind):
        return isinstance(value, dict)
    if form.kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return form.kind is None or type(value) is form.kind


def spelled(value: Any) -> str:
    """A value as a config would hold it, cut where it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value[:CUT]) + ("..." if len(value) > CUT else "")
    return repr(value)[:CUT]


def got(value: Any, annotation: Any) -> str:
    """What was given where a type was wanted, with a hint where YAML reads what people write as something else."""
    form, shown = form_of(annotation), spelled(value)
    numbers = {form.kind} & {int, float}
    if isinstance(value, str) and numbers and _NUMBER.fullmatch(value) and len(value) < 30:
        if "e" in value.lower():
            return f"{shown}, which is a text in YAML: write {float(value.replace('_', '')):.12g}"
        return f"{shown}, a text: leave the quotes away"
    if isinstance(value, float) and form.kind is int and value.is_integer() and abs(value) < 1e15:
        return f"{shown}: write {int(value)}"
    if form.kind is str and isinstance(value, bool):
        return f"{shown} (YAML reads yes, no, on and off as true and false): put a text in quotes"
    if form.kind is str and isinstance(value, int | float):
        return f"{shown}: put a text in quotes"
    return shown
