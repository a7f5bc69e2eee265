"""The experiment `generation`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import Any

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment, Needs


@register.experiment(
    "generation",
    label="Generation",
    question="Do chains fitted to a model repeat what the model repeats?",
    order=30,
    cost="minutes a strategy",
    source="this project",
)
class GenerationExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "GenerationExperiment"

    def needs(self, settings: Any) -> Needs:
        from harness.core.registry import surrogates

        known = surrogates("next-token")
        return Needs(
            models=True, prompts=True, heads=any("chains" in known[name].needs for name in settings.surrogates)
        )
