"""The experiment `winners`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import Any

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment, Needs


@register.experiment(
    "winners",
    label="Winners",
    question="Which tokens win, and does theory predict them?",
    order=90,
    cost="three minutes",
    source="Ildiz et al. 2024",
)
class WinnersExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "WinnerSets"

    def needs(self, settings: Any) -> Needs:
        heads = "heads" in settings.families
        return Needs(models=heads, heads=heads)
