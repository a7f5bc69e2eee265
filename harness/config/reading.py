"""YAML of a file or an override, read so that nothing is lost, guessed or unbounded; and values given in Python."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from harness.config.forms import spelled
from harness.config.messages import shortened
from harness.core.errors import UsageError, one_line

DEEPEST = 60  # levels of lists and mappings
LARGEST = 64 * 2**20  # bytes of a file
EXPANDED = 100_000  # values that aliases may repeat
STRING, INTEGER, MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "merge"))
_OCTAL = re.compile(r"[+-]?0[0-7_]+")
_SIXTIETHS = re.compile(r"[+-]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?")


class _Exact(yaml.SafeLoader):
    """Safe YAML in which dates are texts, and the two halves of an escaped character are joined."""


_GUESSED = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
_Exact.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag not in _GUESSED]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _ProblemError(Exception):
    """Something in a YAML text that is refused, and the line it is on."""

    def __init__(self, what: str, node: yaml.Node) -> None:
        super().__init__(what)
        self.line = node.start_mark.line + 1


def joined(text: str) -> str:
    """A text with the two halves of each surrogate pair made into the character that they stand for.

    Raises:
        ValueError: half of a pair stands alone.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            raise ValueError("half of a surrogate pair stands alone, which no text can hold") from None
    return text


def is_file(path: Path) -> bool:
    """Is there a file of this name? No where a name cannot be one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UsageError: where it cannot be read or parsed; names the file and the line.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path}: larger than {LARGEST >> 20} MB; give prompts as a .jsonl or .parquet dataset")
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: cannot be read: line {line} is not UTF-8 text") from None
    return parse_yaml(text, f"{path}:")


def parse_yaml(text: str, where: str) -> Any:
    """The content of a YAML text.

    Args:
        text: one document.
        where: what it is, for messages.

    Raises:
        UsageError: it is no YAML, or holds what would be read as something else than it seems; names the line.
    """
    loader = None
    try:
        loader = _Exact(joined(text))
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, loader)
        return loader.construct_document(node)
    except _ProblemError as problem:
        raise UsageError(shortened(f"{where} line {problem.line}: {problem}")) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{ord(error.character):04X}" if isinstance(error.character, str) else hex(error.character)
        raise UsageError(f"{where} line {line} not valid YAML: the character {character} must be escaped") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        spot = f" line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or one_line(error)
        if "single document" in str(error):
            reason = "it holds several documents (---); give one"
        raise UsageError(shortened(f"{where}{spot} not valid YAML: {reason}")) from None
    except RecursionError:
        raise UsageError(f"{where} nested more than {DEEPEST} levels deep") from None
    except ValueError as error:  # a number that Python does not read, half of a character
        raise UsageError(shortened(f"{where} not valid YAML: {error}")) from None
    finally:
        if loader is not None:
            loader.dispose()


def _check(root: yaml.Node, loader: _Exact) -> None:
    """Refuse what would be lost, guessed or multiplied: see the messages.

    Raises:
        _ProblemError: names the line.
    """
    sizes: dict[int, int] = {}
    seen = [0]

    def size(node: yaml.Node, depth: int, above: frozenset[int]) -> int:
        if depth > DEEPEST:
            raise _ProblemError(f"nested more than {DEEPEST} levels deep", node)
        if id(node) in above:
            raise _ProblemError("an alias stands inside what it refers to", node)
        if id(node) in sizes:
            return sizes[id(node)]
        seen[0] += 1
        total = 1
        _check_tag(node, loader)
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
        elif isinstance(node, yaml.MappingNode):
            _check_keys(node)
            total += sum(size(value, depth + 1, above | {id(node)}) for _, value in node.value)
        else:
            total += sum(size(value, depth + 1, above | {id(node)}) for value in node.value)
        if total > EXPANDED and total > 2 * seen[0]:
            raise _ProblemError("aliases repeat too much: written out, it would be very large", node)
        sizes[id(node)] = total
        return total

    size(root, 0, frozenset())


def _check_tag(node: yaml.Node, loader: _Exact) -> None:
    """Refuse a tag that makes of a value something else than it would be without; `!!str` makes a text of it."""
    value = node.value if isinstance(node, yaml.ScalarNode) else None
    implicit = (getattr(node, "style", None) is None, getattr(node, "style", None) is not None)
    if node.tag not in (loader.resolve(type(node), value, implicit), STRING):  # type: ignore[no-untyped-call]
        raise _ProblemError(f"not valid YAML here: the tag {node.tag.replace('tag:yaml.org,2002:', '!!')[:80]}", node)


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if key.tag == MERGE:
            continue
        if not isinstance(key, yaml.ScalarNode):
            raise _ProblemError("a key is a text, not a list or a mapping", key)
        _check_scalar(key)
        if key.tag != STRING:
            raise _ProblemError(f"key {key.value[:40]!r} is no text; put it in quotes", key)
        if key.value in seen:
            raise _ProblemError(f"key {key.value[:80]!r} is written twice", key)
        seen.add(key.value)


def _check_scalar(node: yaml.ScalarNode) -> None:
    """Refuse numbers that YAML 1.1 reads in another base, and join what escapes have split."""
    if node.tag == STRING:
        try:
            node.value = joined(node.value)
        except ValueError as error:
            raise _ProblemError(str(error), node) from None
    elif node.tag == INTEGER and len(node.value) > 400:
        raise _ProblemError(f"a number of {len(node.value)} digits; put a text in quotes", node)
    elif node.style is None and _OCTAL.fullmatch(node.value):
        fix = node.value.lstrip("+-0_") or "0"
        raise _ProblemError(
            f"{node.value[:40]} is an octal number in YAML; write {fix[:40]}, or put a text in quotes", node
        )
    elif node.style is None and _SIXTIETHS.fullmatch(node.value):
        raise _ProblemError(f"{node.value[:40]} is a number in base 60 in YAML; put a text in quotes", node)


def plain(value: Any, file: str = "config", path: tuple[str, ...] = ()) -> Any:
    """A copy of settings as YAML would hold them: lists, mappings with texts as keys, texts, numbers, null.

    Args:
        value: may hold paths, tuples, settings models and NumPy numbers too.
        file: where it comes from, for messages.
        path: the keys that lead to it, for messages.

    Raises:
        UsageError: another object, a key that is no text, half of a surrogate pair, NUL, or too deep a nesting.
    """
    where = f"{file}: {'.'.join(path)[:200]}{': ' if path else ''}"
    if len(path) > DEEPEST:
        raise UsageError(f"{file}: nested more than {DEEPEST} levels deep")
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json", exclude_unset=True), file, path)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UsageError(f"{where}key {spelled(key)} is no text")
        return {_text(key, where, ()): plain(one, file, (*path, key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, file, (*path, str(index))) for index, one in enumerate(value)]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, datetime.date):
        value = value.isoformat()
    if isinstance(value, str):
        return _text(str(value), where, path)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a number of NumPy
        value = value.item()
    if value is None or isinstance(value, bool | int | float):
        return value
    raise UsageError(f"{where}an object of type {type(value).__name__} cannot be a setting")


def _text(text: str, where: str, path: tuple[str, ...]) -> str:
    """A text as it is kept; only what is read by a model may hold NUL."""
    try:
        text = joined(text)
    except ValueError as error:
        raise UsageError(f"{where}{error}") from None
    if "\0" in text and path[-1:] != ("text",):
        raise UsageError(f"{where}a name must not hold the character NUL")
    return text
