"""Two made-up experiments and a run of them, for tests of what is printed: one says everything, one is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

import harness.config.load  # noqa: F401 - reads the declared experiments once, before they are replaced
from harness.core import registry
from harness.core.declarations import ExperimentDeclaration
from harness.core.records import Answer, Column, Figure, Interval, Table
from harness.core.rows import SCHEMA_VERSION, Rows
from harness.runs.writing import write_parquet

FOUND = Interval(0.512, 0.431, 0.563, 15)
LONG = "surrogate-with-a-very-long-name/that-no-terminal-of-eighty-columns-has-room-for-beside-its-figures"


class Talks:
    """Everything that an experiment can say."""

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        return [
            Answer("Is there a difference?", "There are too few prompts to say.", answered=False),
            Answer("Which is best?", f"fit explains {len(rows)} of everything, 0.512 [0.431, 0.563].", FOUND),
        ]

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        columns = [
            Column("surrogate", left=True),
            Column("explained"),
            *(Column(f"figure_{number}", "nats", priority=number) for number in range(1, 6)),
        ]
        body = [[name, FOUND, *([FOUND] * 5)] for name in ("counts", LONG, *(f"s{number}" for number in range(20)))]
        small = Table("talks.small", "What is explained", columns, body, "Intervals: 95 %.", headline=True)
        return [small, Table("talks.by-layer", "By layer", columns, body), Table("talks.other", "Other", columns, body)]

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        def draw() -> Any:
            from matplotlib.figure import Figure as Drawn

            drawn = Drawn(figsize=(2, 1))
            drawn.subplots().plot([0, 1], [0, 1])
            return drawn

        def fail() -> Any:
            raise ValueError("nothing to draw")

        return [Figure("talks of/a $x", "A line", "One line.", draw), Figure("broken", "Nothing", "Nothing.", fail)]


class Fails:
    """An experiment whose every part raises."""

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        raise KeyError("no such metric")

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        raise ZeroDivisionError("nothing\nto divide by")

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        raise RuntimeError("no picture")


MADE = {"talks": Talks, "fails": Fails}


def declare(patch: Any) -> None:
    """Make the registry know the two.

    Args:
        patch: a function such as `monkeypatch.setattr`, or `setattr`.
    """
    known = {kind: ExperimentDeclaration(kind, question="?", order=place) for place, kind in enumerate(MADE)}
    patch(registry, "experiments", lambda: known)
    patch(registry, "experiment", lambda kind: MADE[kind]())


def write_run(folder: Path, kinds: tuple[str, ...] = ("talks", "fails")) -> Path:
    """A complete run of some of them, five rows each.

    Args:
        folder: is made.
        kinds: of the experiments.
    """
    folder.mkdir(parents=True)
    parts = []
    for kind in kinds:
        rows = Rows(experiment=kind, model="m", split="held_out", surrogate="fit")
        for index in range(5):
            rows.add("kl", 0.5 + index, prompt=f"p{index}", n=1)
        parts.append(rows.frame())
    write_parquet(pd.concat(parts, ignore_index=True), folder / "rows.parquet")
    write_parquet(pd.DataFrame({"experiment": []}), folder / "trajectories.parquet")
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": "made-up",
        "state": "complete",
        "config_hash": "0" * 64,
        "config": {"experiments": [{"kind": kind} for kind in kinds], "limit": None, "seed": 0},
        "config_as_given": {},
        "seed": 0,
        "prompts": {"train": 18, "held_out": 6, "sha256": "0" * 64},
        "models": [{"name": "m", "revision": None, "layers": 2, "weights_sha256": "0" * 64, "folder": None}],
        "git": {"commit": None, "dirty": None},
        "packages": {},
        "machine": {},
        "created": "2026-01-01T00:00:00+00:00",
        "units": [{"key": "a", "label": "a unit"}],
        "failures": [],
        "timings": {"sum_of_units_seconds": 192.4},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
