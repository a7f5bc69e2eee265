"""The experiment `theory-gap`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import Any

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment, Needs


@register.experiment(
    "theory-gap",
    label="Theory gap",
    question="How far from the assumptions of the theory does a chain still explain a model?",
    order=110,
    cost="four minutes",
    source="Ildiz et al. 2024",
)
class TheoryGapExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "TheoryGap"

    def needs(self, settings: Any) -> Needs:
        text = "text" in settings.data
        return Needs(models=text and settings.streams == "generations", prompts=text)
