"""A run on disk as Python sees it: its manifest, rows and continuations."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from harness.core.errors import UsageError, nearest
from harness.core.records import Answer, Figure, Table
from harness.core.rows import type_problems
from harness.runs import reading
from harness.runs.directory import MANIFEST, RunDirectory, find_runs

PICTURES = 4
"""Of a run, in a notebook."""


@dataclass(frozen=True)
class Run:
    """One run on disk.

    Attributes:
        path: its directory.
        manifest: what it was: config, hashes, versions, machine, timings, state.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def state(self) -> str:
        """`running` (or killed), `partial` or `complete`."""
        return str(self.manifest["state"])

    @property
    def rows(self) -> pd.DataFrame:
        """All rows; of a run that is not complete, those of its finished units.

        A text that occurs under several ids is one prompt: rows of the ids that the manifest records as copies of
        another (`prompts.duplicates`) are left out where that one has rows.

        Raises:
            UsageError: the tables cannot be read, have lost columns, or hold other types than the schema says.
        """
        return self._rows()

    def _rows(self, coded: bool = False) -> pd.DataFrame:
        """All rows; `coded` reads the texts of a complete run as categories."""
        found = RunDirectory(self.path).read("rows", coded)
        if problems := type_problems(found):
            raise UsageError(f"{self.path}: the rows are damaged: {problems[0]} (see: ccmc verify {self.path})")
        return _without_copies(found, (self.manifest.get("prompts") or {}).get("duplicates") or {})

    def _repr_html_(self) -> str:
        """What notebooks show: what the run is, and its first pictures."""
        done, planned = self.finished_units()
        about = f"{self.name}: {self.state}, {done} of {planned} units"
        folder = self.path / "plots"
        drawn = sorted(folder.glob("*.svg"))[:PICTURES] if folder.is_dir() else []
        pictures = "".join(
            f'<img alt="{escape(file.stem)}" style="max-width:48%" '
            f'src="data:image/svg+xml;base64,{b64encode(file.read_bytes()).decode()}">'
            for file in drawn
        )
        models = ", ".join(str(one["name"]) for one in self.manifest.get("models", []))
        said = [about, f"models: {models}" if models else "", str(self.path)]
        return "<div>" + "".join(f"<p>{escape(one)}</p>" for one in said if one) + pictures + "</div>"

    @property
    def split(self) -> reading.Split:
        """The rows by experiment, which are not to be changed; those of a complete run are read once."""
        if self.state != "complete":
            return reading.split(self.rows)
        found: reading.Split | None = self.__dict__.get("_split")
        if found is None:
            found = self.__dict__["_split"] = reading.split(self._rows(coded=True))
        return found

    def of(self, kind: str) -> pd.DataFrame:
        """The rows of one experiment, which are not to be changed; none where the run has none."""
        return next((part for name, part in self.split if name == kind), self.rows[:0])

    @property
    def trajectories(self) -> pd.DataFrame:
        """Continuations of the model and of the surrogates."""
        return RunDirectory(self.path).read("trajectories")

    def finished_units(self) -> tuple[int, int]:
        """How many units are stored, and how many the run has."""
        keys = [unit["key"] for unit in self.manifest["units"]]
        if self.state == "complete":
            return len(keys), len(keys)
        store = RunDirectory(self.path)
        return sum(store.finished(key) for key in keys), len(keys)

    def tables(self) -> list[Table]:
        """Every table about the run; see `harness.runs.reading`."""
        return reading.tables(self.split)

    def answers(self) -> list[Answer]:
        """What the run says, a sentence or two per question."""
        return reading.answers(self.split)

    def figures(self) -> list[Figure]:
        """The pictures of the run, drawn when they are wanted."""
        return reading.figures(self.split, self.trajectories)


def _without_copies(rows: pd.DataFrame, duplicates: dict[str, list[str]]) -> pd.DataFrame:
    """The rows of every text under one id only: `duplicates` maps it to the other ids of the same text."""
    there = set(rows["prompt"].dropna()) if duplicates else set()
    copies = {copy for kept, ids in duplicates.items() if kept in there for copy in ids if copy != kept}
    return rows[~rows["prompt"].isin(copies)].reset_index(drop=True) if copies & there else rows


def load_run(path: str | Path) -> Run:
    """Open a run directory.

    Args:
        path: the directory, or the name of a run under results/.

    Raises:
        UsageError: there is no run; names the nearest.
    """
    for place in (Path(path), Path("results") / path, Path("results/reference") / path):
        manifest = RunDirectory(place).read_manifest()
        if manifest is not None:
            return Run(place, manifest)
    known = [str(p) for p in find_runs(Path("results"))]
    hint = nearest(str(path), known) if known else "; start one with: ccmc run quickstart"
    raise UsageError(f"run {str(path)!r}: no {MANIFEST} there{hint}")
