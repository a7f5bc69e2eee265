"""The experiment `count-ablation`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment, Needs

if TYPE_CHECKING:
    from harness.config.load import LoadedConfig
    from harness.data.splits import Prompt


@register.experiment(
    "count-ablation",
    label="Count ablation",
    question="Does the count of a token cause its repetition?",
    order=40,
    cost="minutes a condition",
    source="this project",
)
class CountAblationExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "CountAblation"

    def needs(self, settings: Any) -> Needs:
        return Needs(models=True, prompts=True, heads=True)

    def documents(self, settings: Any, loaded: LoadedConfig) -> list[Prompt]:
        from harness.data.prompts import read_prose

        return read_prose(loaded, settings.prose, "experiments.count-ablation.prose")

    def check(self, settings: Any, model: Any, weights: Any) -> None:
        from harness.attention.count_ablation import check_reach

        check_reach(weights)
