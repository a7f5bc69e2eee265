"""The experiment `equivalence`: what it needs, and where its parts are."""

from __future__ import annotations

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment


@register.experiment(
    "equivalence",
    label="Equivalence",
    question="Does one attention layer sample from the chain read off its weights?",
    order=50,
    cost="a minute",
    source="Ildiz et al. 2024",
)
class EquivalenceExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "Equivalence"
