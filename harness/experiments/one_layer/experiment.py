"""The experiment `one-layer`: what it needs, and where its parts are."""

from __future__ import annotations

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment


@register.experiment(
    "one-layer",
    label="One-layer model",
    question="Is a trained one-layer attention model the chain read off its weights, and how much does it learn?",
    order=10,
    cost="seconds a repetition",
    source="Ildiz et al. 2024",
)
class OneLayerExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "OneLayer"
