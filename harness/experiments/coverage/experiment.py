"""The experiment `coverage`: what it needs, and where its parts are."""

from __future__ import annotations

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment


@register.experiment(
    "coverage",
    label="Coverage",
    question="Which prompts determine the chain?",
    order=60,
    cost="two minutes",
    source="Ildiz et al. 2024",
)
class CoverageExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "Coverage"
