"""The experiment `depth`: what it needs, and where its parts are."""

from __future__ import annotations

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment


@register.experiment(
    "depth",
    label="Depth",
    question="Does a chain explain models of several layers less than models of one?",
    order=115,
    cost="half an hour",
    source="this project",
)
class DepthExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "Depth"
