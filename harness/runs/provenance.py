"""Where a run comes from: source, machine and packages, for its manifest."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

PACKAGES = ("ccmc-harness", "torch", "transformers", "datasets", "numpy", "scipy", "numba", "pandas", "pyarrow")


def git_state(root: Path | None = None) -> dict[str, Any]:
    """Commit of this package's own checkout, and whether its files were changed since.

    A package that is installed somewhere inside another repository has no commit: its files are not tracked there.

    Args:
        root: the folder with `harness` in it; default: of this very package.
    """
    root = root or Path(__file__).resolve().parents[2]
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return {"commit": None, "dirty": None}
        _git(root, "ls-files", "--error-unmatch", "--", "harness/__init__.py", "harness/runs/provenance.py")
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", "ccmc", "harness", "configs")
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed)}


def _git(folder: Path, *arguments: str) -> str:
    """What git says about a folder; variables such as GIT_DIR, which hooks set, do not lead it elsewhere."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    return done.stdout.strip()


def machine(device: str) -> dict[str, Any]:
    about = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "device": device,
    }
    if device == "cuda" or device.startswith("device_map"):
        import torch

        count = 1 if device == "cuda" else torch.cuda.device_count()
        if count:
            about["gpu"] = ", ".join(torch.cuda.get_device_name(number) for number in range(count))
    return about


def packages() -> dict[str, str]:
    """Name -> version of the packages that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def installed(name: str = "ccmc-harness") -> dict[str, Any]:
    """How a package was installed, as its installer recorded it (PEP 610), without paths of this machine.

    Returns:
        `from`: `index`, `archive`, `repository`, `folder`, `editable folder`, or `nowhere` for code that is not
        installed; of an archive its file name and hashes, of a repository its URL and commit.
    """
    try:
        said = importlib.metadata.distribution(name).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return {"from": "nowhere"}
    if said is None:
        return {"from": "index"}
    record = json.loads(said)
    if archive := record.get("archive_info"):
        hashes = archive.get("hashes") or dict([archive["hash"].split("=", 1)] if archive.get("hash") else [])
        return {"from": "archive", "file": unquote(record["url"].rpartition("/")[2]), "hashes": hashes}
    if vcs := record.get("vcs_info"):
        return {"from": "repository", "url": record["url"], "commit": vcs.get("commit_id")}
    editable = bool(record.get("dir_info", {}).get("editable"))
    return {"from": "editable folder" if editable else "folder"}
