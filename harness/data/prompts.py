"""Prompts: read them, split them by kind into training and held-out ones, and take fewer for a smoke run."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.config.forms import spelled
from harness.config.inline import InlinePrompt
from harness.config.load import Config, DatasetPrompts, LoadedConfig
from harness.config.messages import describe
from harness.config.reading import is_file, plain, read_yaml
from harness.config.texts import Prose
from harness.core.errors import UsageError
from harness.data.distinct import distinct
from harness.data.documents import read_documents, read_rows


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text to be continued. `split` is `train` or `held_out`, never both.

    Prompts that share a subject have the same `group`; a prompt without one is a group of its own, named by its id.
    """

    id: str
    kind: str
    text: str
    split: str = "train"
    chat: bool = False
    group: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.id)

    def as_dict(self) -> dict[str, Any]:
        """The prompt as a JSON-able mapping; `chat` and `group` are written only where they are set."""
        written = asdict(self)
        if not self.chat:
            del written["chat"]
        if self.group == self.id:
            del written["group"]
        return written


def _from_file(path: Path) -> list[Prompt]:
    data = plain(read_yaml(path), str(path))
    if not isinstance(data, list):
        raise UsageError(f"{path}: prompts are a list of {{id, kind, text}}, this is {spelled(data)}")
    prompts = []
    for index, item in enumerate(data):
        what = f"{path}: prompt {index}"
        if not isinstance(item, dict) or set(item) - {"chat", "group"} != {"id", "kind", "text"}:
            have = f"it has {', '.join(item)[:200]}" if isinstance(item, dict) else f"it is {spelled(item)}"
            raise UsageError(f"{what} must have the keys id, kind and text, and no others but chat and group; {have}")
        try:
            prompts.append(_prompt(InlinePrompt.model_validate(item)))
        except ValidationError as error:
            raise UsageError(describe(error, InlinePrompt, item, f"{what} (id {spelled(item['id'])})")) from None
    return prompts


def _prompt(given: InlinePrompt) -> Prompt:
    return Prompt(given.id, given.kind, given.text, chat=given.chat, group=given.group or given.id)


def _from_dataset(spec: DatasetPrompts, base: Path) -> tuple[list[Prompt], list[str]]:
    """The prompts of a dataset, and the ids of its empty texts."""
    with closing(read_rows(spec, base, "prompts", spec.kind_column)) as rows:
        found = list(islice(rows, spec.limit))
    texts = [Prompt(row.id, row.kind, row.text) for row in found if row.text.strip()]
    if not texts:
        raise UsageError(f"prompts: dataset {spec.dataset!r}: every {spec.column!r} is empty")
    return texts, [row.id for row in found if not row.text.strip()]


def read_given(loaded: LoadedConfig, spec: Prose, where: str) -> list[Prompt]:
    """Documents that are read instead of the model's own texts, split and limited.

    Args:
        loaded: the config of the run.
        spec: which documents.
        where: the key of the config, for messages.

    Raises:
        UsageError: no such dataset, no such column, no text in it, or too few documents for both splits.
    """
    documents = _documents(loaded, spec, where)
    return _split_for(loaded.config, documents, f"{where}: {spec.dataset}", "documents")


def read_prose(loaded: LoadedConfig, source: str | Prose, where: str) -> list[Prompt]:
    """Texts that losses are measured on.

    Args:
        loaded: the config of the run.
        source: a file of {id, kind, text}, or a dataset.
        where: the key of the config, for messages.

    Raises:
        UsageError: a file is missing or malformed, or a dataset holds no text.
    """
    if isinstance(source, str):
        return distinct(loaded, _from_file(_find(loaded, source, where)), [], where)
    return _documents(loaded, source, where)


def _documents(loaded: LoadedConfig, spec: Prose, where: str) -> list[Prompt]:
    """The documents of a dataset, each text once."""
    empty: list[str] = []
    found = read_documents(spec, loaded.base, where, spec.documents, spec.sample_by, empty)
    documents = [Prompt(name, "text", text) for name, text in found]
    return distinct(loaded, documents, empty, f"{where}: {spec.dataset}", repeated_rows=True)


def _split_for(config: Config, prompts: list[Prompt], where: str, what: str) -> list[Prompt]:
    """Split as a config says, refuse what leaves a split empty, and limit."""
    prompts = split(prompts, config.held_out, config.seed)
    for part in ("train", "held_out"):
        if not any(p.split == part for p in prompts):
            count = f"{len(prompts)} different {what}"
            raise UsageError(f"{where}: {count} leave none for {part}; add {what} or change held_out")
    return limited(prompts, config.limit, config.seed)


def _rank(seed: int, prompt: Prompt) -> str:
    """A position in a shuffle that depends on the seed and the prompt alone, not on its neighbours."""
    return hashlib.sha256(f"{seed}/{prompt.kind}/{prompt.id}".encode()).hexdigest()


def split(prompts: list[Prompt], held_out: float, seed: int) -> list[Prompt]:
    """Assign each prompt to training or held-out data, stratified by kind.

    Each kind gives its share, rounded down; the places still missing to round(held_out * all) go to the kinds
    with the largest remainders. A kind of two prompts or more occurs in both splits.
    """
    kinds: dict[str, list[Prompt]] = {}
    for prompt in sorted(prompts, key=lambda p: _rank(seed, p)):
        kinds.setdefault(prompt.kind, []).append(prompt)
    exact = {kind: held_out * len(group) for kind, group in kinds.items()}
    take = {kind: int(share) for kind, share in exact.items()}
    missing = round(held_out * len(prompts)) - sum(take.values())
    for kind in sorted(kinds, key=lambda k: (take[k] - exact[k], k))[: max(missing, 0)]:
        take[kind] += 1
    for kind, group in kinds.items():
        if len(group) > 1:
            take[kind] = min(max(take[kind], 1), len(group) - 1)
    held = {p.id for kind, group in kinds.items() for p in group[: take[kind]]}
    return [replace(p, split="held_out" if p.id in held else "train") for p in prompts]


def limited(prompts: list[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    """At most `limit` prompts of each split, taken from the kinds in turn."""
    if limit is None:
        return prompts
    keep: set[str] = set()
    for part in ("train", "held_out"):
        order: dict[str, int] = {}
        ranked = []
        for prompt in sorted((p for p in prompts if p.split == part), key=lambda p: _rank(seed, p)):
            order[prompt.kind] = order.get(prompt.kind, 0) + 1
            ranked.append((order[prompt.kind], prompt.kind, prompt.id))
        keep |= {prompt_id for _, _, prompt_id in sorted(ranked)[:limit]}
    return [p for p in prompts if p.id in keep]


def _find(loaded: LoadedConfig, name: str, where: str = "prompts") -> Path:
    path = next((p for p in (loaded.base / name, Path(name)) if is_file(p)), None)
    if path is None:
        raise UsageError(f"{where}: {spelled(name)}: no such file (looked beside the config and in the current folder)")
    return path


def load_prompts(loaded: LoadedConfig) -> list[Prompt]:
    """The prompts of a run: each text once, split and limited.

    Raises:
        UsageError: file missing or malformed, ids not unique, or too few for a training and a held-out prompt.
    """
    config = loaded.config
    if config.prompts is None:
        return []
    empty: list[str] = []
    if isinstance(config.prompts, DatasetPrompts):
        (prompts, empty), name = _from_dataset(config.prompts, loaded.base), f"prompts: {config.prompts.dataset}"
    else:
        given = [config.prompts] if isinstance(config.prompts, str) else list(config.prompts)
        files = [item for item in given if isinstance(item, str)]
        prompts = [prompt for file in files for prompt in _from_file(_find(loaded, file))]
        prompts += [_prompt(item) for item in given if isinstance(item, InlinePrompt)]
        name = f"prompts: {', '.join(files)[:200]}" if files else "prompts"
    if config.generation.chat:
        prompts = [replace(prompt, chat=True) for prompt in prompts]
    return _split_for(config, distinct(loaded, prompts, empty, name), name, "prompts")
