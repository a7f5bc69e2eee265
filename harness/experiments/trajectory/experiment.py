"""The experiment `trajectory`: what it needs, and where its parts are."""

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
    "trajectory",
    label="Trajectory",
    question="What does one long trajectory do, and what does it teach?",
    order=80,
    cost="a minute",
    source="Ildiz et al. 2024",
)
class TrajectoryExperiment(Experiment):
    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        from harness.experiments.trajectory.settings import Trajectory

        return Trajectory

    def plan(self, request: Request) -> list[Unit]:
        from harness.experiments.trajectory.plan import plan

        return plan(request)

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        from harness.experiments.trajectory.tables import tables

        return tables(rows)

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        from harness.experiments.trajectory.answers import answers

        return answers(rows)

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        from harness.experiments.trajectory.figures import figures

        return figures(rows, trajectories)
