"""The experiment `coverage`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.core.registry import register
from harness.experiments.experiment import Experiment, Request

if TYPE_CHECKING:
    import pandas as pd

    from harness.config.strict import Strict
    from harness.core.records import Answer, Figure, Table
    from harness.runs.units import Unit


@register.experiment(
    "coverage",
    label="Coverage",
    question="Which prompts determine the chain?",
    order=60,
    cost="two minutes",
    source="Ildiz et al. 2024",
)
class CoverageExperiment(Experiment):
    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        from harness.experiments.coverage.settings import Coverage

        return Coverage

    def plan(self, request: Request) -> list[Unit]:
        from harness.experiments.coverage.plan import plan

        return plan(request)

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        from harness.experiments.coverage.tables import tables

        return tables(rows)

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        from harness.experiments.coverage.answers import answers

        return answers(rows)

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        from harness.experiments.coverage.figures import figures

        return figures(rows, trajectories)
