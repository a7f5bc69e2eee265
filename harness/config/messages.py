"""One line for what is wrong with settings: where, as the user would write it, what was given, what is accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ValidationError

from harness.config.forms import CUT, Form, accepted, fits, form_of, got, is_model, spelled
from harness.core.errors import one_line

LONGEST = 500  # characters of a message
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}
_SIZES = {
    "too_short": ("at least", "min_length", "item", "items"),
    "too_long": ("at most", "max_length", "item", "items"),
    "string_too_short": ("at least", "min_length", "character", "characters"),
    "string_too_long": ("at most", "max_length", "character", "characters"),
}
_OWN_WORDS = {"value_error", "assertion_error"}


@dataclass(frozen=True)
class _Choice:
    """A union on the way to a mistake: its place, its members, and the label of the member that was tried."""

    path: tuple[str, ...]
    annotation: Any
    label: str
    value: Any


@dataclass(frozen=True)
class _Mistake:
    """One error of the validation, at its place.

    Attributes:
        path: keys as they are written with `--set`.
        annotation: the type that is wanted there; None where it is not known.
        choices: the unions above it, the outermost first.
        error: as the validation gives it.
    """

    path: tuple[str, ...]
    annotation: Any
    choices: tuple[_Choice, ...]
    error: dict[str, Any]


def shortened(message: str) -> str:
    """A message on one line of at most `LONGEST` characters, cut in the middle."""
    line = one_line(ValueError(message))
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST * 2 // 3]} ... {line[-(LONGEST // 3 - 5) :]}"


def describe(error: ValidationError, model: type[BaseModel], data: Any, where: str) -> str:
    """What is wrong, in one line.

    Args:
        error: of the validation.
        model: the settings model.
        data: what was validated.
        where: the file, or another name of what was read.
    """
    found = [_locate(model, data, one) for one in error.errors(include_url=False)]
    # a list whose only entry is wrong counts as empty too: that is no second mistake
    found = [x for x in found if x.error["type"] != "too_short" or not any(_below(y, x) for y in found)]
    sites = list(dict.fromkeys(x.choices[0].path if x.choices else x.path for x in found))
    more = f" (and {len(sites) - 1} more)" if len(sites) > 1 else ""
    message = _message([x for x in found if (x.choices[0].path if x.choices else x.path) == sites[0]])
    return shortened(f"{where[-200:]}: {message}")[: LONGEST - len(more)] + more


def _below(one: _Mistake, other: _Mistake) -> bool:
    return one is not other and len(one.path) > len(other.path) and one.path[: len(other.path)] == other.path


def _locate(model: type[BaseModel], data: Any, error: dict[str, Any] | Any) -> _Mistake:
    """Follow the location of an error through types and data, which leaves out labels that only the library knows."""
    annotation: Any = model
    path: list[str] = []
    choices: list[_Choice] = []
    value, tagged = data, None
    for part in error["loc"]:
        form, tagged = form_of(annotation), None
        if form.kind is Union:
            tagged = None if form.key is None else annotation
            if form.key is None:
                choices.append(_Choice(tuple(path), annotation, str(part), value))
            elif form.key and path:
                path[-1] = str(part)  # an element of a list, entered by its kind
            annotation = _member(form, str(part), error["type"])
            continue
        if is_model(form.kind):
            field = form.kind.model_fields.get(part)
            annotation = None if field is None else _with_metadata(field)
        elif form.kind in (tuple, dict) and form.parts:
            annotation = form.parts[0]
        else:
            annotation = None
        path.append(str(part)[:CUT])
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    if tagged is not None and error["type"] in {"literal_error", "model_type"}:
        annotation = tagged  # none of its members, whichever was tried
    return _Mistake(tuple(path), annotation, tuple(choices), dict(error))


def _with_metadata(field: Any) -> Any:
    """The type of a field, with the annotations that the library has taken off it."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _member(form: Form, label: str, kind: str) -> Any:
    """The member of a union that a label of the library stands for."""
    for part in form.parts:
        own = form_of(part)
        if form.key is not None:
            kinds = form_of(own.kind.model_fields[form.key].annotation).parts if form.key else ()
            if own.tag == label or label in kinds:
                return part
        elif _labelled(own, label):
            return part
    return None


def _labelled(form: Form, label: str) -> bool:
    """Is this how the library labels a type in the location of an error?"""
    if is_model(form.kind):
        before, found, _ = label.partition(form.kind.__name__)
        return bool(found) and "tuple[" not in before
    if form.kind is tuple:
        return label.startswith("tuple[") and _labelled(form_of(form.parts[0]), label[6:].partition(",")[0])
    if form.kind is Literal:
        return label.startswith("literal[")
    if form.kind is dict:
        return label.startswith("dict[")
    plain = label.removeprefix("constrained-")
    return isinstance(form.kind, type) and plain == form.kind.__name__


def _message(mistakes: Sequence[_Mistake]) -> str:
    """The message about the mistakes at one place: of the only one, or of the form that is nearest."""
    first = mistakes[0]
    if not first.choices:
        return _said(first.path, first)
    choice = first.choices[0]
    whole = f"{_place(choice.path)}{accepted(choice.annotation)} is accepted"
    by_label: dict[str, list[_Mistake]] = {}
    for mistake in mistakes:
        by_label.setdefault(mistake.choices[0].label, []).append(mistake)
    branches = [(_branch(choice, own), own) for own in by_label.values()]
    near = [(part, own) for part, own in branches if part is not None and fits(choice.value, part)]
    if not near:
        return f"{whole}, got {spelled(choice.value)}"
    part, own = min(near, key=lambda one: _distance(choice, *one))
    inside = own[0]
    if inside.path == choice.path and inside.error["type"] in {"literal_error", "string_type"}:
        return f"{whole}, got {spelled(choice.value)}{_alike(choice.value, _values(choice.annotation))}"
    rest = [_without_choice(x) for x in own]
    return f"{whole}; this is nearest to {accepted(part)}: {_message(_first_site(rest))}"


def _branch(choice: _Choice, own: Sequence[_Mistake]) -> Any:
    return _member(form_of(choice.annotation), own[0].choices[0].label, own[0].error["type"])


def _without_choice(mistake: _Mistake) -> _Mistake:
    return _Mistake(mistake.path, mistake.annotation, mistake.choices[1:], mistake.error)


def _first_site(mistakes: Sequence[_Mistake]) -> list[_Mistake]:
    site = mistakes[0].choices[0].path if mistakes[0].choices else mistakes[0].path
    return [x for x in mistakes if (x.choices[0].path if x.choices else x.path) == site]


def _distance(choice: _Choice, part: Any, own: Sequence[_Mistake]) -> tuple[int, int]:
    """How far a value is from a form: entries of another shape or keys that it has not, then mistakes."""
    form = form_of(part)
    entry = form.parts[0] if form.kind is tuple else None
    other = sum(not fits(x, entry) for x in choice.value) if entry is not None else 0
    if is_model(form.kind) and isinstance(choice.value, Mapping):
        other = len(set(choice.value) - set(form.kind.model_fields))
    return other, len(own)


def _values(annotation: Any) -> list[str]:
    """The words that a type lists, such as 'all'."""
    form = form_of(annotation)
    parts = form.parts if form.kind is Literal else ()
    inner = [v for part in form.parts for v in _values(part)] if form.kind is Union else []
    return [v for v in (*parts, *inner) if isinstance(v, str)]


def _alike(value: Any, known: Iterable[str]) -> str:
    close = get_close_matches(value[:200], list(known), n=1) if isinstance(value, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def _place(path: Sequence[str]) -> str:
    return f"{'.'.join(path)}: " if path else ""


def _said(path: Sequence[str], mistake: _Mistake) -> str:
    """One mistake in words."""
    error, annotation = mistake.error, mistake.annotation
    kind, context, value = error["type"], error.get("ctx", {}), error.get("input")
    if kind == "missing":
        return f"{_place(path[:-1])}{path[-1]!r} is missing"
    if kind in _OWN_WORDS:
        return _place(path) + str(context.get("error") or error["msg"].partition(", ")[2])
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"{_place(path)}must be {words} {context[key]}, got {spelled(value)}"
    if kind in _SIZES:
        return _place(path) + _size(kind, context, value)
    if kind == "finite_number":
        return f"{_place(path)}must be a finite number, got {spelled(value)}"
    if kind == "string_pattern_mismatch":
        return f"{_place(path)}{spelled(value)} does not match the pattern {context['pattern']}"
    if kind == "string_unicode":
        return f"{_place(path)}holds half of a surrogate pair, which no text can hold"
    if kind == "union_tag_not_found":
        return f"{_place(path)}{str(context.get('discriminator', 'kind'))!r} is missing"
    if kind == "literal_error":
        hint = _alike(value, _values(annotation))
        wanted = accepted(annotation) if annotation is not None else f"one of {context['expected']}"
        return f"{_place(path)}must be {wanted}, got {spelled(value)}{hint}"
    wanted = "another value" if annotation is None else accepted(annotation)
    return f"{_place(path)}must be {wanted}, got {got(value, annotation)}"


def _size(kind: str, context: dict[str, Any], value: Any) -> str:
    words, key, one, many = _SIZES[kind]
    number = context[key]
    size = context.get("actual_length", len(value) if hasattr(value, "__len__") else None)
    return f"must have {words} {number} {one if number == 1 else many}" + (f", got {size}" if size is not None else "")
