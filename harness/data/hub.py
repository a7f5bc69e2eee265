"""Snapshots of models from the hub: a commit out of its cache where it is whole there, all else as the hub has it."""

from __future__ import annotations

import json
import logging
import re
import warnings
from pathlib import Path

from harness.core.errors import UsageError, one_line
from harness.data import network

FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
NAME = r"[\w.-]+/[\w.-]+(@[\w./-]+)?"  # owner/name[@revision]
COMMIT = r"[0-9a-f]{40}"
INDEX = "model.safetensors.index.json"


def is_name(name: str) -> bool:
    """Can this be a model on the hub?"""
    return re.fullmatch(NAME, name) is not None


def no_retries_told() -> None:
    """The hub's client warns of each of its retries; their outcome is reported in one line."""
    import huggingface_hub  # sets the level itself when it is imported

    logging.getLogger(huggingface_hub.__name__).setLevel(logging.ERROR)


def _placed(index: Path) -> set[str] | None:
    """The files that an index names; None where it is damaged, or names anything but files beside it."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    plain = all(isinstance(name, str) and re.fullmatch(r"[\w.-]{1,200}", name) for name in names)
    return names if plain else None


def missing(folder: Path) -> list[str]:
    """Files that a snapshot lacks: an interrupted download leaves a folder that could be taken for a model."""
    wanted = {"config.json"}
    if (folder / INDEX).is_file():
        placed = _placed(folder / INDEX)
        if placed is None:
            return [f"a readable {INDEX}"]
        wanted |= placed
    lacking = sorted(name for name in wanted if not (folder / name).is_file())
    return lacking if any(folder.glob("*.safetensors")) else [*lacking, "*.safetensors"]


def cached(repository: str, revision: str | None) -> Path | None:
    """A whole snapshot in the hub's cache, found without the network; None where there is none."""
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(repository, revision=revision, allow_patterns=FILES, local_files_only=True))
    except Exception:  # of many kinds: not in the cache, no such reference, no cache at all
        return None
    return None if missing(path) else path


def _known(repository: str) -> str:
    """The revisions of a repository in the cache, for a message."""
    from huggingface_hub import constants

    refs = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "refs"
    names = sorted(file.relative_to(refs).as_posix() for file in refs.rglob("*") if file.is_file())
    return f"; its cache has {', '.join(names)}" if names else ""


def fetch(name: str) -> Path:
    """The snapshot of `owner/name[@revision]`, downloaded where it is not in the cache.

    Raises:
        UsageError: the hub cannot be reached or does not have it, or what it has is not whole.
    """
    repository, _, revision = name.partition("@")
    if re.fullmatch(COMMIT, revision) and (found := cached(repository, revision)) is not None:
        return found  # a commit never changes: no request is needed
    no_retries_told()
    try:
        network.bound_hub()
        network.check_hub()
        from huggingface_hub import snapshot_download

        path = Path(snapshot_download(repository, revision=revision or None, allow_patterns=FILES))
    except Exception as error:  # the hub client raises network, permission and validation errors of many kinds
        lost = network.unreachable(error)
        if lost is not None and (found := cached(repository, revision or None)) is not None:
            warnings.warn(f"{lost}; the snapshot {found.name[:8]} of {name} in the cache is used", stacklevel=2)
            return found
        if lost is not None:
            raise UsageError(
                f"model {name!r}: {lost}; give the folder of a model, or fill the cache where there is a network"
                f"{_known(repository)}"
            ) from None
        reason = one_line(error).removeprefix("Got: ").split(" An error happened")[0][:160]
        raise UsageError(
            f"model {name!r}: no such folder here, and the hub did not give it: {reason}{_known(repository)}"
        ) from None
    if lacking := missing(path):
        raise UsageError(
            f"model {name!r}: {', '.join(lacking[:3])} is not in {path}; where the hub has it, fetch the model again "
            "with a connection, else convert it to safetensors and give the folder"
        )
    return path
