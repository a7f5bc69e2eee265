"""Where a run comes from: source, machine and packages, for its manifest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("ccmc-harness", "torch", "transformers", "datasets", "numpy", "scipy", "numba", "pandas", "pyarrow")


def git_state() -> dict[str, Any]:
    folder = Path(__file__).resolve().parents[1]
    try:
        commit = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(folder.parent), "status", "--porcelain", "--", "ccmc", "harness", "configs"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed)}


def machine(device: str) -> dict[str, Any]:
    about = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "device": device,
    }
    if device == "cuda":
        import torch

        about["gpu"] = torch.cuda.get_device_name()
    return about


def packages() -> dict[str, str]:
    """Name -> version of the packages that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}
