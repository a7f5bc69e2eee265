"""Declarations read from the source text of modules, so that a list imports nothing, and no plugin's code runs."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from harness.core.declarations import KINDS, Declaration, MeasureDeclaration, SurrogateDeclaration
from harness.core.errors import UsageError, nearest, one_line


class BrokenDeclarationError(UsageError):
    """A declaration that cannot be read; says where."""


def _calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call, str, tuple[str, ...]]]:
    """(kind, call, name of what it decorates, its bases) of every `register.<kind>(...)` at the top of a module."""

    def kind_of(node: ast.AST) -> str | None:
        call = node if isinstance(node, ast.Call) else None
        function = call.func if call else None
        named = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)
        if named and function.value.id == "register" and function.attr in KINDS:  # type: ignore[union-attr]
            return str(function.attr)  # type: ignore[union-attr]
        return None

    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            bases = tuple(ast.unparse(base) for base in getattr(node, "bases", ()))
            for decorator in node.decorator_list:
                if (kind := kind_of(decorator)) is not None:
                    assert isinstance(decorator, ast.Call)
                    yield kind, decorator, node.name, bases
        elif isinstance(node, ast.Expr) and (kind := kind_of(node.value)) is not None:
            assert isinstance(node.value, ast.Call)
            yield kind, node.value, "", ()


def _role(bases: Iterable[str]) -> str:
    """What a surrogate stands in for, by its base class; empty where that says nothing."""
    ends = {base.rpartition(".")[2] for base in bases}
    roles = {"HeadSurrogate": "heads", "NextTokenSurrogate": "next-token", "VocabularySurrogate": "vocabulary"}
    return next((role for name, role in roles.items() if name in ends), "")


def _fits(value: Any, hint: Any) -> bool:
    """Is a literal of the type that a field declares?"""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is UnionType or get_origin(hint) is Union:
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _wanted(hint: Any) -> str:
    """What a field takes, in words."""
    if get_origin(hint) is tuple:
        return 'is not a tuple of texts, such as ("order",)'
    values = [value for one in (hint, *get_args(hint)) if get_origin(one) is Literal for value in get_args(one)]
    return f"is not one of {', '.join(map(repr, values))}" if values else f"is not of type {hint.__name__}"


def read_declarations(text: str, module: str, package: str = "", version: str = "") -> list[tuple[str, Declaration]]:
    """The declarations in the source text of a module.

    Args:
        text: Python source.
        module: its name.
        package, version: the distribution that it belongs to.

    Returns:
        (kind, declaration) in the order of the text.

    Raises:
        BrokenDeclarationError: no valid Python, an argument that is no literal, or an unknown field.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise BrokenDeclarationError(f"{module}: not valid Python: {one_line(error)}") from None
    found: list[tuple[str, Declaration]] = []
    for kind, call, attribute, bases in _calls(tree):
        where = f"{module}, line {call.lineno}: register.{kind}"
        try:
            arguments = [ast.literal_eval(value) for value in call.args]
            about = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg is not None}
        except ValueError:
            raise BrokenDeclarationError(f"{where}: every argument must be a literal") from None
        known = {one.name for one in fields(KINDS[kind])}
        if unknown := sorted(set(about) - known):
            raise BrokenDeclarationError(f"{where}: unknown field {unknown[0]!r}{nearest(unknown[0], known)}")
        try:
            made = KINDS[kind](*arguments, **about)
        except (TypeError, ValueError) as error:
            raise BrokenDeclarationError(f"{where}: {one_line(error)}") from None
        hints = get_type_hints(KINDS[kind])
        if wrong := [name for name in known if not _fits(getattr(made, name), hints[name])]:
            raise BrokenDeclarationError(f"{where}: {wrong[0]}={getattr(made, wrong[0])!r} {_wanted(hints[wrong[0]])}")
        if isinstance(made, MeasureDeclaration) and made.sees and not attribute:
            raise BrokenDeclarationError(f"{where}: sees={made.sees!r} needs a function below it: write @register")
        if isinstance(made, SurrogateDeclaration) and not made.of:
            made = replace(made, of=_role(bases))  # type: ignore[arg-type]
        found.append((kind, replace(made, module=module, attribute=attribute, package=package, version=version)))
    return found
