"""What the files of a run say, as models that every reader can rely on: `manifest.json` and each `unit.json`.

Fields that nothing reads may be there as well. A field that is wrong is named in words.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from harness.core.errors import UsageError
from harness.core.hashing import canonical_hash

CHECKSUM = "sha256"
"""Where a manifest holds the hash of everything else in it."""


def _is_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Name = Annotated[str, Field(max_length=300)]
Key = Annotated[str, Field(pattern=r"^[0-9A-Za-z_][0-9A-Za-z_.-]{0,99}$")]  # one folder, here
Time = Annotated[str, AfterValidator(_is_time)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TableName = Literal["rows.parquet", "trajectories.parquet"]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Experiment(_Part):
    kind: Name


class _Config(_Part):
    experiments: list[_Experiment]
    limit: int | None


class _Model(_Part):
    name: str
    revision: str | None
    layers: Count
    weights_sha256: str
    tokens_sha256: str | None = None
    texts_sha256: str | None = None
    generation_config: dict[str, object] | None = None
    folder: str | None = None


class _Prompts(_Part):
    train: Count
    held_out: Count
    sha256: str


class _Git(_Part):
    commit: str | None
    dirty: bool | None


class _Unit(_Part):
    key: Key
    label: str
    record_sha256: str | None = None
    versions: dict[str, str] | None = None


class _Failure(_Part):
    key: Key
    error: str


class _Timings(_Part):
    units_seconds: dict[str, Seconds] = {}
    sum_of_units_seconds: Seconds | None = None
    last_session_seconds: Seconds | None = None
    peak_memory_bytes: Count | None = None


class _Session(_Part):
    started: Time
    finished: Time | None = None
    packages: dict[str, str]
    units: Count | None = None
    notes: list[str] = []


class Manifest(_Part):
    """`manifest.json`: what a run was and how it ended."""

    schema_version: int
    name: Name
    state: Literal["running", "partial", "complete"]
    config_hash: str
    config: _Config
    config_as_given: dict[str, Any]
    seed: int
    prompts: _Prompts
    models: list[_Model]
    git: _Git
    packages: dict[str, str]
    machine: dict[str, Any]
    created: Time
    units: list[_Unit]
    failures: list[_Failure]
    finished: Time | None = None
    tables: dict[TableName, str] | None = None
    timings: _Timings | None = None
    notes: list[str] = []
    sessions: list[_Session] = []
    earlier_units: list[Key] = []


class UnitRecord(_Part):
    """`unit.json`: what a stored unit was made of, and the hashes of its files."""

    key: Key
    task: str
    label: str
    settings: dict[str, Any]
    needs: list[Key]
    source: str
    versions: dict[str, str] | None = None
    recipe: str | None = None
    threads: Count = 1
    files: dict[str, str]
    finished: Time
    seconds: Seconds
    peak_memory_bytes: Count | None = None


Model = TypeVar("Model", bound=_Part)


def parsed(content: bytes, model: type[Model]) -> dict[str, Any]:
    """JSON that a model describes.

    Raises:
        ValueError: no JSON, or not as the model says; in words, without the name of the file.
    """
    try:
        found = json.loads(content.decode("utf-8"), parse_constant=_no_number)
        json.dumps(found, ensure_ascii=False).encode()  # half a sign cannot be printed or written
    except UnicodeError as error:
        raise ValueError(f"no text in UTF-8: {error}") from None
    except RecursionError:
        raise ValueError("no JSON of ours: nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"{_shown(found)} in the place of a mapping")
    try:
        model.model_validate(found)
    except ValidationError as error:
        raise ValueError(_in_words(error)) from None
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


_WANTED = {
    "dict_type": "a mapping", "model_type": "a mapping", "list_type": "a list", "string_type": "a text",
    "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false",
    "value_error": "a time as in ISO 8601", "string_pattern_mismatch": "the name of a unit's folder",
    "greater_than_equal": "0 or more", "finite_number": "a number", "string_too_long": "a short text",
}  # fmt: skip


def _in_words(error: ValidationError) -> str:
    """All missing fields, or the first that is wrong."""
    problems = error.errors(include_url=False)
    lacking = [_place(one["loc"]) for one in problems if one["type"] == "missing"]
    if lacking:
        return f"without {', '.join(lacking)}"
    first = problems[0]
    wanted = _WANTED.get(first["type"]) or f"{first.get('ctx', {}).get('expected', 'what belongs there')}"
    return f"{_place(first['loc'])} is {_shown(first['input'])}, not {wanted}"


def _place(where: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return text.removeprefix(".")[:80]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 40 else f"{text[:37]}..."


def checksum(manifest: dict[str, Any]) -> str:
    """The hash of a manifest without the field that holds it."""
    content = json.loads(json.dumps({key: value for key, value in manifest.items() if key != CHECKSUM}))
    return canonical_hash(content)


def unchanged(manifest: dict[str, Any]) -> bool:
    """Is a manifest as it was written? Those of earlier versions cannot say, and count as unchanged."""
    return CHECKSUM not in manifest or manifest[CHECKSUM] == checksum(manifest)


class DamagedManifestError(UsageError):
    """A `manifest.json` that cannot be read."""
