"""The experiment `repetition`: what it needs, and where its parts are."""

from __future__ import annotations

from typing import Any

from harness.config.decoding import strategy_name, strategy_options
from harness.core.errors import UsageError
from harness.core.registry import register
from harness.experiments.experiment import FolderExperiment, Needs

DECODED = frozenset({"temperature", "top_k", "top_p", "min_p"})
"""Options of strategies whose law after a context is one distribution, whatever came before."""


@register.experiment(
    "repetition",
    label="Repetition",
    question="Which statistics of its context make a model repeat itself?",
    order=35,
    cost="a minute a strategy and fold, after the continuations",
    source="this project; the chain is that of Ildiz et al. 2024",
)
class RepetitionExperiment(FolderExperiment):
    """See the modules beside this one."""

    settings_class = "Repetition"
    cross_fits = True

    def needs(self, settings: Any) -> Needs:
        return Needs(models=True, prompts=True)

    def check(self, settings: Any, model: Any, weights: Any) -> None:
        """Refuse base transitions of a model that rules tokens out."""
        from harness.experiments.repetition.settings import READ_OFF
        from harness.models.base_reading import NO_BASE, rules_out

        if settings.base in READ_OFF:
            ids = model.encode(settings.neutral[0], f"the neutral context {settings.neutral[0]!r}").whole
            if rules_out(weights, ids):
                raise UsageError(f"experiment repetition: model {model.name!r}: {NO_BASE}")

    def check_strategies(self, strategies: Any) -> None:
        """Refuse strategies whose law depends on more than the model's distribution after the context.

        Raises:
            UsageError: names the strategy.
        """
        for strategy in strategies:
            if wrong := set(strategy_options(strategy)) - DECODED:
                raise UsageError(
                    f"experiment repetition: strategy {strategy_name(strategy)} has {', '.join(sorted(wrong))}, which "
                    "does not act on one distribution at a time; use greedy, temperature, top_k, top_p or min_p"
                )
