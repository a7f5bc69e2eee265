"""The experiment `heads`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment, Needs

if TYPE_CHECKING:
    from harness.config.load import LoadedConfig
    from harness.data.splits import Prompt


@register.experiment(
    "heads",
    label="Attention heads",
    question="How much of what attention heads do is a context-conditioned Markov chain?",
    order=20,
    cost="about an hour for 270 heads on one core",
    source="this project",
)
class HeadsExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "Heads"

    def needs(self, settings: Any) -> Needs:
        return Needs(models=True, prompts=settings.texts is None, heads=True, prompts_or="`texts` of its own")

    def documents(self, settings: Any, loaded: LoadedConfig) -> list[Prompt]:
        from harness.data.prompts import read_given

        return [] if settings.texts is None else read_given(loaded, settings.texts, "experiments.heads.texts")

    def check_config(self, settings: Any, model: Any) -> None:
        from harness.experiments._shared.settings import check_layers

        check_layers(settings.layers, model, "heads")

    def check(self, settings: Any, model: Any, weights: Any) -> None:
        from harness.attention import eager
        from harness.models import loading

        config = loading.load_config(model.path)
        longest = min(settings.max_length, loading.context_window(config) or settings.max_length)
        eager.check_rotation(config, model.name, longest)
        eager.check_masks(weights, model.name, longest)
