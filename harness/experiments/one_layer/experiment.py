"""The experiment `one-layer`: what it needs, and where its parts are."""

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
    "one-layer",
    label="One-layer model",
    question="Is a trained one-layer attention model the chain read off its weights, and how much does it learn?",
    order=10,
    cost="seconds a repetition",
    source="Ildiz et al. 2024",
)
class OneLayerExperiment(Experiment):
    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        from harness.experiments.one_layer.settings import OneLayer

        return OneLayer

    def plan(self, request: Request) -> list[Unit]:
        from harness.experiments.one_layer.plan import plan

        return plan(request)

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        from harness.experiments.one_layer.tables import tables

        return tables(rows)

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        from harness.experiments.one_layer.answers import answers

        return answers(rows)

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        from harness.experiments.one_layer.figures import figures

        return figures(rows, trajectories)
