"""The experiment `trajectory`: what it needs, and where its parts are."""

from __future__ import annotations

from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment


@register.experiment(
    "trajectory",
    label="Trajectory",
    question="What does one long trajectory do, and what does it teach?",
    order=80,
    cost="a minute",
    source="Ildiz et al. 2024",
)
class TrajectoryExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "Trajectory"
