"""Settings models that refuse unknown keys, and whose later additions do not change the record of older runs."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from harness.core.errors import nearest

MOST = 2**63 - 1  # whole numbers end up in arrays of 64 bits


def _exact(schema: Any) -> Any:
    """A schema whose numbers and booleans are not made of texts or of each other, and whose integers are bounded."""
    if isinstance(schema, list | tuple):
        return type(schema)(_exact(part) for part in schema)
    if not isinstance(schema, dict):
        return schema
    schema = {key: part if key in {"metadata", "default"} else _exact(part) for key, part in schema.items()}
    if schema.get("type") in ("int", "float", "bool"):
        schema["strict"] = True
    if schema.get("type") == "int" and not {"lt", "le"} & schema.keys():
        schema["le"] = MOST
    return schema


class Strict(BaseModel):
    """A settings model that refuses unknown keys, and takes no value for one of another type.

    `true` is no number, `"3"` and `3.0` are no whole number, NaN and infinity are no number. Lists stand for tuples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    harmless: ClassVar[frozenset[str]] = frozenset()
    """Names of the fields that change how much is computed, not what a figure means: runs that differ compare."""
    rounding: ClassVar[frozenset[str]] = frozenset()
    """Names of the fields that change speed, memory and the last digits only: runs that differ compare."""
    apart: ClassVar[frozenset[str]] = frozenset()
    """Names of the fields that comparisons read by their content, such as the texts of prompts, not as settings."""
    continues: ClassVar[bool] = False
    """Of an experiment: its figures depend on the `generation` settings of the run."""

    @classmethod
    def effect(cls, name: str) -> Literal["amount", "rounding", "meaning", "apart"]:
        """What a field changes: how much is computed, the last digits, or (unless declared) what a figure means."""
        if name in cls.apart:
            return "apart"
        return "amount" if name in cls.harmless else "rounding" if name in cls.rounding else "meaning"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return _exact(handler(source))

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}{nearest(str(key), cls.model_fields)}")
        return data


class Growing(Strict):
    """Settings whose later additions are written down only where they are set: old runs keep their hash."""

    later: ClassVar[frozenset[str]] = frozenset()
    """Names of the fields that were added after runs had been recorded."""

    def replaced(self) -> frozenset[str]:
        """Names of the fields that others, which are set, stand in the place of: they are not written down."""
        return frozenset()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        quiet = {name for name in self.later if getattr(self, name) == fields[name].default} | self.replaced()
        return {key: value for key, value in write(self).items() if key not in quiet}
