"""The experiment `positions`: what it needs, and where its parts are."""

from __future__ import annotations

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment


@register.experiment(
    "positions",
    label="Positions",
    question="How do positions act on predictions and on winners?",
    order=100,
    cost="three minutes",
    source="Ildiz et al. 2024",
)
class PositionsExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "Positions"
