"""The experiment `count-ablation`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.core.registry import register
from harness.experiments.experiment import Experiment, Needs, Request

if TYPE_CHECKING:
    import pandas as pd

    from harness.config.load import LoadedConfig
    from harness.config.strict import Strict
    from harness.core.records import Answer, Figure, Table
    from harness.data.prompts import Prompt
    from harness.runs.units import Unit


@register.experiment(
    "count-ablation",
    label="Count ablation",
    question="Does the count of a token cause its repetition?",
    order=40,
    cost="minutes a condition",
    source="this project",
)
class CountAblationExperiment(Experiment):
    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        from harness.experiments.count_ablation.settings import CountAblation

        return CountAblation

    def needs(self, settings: Any) -> Needs:
        return Needs(models=True, prompts=True, heads=True)

    def documents(self, settings: Any, loaded: LoadedConfig) -> list[Prompt]:
        from harness.data.prompts import read_prose

        return read_prose(loaded, settings.prose, "experiments.count-ablation.prose")

    def check(self, settings: Any, model: Any, weights: Any) -> None:
        from harness.attention.count_ablation import check_reach

        check_reach(weights)

    def plan(self, request: Request) -> list[Unit]:
        from harness.experiments.count_ablation.plan import plan

        return plan(request)

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        from harness.experiments.count_ablation.tables import tables

        return tables(rows)

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        from harness.experiments.count_ablation.answers import answers

        return answers(rows)

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        from harness.experiments.count_ablation.figures import figures

        return figures(rows, trajectories)
