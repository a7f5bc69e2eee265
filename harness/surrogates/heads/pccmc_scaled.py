"""`pccmc-scaled`: the position-aware chain of the weights, with fitted scale, places, distances and odds of the sink.

What is fitted are 49 numbers a head, and the odds of the first position by query token; what pairs of tokens get is
read off the weights alone. A fit takes seconds a layer where that of `pccmc-fit` takes minutes.
"""

from __future__ import annotations

from harness.core.registry import register
from harness.surrogates.heads.pccmc_fit import STEPS, PCCMCFit


@register.surrogate(
    "pccmc-scaled",
    of="heads",
    sees=("counts", "query", "distance", "weights"),
    parameters="49",
    rung=85,
    needs=("heads",),
    prior="pccmc-weights",
    about="pccmc-weights with a fitted scale, places and distances",
    cost="grows with the squared length of the training texts",
    source="this project",
)
class PCCMCScaled(PCCMCFit):
    """Position-aware weights with a fitted scale, places and distances, or as they are, whichever is better.

    Args:
        heads, seed, folds, tol, threads: as of `PCCMCFit`.
    """

    steps = STEPS[:1]
