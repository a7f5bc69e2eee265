"""The experiment `sample-complexity`: what it needs, and where its parts are."""

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
    "sample-complexity",
    label="Sample complexity",
    question="How many observations does learning the chain take?",
    order=70,
    cost="two minutes",
    source="Ildiz et al. 2024",
)
class SampleComplexityExperiment(Experiment):
    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        from harness.experiments.sample_complexity.settings import SampleComplexity

        return SampleComplexity

    def plan(self, request: Request) -> list[Unit]:
        from harness.experiments.sample_complexity.plan import plan

        return plan(request)

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        from harness.experiments.sample_complexity.tables import tables

        return tables(rows)

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        from harness.experiments.sample_complexity.answers import answers

        return answers(rows)

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        from harness.experiments.sample_complexity.figures import figures

        return figures(rows, trajectories)
