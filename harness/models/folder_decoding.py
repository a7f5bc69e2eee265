"""What a model's folder says about decoding: in generation_config.json, or in config.json where there is none.

Only the ids of end, begin and padding are taken. Everything else is set aside and named in a note, because decoding is
what the config of the run says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from harness.core.errors import one_line

FILE = "generation_config.json"
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_ABOUT = {"transformers_version", "_from_model_config", "_commit_hash"}
_SILENT: dict[str, Any] = {  # values that change nothing
    **GenerationConfig._get_default_generation_params(),
    "top_k": 0,
    "min_new_tokens": 0,
    "min_p": 0.0,
    "guidance_scale": 1.0,
    "penalty_alpha": 0.0,
    **dict.fromkeys(
        ("renormalize_logits", "token_healing", "low_memory", "is_assistant", "use_mtp", "disable_compile",
         "output_attentions", "output_hidden_states", "output_logits"),
        False,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class FolderDecoding:
    """What a folder says about decoding.

    Attributes:
        file: which file says it.
        ids: the ids of begin, end and padding that are tokens of the model.
        fields: what else it sets, without values that change nothing.
        older: what config.json sets beside a generation_config.json; transformers does not read it either.
        problems: what could not be read, one line each, without the name of the model.
    """

    file: str
    ids: Mapping[str, int | list[int]] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    older: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def set_aside(self, name: str) -> list[str]:
        """The notes of a run that takes the ids only.

        Args:
            name: of the model.
        """
        lines = [f"{name}: {problem}" for problem in self.problems]
        for file, fields in ((self.file, self.fields), ("config.json", self.older)):
            if fields:
                lines.append(
                    f"{name}: {file} sets {listed(fields)}; set aside, decoding is what `generation` of the config says"
                )
        return lines


def listed(fields: Mapping[str, Any]) -> str:
    """Fields as `name=value`, long values cut."""
    texts = {name: json.dumps(value, default=str) for name, value in fields.items()}
    return ", ".join(f"{name}={text if len(text) <= 40 else text[:37] + '...'}" for name, text in texts.items())


def read_decoding(path: Path, size: int) -> FolderDecoding:
    """Read what a folder says about decoding; a file that cannot be read is set aside and named.

    Args:
        path: of the model's folder.
        size: of its vocabulary.
    """
    problems: list[str] = []
    old = _object(path / "config.json", problems)
    text = old.get("text_config")
    old = {**(text if isinstance(text, dict) else {}), **old}
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    older = {name: value for name, value in old.items() if name in known and name != "use_cache"}
    found, file = older, "config.json"
    if (path / FILE).exists():
        before = len(problems)
        given = _object(path / FILE, problems)
        if len(problems) == before:
            found, file = given, FILE
    ids = {
        name: value for name in IDS if (value := _ids(name, found.get(name), size, file, problems)) not in (None, [])
    }
    return FolderDecoding(file, ids, _speaking(found), {} if found is older else _speaking(older), tuple(problems))


def _object(file: Path, problems: list[str]) -> dict[str, Any]:
    """A JSON object; an empty one, and a problem, where the file is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{file.name} cannot be read and is set aside: {one_line(error)[:120]}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{file.name} is no JSON object but a {type(found).__name__}, and is set aside")
        return {}
    return found


def _speaking(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that say something about decoding."""
    return {
        name: value
        for name, value in fields.items()
        if name not in IDS
        and name not in _ABOUT
        and value is not None
        and not (name in _SILENT and type(_SILENT[name]) is not type(None) and value == _SILENT[name])
    }


def _ids(name: str, value: Any, size: int, file: str, problems: list[str]) -> int | list[int] | None:
    """Ids that are tokens of the model; others are a problem where they would end a text."""
    given = value if isinstance(value, list) else [] if value is None else [value]
    kept = [token for token in given if type(token) is int and 0 <= token < size]
    wrong = [token for token in given if token not in kept]
    if wrong and name == "eos_token_id":
        then = "texts end at the others" if kept else "texts end at the end token of the tokenizer, if it has one"
        problems.append(
            f"{file} has {name} {json.dumps(wrong)[:40]}, the model has tokens 0 to {size - 1}; set aside, {then}"
        )
    if name == "eos_token_id":
        return kept
    return kept[0] if kept else None
