"""Sides of a comparison: a run, or one language model of a run that has several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.core.errors import UsageError, nearest
from harness.runs.run import Run, load_run

ANY_MODEL = "(model)"  # the name of a side's language model in its rows, so that two sides have the same figures


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: as tables call it.
        run: where its rows are.
        model: its language model; None where the run has none.
        revision: that model's revision.
    """

    name: str
    run: Run
    model: str | None
    revision: str | None

    @property
    def rows(self) -> pd.DataFrame:
        """Rows of the side; its language model is called ANY_MODEL."""
        rows = self.run.rows
        models = {model["name"] for model in self.run.manifest["models"]}
        rows = rows[~rows["model"].isin(models - {self.model})]
        return rows.assign(model=rows["model"].replace({self.model: ANY_MODEL}) if self.model else rows["model"])

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest of the run, with this side's model alone, under the name that its rows have."""
        kept = [{**m, "name": ANY_MODEL} for m in self.run.manifest["models"] if m["name"] == self.model]
        return {**self.run.manifest, "models": kept}


def sides_of(run: Run, name: str) -> list[Side]:
    """One side for each language model of a run; a run without one is a side too."""
    models = run.manifest["models"]
    if not models:
        return [Side(name, run, None, None)]
    if len(models) == 1:
        return [Side(name, run, models[0]["name"], models[0]["revision"])]
    return [Side(f"{name}:{model['name']}", run, model["name"], model["revision"]) for model in models]


def open_sides(texts: Sequence[str]) -> list[Side]:
    """The sides that command-line arguments name: run directories, or `RUN:MODEL` for one model of several.

    Raises:
        UsageError: no such run or model, or one is given twice.
    """
    found: list[Side] = []
    for text in texts:
        try:
            found += sides_of(load_run(text), text.rstrip("/"))
        except UsageError:
            place, colon, model = text.rpartition(":")
            if not colon:
                raise
            run = load_run(place)
            known = [entry["name"] for entry in run.manifest["models"]]
            if model not in known:
                raise UsageError(f"{place} has no model {model!r}{nearest(model, known)}") from None
            found += [side for side in sides_of(run, place.rstrip("/")) if side.model == model]
    names = [(side.run.path.resolve(), side.model) for side in found]
    if len(set(names)) < len(names):
        raise UsageError(
            f"{next(s.name for s, n in zip(found, names, strict=True) if names.count(n) > 1)} is given twice"
        )
    return found


def one_side(text: str) -> Side:
    """The side that one argument names.

    Raises:
        UsageError: the run has several models and none is named.
    """
    found = open_sides([text])
    if len(found) > 1:
        raise UsageError(f"{text} has several models; say which: {', '.join(side.name for side in found)}")
    return found[0]
