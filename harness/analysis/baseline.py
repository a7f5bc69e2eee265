"""Baselines: small committed copies of runs, made only from runs that can be trusted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError
from harness.runs.directory import MANIFEST, RunDirectory
from harness.runs.verify import TABLES, verify
from harness.runs.writing import new_folder


def update_baseline(run: Any, target: Path) -> None:
    """Put a copy of a run, without its units, in the place of a baseline.

    Args:
        run: an opened run: complete, verified, of a clean checkout, made without --limit.
        target: the folder of the baseline; replaced as a whole, or made.

    Raises:
        UsageError: the run cannot be trusted, or the folder holds something else than a baseline. Nothing is changed.
    """
    if run.path.resolve() == target.resolve():
        raise UsageError(f"--update: {target} is the run itself")
    refused = f"--update: {run.path} cannot be a baseline"
    if run.state != "complete":
        done, planned = run.finished_units()
        raise UsageError(f"{refused}: it is {run.state} ({done} of {planned} units); run it to its end")
    git = run.manifest["git"]
    if git["commit"] is None:
        raise UsageError(f"{refused}: it was not made from a git checkout")
    if git["dirty"]:
        raise UsageError(f"{refused}: its source had changes that were not committed; commit them and run it again")
    if run.manifest["config"]["limit"] is not None:
        raise UsageError(f"{refused}: it was made with --limit {run.manifest['config']['limit']}")
    problems = verify(run.path).problems
    if problems:
        raise UsageError(f"{refused}: {problems[0]} (see: ccmc verify {run.path})")
    RunDirectory(target).check_usable()
    if (target / "units").is_dir():
        raise UsageError(f"--update: {target} is a run with its units, not a baseline; choose another folder")
    old = target.with_name(f".{target.name}.old")
    fresh = target.with_name(f".{target.name}.new")
    for leftover in (old, fresh):
        shutil.rmtree(leftover, ignore_errors=True)
    with new_folder(fresh) as folder:
        for name in (MANIFEST, *TABLES):
            if (run.path / name).is_file():
                shutil.copyfile(run.path / name, folder / name)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
