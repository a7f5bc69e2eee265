"""The experiment `theory-gap`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.core.registry import register
from harness.experiments.experiment import Experiment, Needs, Request

if TYPE_CHECKING:
    import pandas as pd

    from harness.config.strict import Strict
    from harness.core.records import Answer, Figure, Table
    from harness.runs.units import Unit


@register.experiment(
    "theory-gap",
    label="Theory gap",
    question="How far from the assumptions of the theory does a chain still explain a model?",
    order=110,
    cost="four minutes",
    source="Ildiz et al. 2024",
)
class TheoryGapExperiment(Experiment):
    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        from harness.experiments.theory_gap.settings import TheoryGap

        return TheoryGap

    def needs(self, settings: Any) -> Needs:
        text = "text" in settings.data
        return Needs(models=text and settings.streams == "generations", prompts=text)

    def plan(self, request: Request) -> list[Unit]:
        from harness.experiments.theory_gap.plan import plan

        return plan(request)

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        from harness.experiments.theory_gap.tables import tables

        return tables(rows)

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        from harness.experiments.theory_gap.answers import answers

        return answers(rows)

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        from harness.experiments.theory_gap.figures import figures

        return figures(rows, trajectories)
