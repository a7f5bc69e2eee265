"""What the rows of a unit depend on beside its settings: source text and packages, as hashes.

Source counts as what it computes: the syntax tree without docstrings, without the functions that only show results, and
without imports for types and the words of declarations. So a change of a docstring, a label, a table, an answer
or a figure computes nothing again.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from harness.core import registry
from harness.core.declarations import KINDS, Declaration
from harness.core.hashing import canonical_hash

COMPUTING = ("numpy", "scipy", "numba", "torch", "transformers", "tokenizers")
"""Packages whose version is part of every unit's identity."""
SHOWING = frozenset({"tables", "answers", "figures"})
"""Names of functions and methods that show rows and make none."""
_ROOT = Path(__file__).resolve().parents[2]


@cache
def _file(module: str) -> Path | None:
    """The source file of a module of the project or of a plugin; None where it has none."""
    base = _ROOT.joinpath(*module.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return file
    if module.partition(".")[0] in {"harness", "ccmc"}:
        return None
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    found = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return found if found is not None and found.suffix == ".py" else None


class _Computing(ast.NodeTransformer):
    """Takes out of a syntax tree what no row depends on."""

    def _body(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", [])
        kept = [part for part in body if getattr(part, "name", None) not in SHOWING and not _is_text(part)]
        node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
        return self.generic_visit(node)

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _body  # noqa: N815

    def visit_If(self, node: ast.If) -> ast.AST:
        test = node.test
        of_typing = isinstance(test, ast.Attribute) and _is_name(test.value, "typing") and test.attr == "TYPE_CHECKING"
        if of_typing or _is_name(test, "TYPE_CHECKING"):
            return ast.Pass()
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        function = node.func
        if isinstance(function, ast.Attribute) and _is_name(function.value, "register") and function.attr in KINDS:
            words = KINDS[function.attr].words
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in words]
        if _is_name(function, "Field"):  # of a setting, for people
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
        return self.generic_visit(node)


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_text(part: ast.AST) -> bool:
    """A string on its own: a docstring, of a module, class, function or field."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and isinstance(part.value.value, str)


@cache
def _read(file: Path) -> tuple[str, frozenset[str]]:
    """The hash of what a file computes, and the modules that it imports anywhere."""
    tree = _Computing().visit(ast.parse(file.read_text(encoding="utf-8")))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), frozenset(names)


def sources(modules: Iterable[str]) -> dict[str, str]:
    """Module -> hash of what it computes, for modules and all that they import from the project or their own package.

    Args:
        modules: names to start from.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    inside = {"harness", "ccmc", *(name.partition(".")[0] for name in waiting)}
    while waiting:
        name = waiting.pop()
        file = _file(name) if name.partition(".")[0] in inside and name not in found else None
        if file is None:
            continue
        found[name], imported = _read(file)
        waiting += imported
    return found


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in COMPUTING}


def source_hash(task: str, uses: Iterable[Declaration] = ()) -> str:
    """One hash of the source that computes a unit.

    Args:
        task: `module:function` of the unit.
        uses: declarations of the registered objects that the unit's settings name: their modules count as well.
    """
    return canonical_hash(sources([task.partition(":")[0], *(one.module for one in uses)]))


def versions(task: str, uses: Iterable[Declaration] = ()) -> dict[str, str]:
    """Package -> version of everything that computes a unit.

    Args:
        task: `module:function` of the unit; the package that brings it counts.
        uses: declarations of the registered objects that the unit's settings name; so do the packages that bring them.
    """
    plugins = {one.package: one.version for one in uses if one.package != registry.OWN}
    brought = (text.rpartition(" ") for text in registry.packages([task.partition(":")[0]]))  # a plugin's experiment
    return {**_versions(), **plugins, **{name: version for name, _, version in brought}}


def identity(task: str, uses: Iterable[Declaration] = ()) -> str:
    """One hash of the source and the versions that compute a unit: equal where two machines do it the same way."""
    used = tuple(uses)
    return canonical_hash([source_hash(task, used), versions(task, used)])
