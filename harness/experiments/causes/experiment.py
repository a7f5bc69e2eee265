"""The experiment `causes`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment, Needs

if TYPE_CHECKING:
    from harness.config.load import LoadedConfig
    from harness.data.splits import Prompt


@register.experiment(
    "causes",
    label="What causes repetition",
    question="What causes repetition, at matched loss?",
    order=45,
    cost="minutes an intervention and level",
    source="this project",
)
class CausesExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "Causes"

    def needs(self, settings: Any) -> Needs:
        return Needs(models=True, prompts=True, heads=True)

    def documents(self, settings: Any, loaded: LoadedConfig) -> list[Prompt]:
        from harness.data.prompts import read_prose

        return [] if settings.texts is None else read_prose(loaded, settings.texts, "experiments.causes.texts")

    def check_config(self, settings: Any, model: Any) -> None:
        from harness.experiments._shared.settings import check_layers

        check_layers(settings.layers, model, "causes")

    def check(self, settings: Any, model: Any, weights: Any) -> None:
        from harness.attention.interventions import mlp_modules
        from harness.attention.replacing import check_reach

        check_reach(weights)
        if "mlp-noise" in settings.interventions:
            mlp_modules(weights)
