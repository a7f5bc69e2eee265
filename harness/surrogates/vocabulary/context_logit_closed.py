"""`context-logit-closed`: the same logit restricted to the tokens of the context, as the paper's chain is."""

from __future__ import annotations

from harness.core.registry import register
from harness.surrogates.vocabulary.context_logit import ContextLogitSurrogate


@register.surrogate(
    "context-logit-closed",
    of="vocabulary",
    sees=("counts", "query", "order"),
    parameters="one or two a statistic",
    rollout=True,
    rung=90,
    about="the same restricted to the context: with counts alone, the paper's chain with a weighed P",
    cost="seconds",
    source="Ildiz et al. 2024, for counts; this project",
)
class ClosedContextLogit(ContextLogitSurrogate):
    """Fitted to the law restricted to the context: its loss is the divergence over tokens of the context.

    Args:
        statistics, base, ridge: as of `ContextLogitSurrogate`.
    """

    closed = True
