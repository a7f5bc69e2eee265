"""The experiment `generation`: what it needs, and where its parts are."""

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
    "generation",
    label="Generation",
    question="Do chains fitted to a model repeat what the model repeats?",
    order=30,
    cost="minutes a strategy",
    source="this project",
)
class GenerationExperiment(Experiment):
    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        from harness.experiments.generation.settings import GenerationExperiment

        return GenerationExperiment

    def needs(self, settings: Any) -> Needs:
        from harness.core.registry import surrogates

        known = surrogates("next-token")
        return Needs(
            models=True, prompts=True, heads=any("chains" in known[name].needs for name in settings.surrogates)
        )

    def plan(self, request: Request) -> list[Unit]:
        from harness.experiments.generation.plan import plan

        return plan(request)

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        from harness.experiments.generation.tables import tables

        return tables(rows)

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        from harness.experiments.generation.answers import answers

        return answers(rows)

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        from harness.experiments.generation.figures import figures

        return figures(rows, trajectories)
