"""The experiment `equivalence`: what it needs, and where its parts are."""

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
    "equivalence",
    label="Equivalence",
    question="Does one attention layer sample from the chain read off its weights?",
    order=50,
    cost="a minute",
    source="Ildiz et al. 2024",
)
class EquivalenceExperiment(Experiment):
    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        from harness.experiments.equivalence.settings import Equivalence

        return Equivalence

    def plan(self, request: Request) -> list[Unit]:
        from harness.experiments.equivalence.plan import plan

        return plan(request)

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        from harness.experiments.equivalence.tables import tables

        return tables(rows)

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        from harness.experiments.equivalence.answers import answers

        return answers(rows)

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        from harness.experiments.equivalence.figures import figures

        return figures(rows, trajectories)
