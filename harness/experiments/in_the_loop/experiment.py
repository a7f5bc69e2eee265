"""The experiment `in-the-loop`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import Any

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment, Needs


@register.experiment(
    "in-the-loop",
    label="Heads replaced while the model runs",
    question="How many heads can be context-conditioned Markov chains while the model runs?",
    order=25,
    cost="about an hour for 270 heads on two cores",
    source="this project",
)
class InTheLoopExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "InTheLoop"

    def needs(self, settings: Any) -> Needs:
        return Needs(models=True, prompts=True, heads=True)

    def check_config(self, settings: Any, model: Any) -> None:
        from harness.experiments._shared.settings import check_layers

        check_layers(settings.layers, model, "in-the-loop")

    def check(self, settings: Any, model: Any, weights: Any) -> None:
        from harness.attention import eager
        from harness.attention.replacing import check_reach
        from harness.models import loading

        config = loading.load_config(model.path)
        longest = min(settings.max_length, loading.context_window(config) or settings.max_length)
        eager.check_rotation(config, model.name, longest)
        eager.check_masks(weights, model.name, longest)
        check_reach(weights)
