"""The experiment `heads`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.core.errors import UsageError
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
    "heads",
    label="Attention heads",
    question="How much of what attention heads do is a context-conditioned Markov chain?",
    order=20,
    cost="about an hour for 270 heads on one core",
    source="this project",
)
class HeadsExperiment(Experiment):
    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        from harness.experiments.heads.settings import Heads

        return Heads

    def needs(self, settings: Any) -> Needs:
        return Needs(models=True, prompts=settings.texts is None, heads=True, prompts_or="`texts` of its own")

    def documents(self, settings: Any, loaded: LoadedConfig) -> list[Prompt]:
        from harness.data.prompts import read_given

        return [] if settings.texts is None else read_given(loaded, settings.texts, "experiments.heads.texts")

    def check_config(self, settings: Any, model: Any) -> None:
        for layer in () if settings.layers == "all" else settings.layers:
            if not 0 <= layer < model.layers:
                raise UsageError(
                    f"experiments.heads.layers: {model.name!r} has layers 0 to {model.layers - 1}, not {layer}"
                )

    def check(self, settings: Any, model: Any, weights: Any) -> None:
        from harness.attention import eager
        from harness.models import loading

        config = loading.load_config(model.path)
        longest = min(settings.max_length, loading.context_window(config) or settings.max_length)
        eager.check_rotation(config, model.name, longest)
        eager.check_masks(weights, model.name, longest)

    def plan(self, request: Request) -> list[Unit]:
        from harness.experiments.heads.plan import plan

        return plan(request)

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        from harness.experiments.heads.tables import tables

        return tables(rows)

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        from harness.experiments.heads.answers import answers

        return answers(rows)

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        from harness.experiments.heads.figures import figures

        return figures(rows, trajectories)
