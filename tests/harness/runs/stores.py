"""Manifests and plans of runs that are made up, for tests of the run directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from harness.core.rows import Rows
from harness.runs.directory import RunDirectory
from harness.runs.opening import begin
from harness.runs.run import Run, load_run
from harness.runs.session import carry_out
from harness.runs.units import Unit, Work

TASK = "stores"


def square(work: Work) -> pd.DataFrame:
    """Settings {x}: x squared, plus what the needed units found."""
    value = work.settings["x"] ** 2 + sum(
        float(pd.read_parquet(f / "rows.parquet")["value"].iloc[0]) for f in work.inputs
    )
    rows = Rows(experiment="test")
    rows.add("square", value)
    return rows.frame()


def plan(count: int = 3) -> list[Unit]:
    """Units that each need the one before."""
    made: list[Unit] = []
    for x in range(count):
        made.append(Unit(f"{TASK}:square", f"square {x}", {"x": x}, tuple(made[-1:])))
    return made


def manifest(units: list[Unit] | None = None, **changes: Any) -> dict[str, Any]:
    """Of a run of units, as if it were new."""
    base: dict[str, Any] = {
        "schema_version": 1,
        "name": "a",
        "state": "running",
        "config_hash": "a",
        "config": {"seed": 0, "limit": None, "experiments": []},
        "config_as_given": {},
        "seed": 0,
        "prompts": {"train": 0, "held_out": 0, "sha256": ""},
        "models": [],
        "git": {"commit": None, "dirty": None},
        "packages": {"torch": "1.0"},
        "machine": {},
        "created": "2026-01-01T00:00:00+00:00",
        "units": [{"key": unit.key, "label": unit.label} for unit in units or []],
        "failures": [],
    }
    return {**base, **changes}


def work_on(folder: Path, units: list[Unit], keep: bool = False, **changes: Any) -> tuple[Run, list[str]]:
    """One session on a run, from its opening to its end; the run, and the notes of the session."""
    store = RunDirectory(folder)
    found, chosen = begin(store, manifest(units, **changes), units, keep)
    try:
        if found["state"] != "complete":
            carry_out(store, found, chosen)
    finally:
        store.close()
    return load_run(folder), store.notes


def python(code: str, *arguments: str, wait: bool = True) -> subprocess.Popen[str]:
    """Another process that runs a piece of Python with this folder's modules."""
    folders = [str(Path(__file__).parents[3]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    started = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    if wait:
        started.wait(60)
    return started
