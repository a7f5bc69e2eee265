"""Plugins in folders of their own: installed by pip without a network, or written down as pip would leave them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "tests" / "example_plugin"


def install(source: Path, site: Path, scratch: Path) -> Path:
    """Build a package and install it into a folder, which then only has to be on PYTHONPATH.

    Args:
        source: the package; it is copied first, as setuptools leaves files beside what it builds.
        site: where it is installed.
        scratch: a folder for the copy.
    """
    copy = shutil.copytree(source, scratch / source.name, dirs_exist_ok=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--upgrade", "--target", str(site), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return site


def write(site: Path, name: str, module: str, text: str, kinds: tuple[str, ...] = ("surrogates",)) -> Path:
    """A plugin of one module as pip leaves it, for what no builder would accept."""
    site.mkdir(parents=True, exist_ok=True)
    (site / f"{module}.py").write_text(text)
    about = site / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("".join(f"[ccmc.{kind}]\n{module} = {module}\n" for kind in kinds))
    return site


def environment(*sites: Path, **more: str) -> dict[str, str]:
    """What a process needs to find the harness and some plugins."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *sites])), **more}


def ccmc(arguments: list[str], *sites: Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with some plugins."""
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(*sites, **more), capture_output=True, text=True, check=False
    )
