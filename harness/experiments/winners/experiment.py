"""The experiment `winners`: what it needs, and where its parts are."""

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
    "winners",
    label="Winners",
    question="Which tokens win, and does theory predict them?",
    order=90,
    cost="three minutes",
    source="Ildiz et al. 2024",
)
class WinnersExperiment(Experiment):
    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        from harness.experiments.winners.settings import WinnerSets

        return WinnerSets

    def needs(self, settings: Any) -> Needs:
        heads = "heads" in settings.families
        return Needs(models=heads, heads=heads)

    def plan(self, request: Request) -> list[Unit]:
        from harness.experiments.winners.plan import plan

        return plan(request)

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        from harness.experiments.winners.tables import tables

        return tables(rows)

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        from harness.experiments.winners.answers import answers

        return answers(rows)

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        from harness.experiments.winners.figures import figures

        return figures(rows, trajectories)
