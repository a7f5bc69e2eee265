"""The experiment `sample-complexity`: what it needs, and where its parts are."""

from __future__ import annotations

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment


@register.experiment(
    "sample-complexity",
    label="Sample complexity",
    question="How many observations does learning the chain take?",
    order=70,
    cost="two minutes",
    source="Ildiz et al. 2024",
)
class SampleComplexityExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "SampleComplexity"
