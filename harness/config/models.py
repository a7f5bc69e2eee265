"""The setting `models`: a list of names, or a mapping of the names and of how strictly their files are read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import SerializerFunctionWrapHandler, ValidatorFunctionWrapHandler, WrapSerializer, WrapValidator

from harness.core.errors import nearest

KEYS = ("names", "allow_mismatch")


class ModelNames(tuple[str, ...]):
    """The names of a run's models, in order; a tuple in all but one thing.

    Attributes:
        allow_mismatch: go on with a model whose files and config do not agree, and note what differs.
    """

    allow_mismatch: bool

    def __new__(cls, names: Iterable[str] = (), allow_mismatch: bool = False) -> ModelNames:
        made = super().__new__(cls, names)
        made.allow_mismatch = allow_mismatch
        return made

    def __eq__(self, other: object) -> bool:
        return tuple.__eq__(self, other) is True and self.allow_mismatch == getattr(other, "allow_mismatch", False)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return ModelNames, (tuple(self), self.allow_mismatch)


def _checked(value: Any, check: ValidatorFunctionWrapHandler) -> ModelNames:
    """A list of names, or {names, allow_mismatch}, as `ModelNames`."""
    if isinstance(value, ModelNames):
        return value
    if not isinstance(value, dict):
        return ModelNames(check(value))
    for key in value:
        if key not in KEYS:
            raise ValueError(f"unknown key {key!r}{nearest(str(key), KEYS)}")
    allowed = value.get("allow_mismatch", False)
    if not isinstance(allowed, bool):
        raise ValueError(f"allow_mismatch is true or false, got {allowed!r}")
    return ModelNames(check(value.get("names", ())), allowed)


def _written(value: Any, write: SerializerFunctionWrapHandler) -> Any:
    """The list of names as it always was; a mapping only where mismatches are allowed, so that old hashes stay."""
    names = write(tuple(value))
    return {"names": names, "allow_mismatch": True} if getattr(value, "allow_mismatch", False) else names


Models = Annotated[tuple[str, ...], WrapValidator(_checked), WrapSerializer(_written)]


def allows_mismatch(names: tuple[str, ...]) -> bool:
    """May a run go on with models whose files and config do not agree?"""
    return isinstance(names, ModelNames) and names.allow_mismatch


def join_models(low: Any, high: Any) -> Any:
    """The setting `models` of two configs, of which the second wins; each keeps what the other does not mention.

    Args:
        low: a list of names, a mapping, or anything else, which is kept for the check of the config to refuse.
        high: the same, of the config or override that wins.
    """
    if isinstance(high, dict) and isinstance(low, list | tuple):
        return {"names": low, **high}
    if isinstance(high, list | tuple) and isinstance(low, dict):
        return {**low, "names": high}
    return high


def entered(data: dict[str, Any], keys: list[str]) -> list[str]:
    """The keys of an override, after `models` or `prompts` is made such that they lead somewhere in it.

    `models.allow_mismatch` and `models.names` make a mapping of a list; `models.0` is the first name of either form.
    `prompts.leave_out` makes a mapping of a file, a list of files or of prompts.

    Args:
        data: of the config; changed in place.
        keys: of the override, such as ["models", "allow_mismatch"].
    """
    if keys[0] == "prompts" and keys[1:] in (["files"], ["leave_out"]) and not isinstance(data.get("prompts"), dict):
        data["prompts"] = {"files": data["prompts"]} if data.get("prompts") is not None else {}
    if keys[0] != "models" or len(keys) < 2:
        return keys
    given = data.get("models", [])
    if keys[1] in KEYS and isinstance(given, list):
        data["models"] = {"names": given}
    if keys[1].isdigit() and isinstance(given, dict):
        given.setdefault("names", [])
        return ["models", "names", *keys[1:]]
    return keys
