"""The experiment `self-reinforcement`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import Any

from harness.core.errors import UsageError
from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment, Needs


@register.experiment(
    "self-reinforcement",
    label="Self-reinforcement",
    question="Does the probability of a sentence rise with the number of its repetitions, as no closed chain's does?",
    order=37,
    cost="about 15 minutes on two cores",
    source="Xu et al., Learning to Break the Loop, 2022",
)
class SelfReinforcementExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "SelfReinforcement"

    def needs(self, settings: Any) -> Needs:
        return Needs(models=True, prompts=True, heads=bool(settings.heads))

    def check_config(self, settings: Any, model: Any) -> None:
        """Refuse texts that are longer than the window of the model."""
        from harness.models import loading

        window = loading.context_window(loading.load_config(model.path))
        longest = settings.longest + 1
        if window is not None and longest > window:
            raise UsageError(
                f"experiments.self-reinforcement: {settings.repetitions} repetitions and one more of {settings.length} "
                f"tokens need {longest} tokens; {model.name!r} reads {window}"
            )

    def check(self, settings: Any, model: Any, weights: Any) -> None:
        """Refuse base transitions of a model that rules tokens out, and a model whose heads cannot be replaced."""
        from harness.attention.replacing import check_reach
        from harness.models.base_reading import NO_BASE, rules_out

        if settings.heads:
            check_reach(weights)
        if settings.surrogates:
            ids = model.encode(settings.neutral, f"the neutral context {settings.neutral!r}").whole
            if rules_out(weights, ids):
                said = NO_BASE.partition(";")[0]
                raise UsageError(f"experiment self-reinforcement: model {model.name!r}: {said}; set surrogates: []")
