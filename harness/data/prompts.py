"""Prompts: read them, split them into training and held-out ones or into folds, and take fewer for a smoke run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from harness.config.forms import spelled
from harness.config.inline import InlinePrompt
from harness.config.load import Config, DatasetPrompts, LoadedConfig, PromptFiles
from harness.config.messages import describe
from harness.config.reading import is_file, plain, read_yaml
from harness.config.texts import Prose
from harness.core.errors import UsageError, nearest
from harness.data.distinct import distinct
from harness.data.documents import read_documents, read_rows
from harness.data.splits import Prompt, folded, limited, split

CHAT = "chat"
"""The kind that stands for all turns of chats."""


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


def _split_for(
    config: Config, prompts: list[Prompt], where: str, what: str, judged: frozenset[str] | None = None
) -> list[Prompt]:
    """Split as a config says, refuse what leaves a split or a fold empty, and limit.

    Args:
        judged: ids of those that the config names to be judged on; None where it names none.
    """
    groups = len({prompt.group for prompt in prompts})
    count = f"{len(prompts)} different {what}{f' in {groups} groups' if groups < len(prompts) else ''}"
    if config.folds is not None:
        if groups < config.folds:
            raise UsageError(f"{where}: {count} leave a fold empty; add {what} or lower folds, which is {config.folds}")
        return limited(folded(prompts, config.folds, config.seed), config.limit, config.seed)
    prompts = split(prompts, config.held_out, config.seed) if judged is None else _apart(prompts, judged, where)
    key = "held_out" if judged is None else "judged"
    for part in ("train", "held_out"):
        if not any(p.split == part for p in prompts):
            raise UsageError(f"{where}: {count} leave none for {part}; add {what} or change {key}")
    return limited(prompts, config.limit, config.seed)


def _apart(prompts: list[Prompt], judged: frozenset[str], where: str) -> list[Prompt]:
    """Prompts of `judged` are held out, all others are for training; no group may have some of both."""
    both = {p.group for p in prompts if p.id in judged} & {p.group for p in prompts if p.id not in judged}
    if both:
        raise UsageError(
            f"{where}: group {spelled(min(both))} has prompts of both `prompts` and `judged`; move all of them to one"
        )
    return [replace(p, split="held_out" if p.id in judged else "train", fold=None) for p in prompts]


def _find(loaded: LoadedConfig, name: str, where: str = "prompts") -> Path:
    path = next((p for p in (loaded.base / name, Path(name)) if is_file(p)), None)
    if path is None:
        raise UsageError(f"{where}: {spelled(name)}: no such file (looked beside the config and in the current folder)")
    return path


def _without(prompts: list[Prompt], kinds: Sequence[str], where: str) -> list[Prompt]:
    """All prompts but those of some kinds; `chat` stands for turns of a chat too.

    Raises:
        UsageError: no prompt is of such a kind; names the nearest.
    """
    known = {prompt.kind for prompt in prompts} | ({CHAT} if any(prompt.chat for prompt in prompts) else set())
    for kind in kinds:
        if kind not in known:
            raise UsageError(f"prompts.leave_out: no prompt of {where} is of the kind {kind!r}{nearest(kind, known)}")
    return [p for p in prompts if p.kind not in kinds and not (p.chat and CHAT in kinds)]


def load_prompts(loaded: LoadedConfig, leave_out: Sequence[str] = ()) -> list[Prompt]:
    """The prompts of a run: each text once, split and limited.

    Args:
        loaded: the config of the run.
        leave_out: kinds that are left out, beside those that the config leaves out.

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
        written = config.prompts.files if isinstance(config.prompts, PromptFiles) else config.prompts
        given = [written] if isinstance(written, str) else list(written)
        files = [item for item in given if isinstance(item, str)]
        prompts = [prompt for file in files for prompt in _from_file(_find(loaded, file))]
        prompts += [_prompt(item) for item in given if isinstance(item, InlinePrompt)]
        name = f"prompts: {', '.join(files)[:200]}" if files else "prompts"
    named = [config.judged] if isinstance(config.judged, str) else list(config.judged or ())
    judged = [prompt for file in named for prompt in _from_file(_find(loaded, file, "judged"))]
    prompts = [*prompts, *judged]
    if isinstance(config.prompts, PromptFiles) and config.prompts.leave_out:
        prompts = _without(prompts, config.prompts.leave_out, ", ".join(files)[:200] or "the list")
    if leave_out:
        prompts = _without(prompts, leave_out, name)
    if config.generation.chat:
        prompts = [replace(prompt, chat=True) for prompt in prompts]
    apart = frozenset(prompt.id for prompt in judged) if config.judged is not None else None
    return _split_for(config, distinct(loaded, prompts, empty, name), name, "prompts", apart)
