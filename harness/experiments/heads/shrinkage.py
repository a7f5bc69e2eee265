"""Is a fitted surrogate of heads worse than the one it is shrunk to? It must not be, on texts that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.once import among, once
from harness.core.records import Interval
from harness.stats.pooling import SEED, Observed, Sample, difference
from harness.stats.significance import holm, sign_flip_p

LEVEL = 0.05


@dataclass(frozen=True)
class Shrinkage:
    """A fit against its prior, over heads.

    Attributes:
        fit, prior: the two surrogates.
        heads: how many were compared.
        prompts: how many held-out prompts the comparison of a head has at most.
        worse: how many heads have the larger kl with the fit, in the mean over held-out prompts.
        significant: how many of these after Holm's correction for all heads, at .05.
        head: layer and head of the worst.
        difference: kl of the fit less kl of the prior at the worst head, paired by prompt.
        overall: the same over all heads together.
    """

    fit: str
    prior: str
    heads: int
    prompts: int
    worse: int
    significant: int
    head: tuple[int, int]
    difference: Interval
    overall: Interval

    @property
    def testable(self) -> bool:
        """Are there prompts enough for the smallest p-value that the test has to be significant?"""
        return 2.0 ** (1 - self.prompts) <= LEVEL / self.heads

    @property
    def verdict(self) -> str:
        """`holds` where no head is worse beyond chance, and one could have been found to be."""
        if self.significant:
            return "does not hold"
        return "holds" if self.testable else "too few prompts"


def fits() -> dict[str, str]:
    """Surrogates of heads that are shrunk to another one, which they declare: name -> the other."""
    return {name: one.prior for name, one in registry.surrogates("heads").items() if one.prior}


@once
def shrinkages(rows: pd.DataFrame) -> dict[str, dict[str, Shrinkage]]:
    """Model -> fit -> its comparison, of every fit that was run beside its prior.

    Args:
        rows: of the experiment `heads`.
    """
    found: dict[str, dict[str, Shrinkage]] = {}
    for model in rows["model"].dropna().unique():
        of_model = among(rows, "model", str(model))
        own = rows if of_model.all() else rows[of_model]
        made = {fit: shrinkage(own, fit) for fit in fits()}
        found[str(model)] = {fit: one for fit, one in made.items() if one is not None}
    return found


def shrinkage(rows: pd.DataFrame, fit: str) -> Shrinkage | None:
    """Compare a fit with its prior on the held-out prompts that both have, head by head.

    Args:
        rows: of one model, experiment `heads`.
        fit: one of `fits()`.

    Returns:
        None where the rows do not hold both.
    """
    prior = fits()[fit]
    held_out = among(rows, "metric", "kl") & among(rows, "split", "held_out")
    kept = rows[held_out & among(rows, "surrogate", fit, prior)]
    seen = Observed(kept)
    samples: dict[tuple[int, int], dict[str, Sample]] = {}
    for (layer, head, name), sample in seen.cells(("layer", "head", "surrogate")):
        samples.setdefault((int(str(layer)), int(str(head))), {})[str(name)] = sample
    pairs = {place: (of[fit], of[prior]) for place, of in sorted(samples.items()) if {fit, prior} <= set(of)}
    differences = {place: d for place, (a, b) in pairs.items() if len(d := _by_prompt(a, b))}
    if not differences:
        return None
    means = {place: float(found.mean()) for place, found in differences.items()}
    p = np.array([sign_flip_p(d, SEED) if means[place] > 0 else 1.0 for place, d in differences.items()])
    worse = np.array([mean > 0 for mean in means.values()])
    worst = max(means, key=lambda place: means[place])
    overall = {str(key[0]): sample for key, sample in seen.cells(("surrogate",))}
    return Shrinkage(
        fit,
        prior,
        heads=len(means),
        prompts=max(map(len, differences.values())),
        worse=int(worse.sum()),
        significant=int((worse & (holm(p) <= LEVEL)).sum()),
        head=worst,
        difference=difference(*pairs[worst], "kl", paired=True).interval,
        overall=difference(overall[fit], overall[prior], "kl", paired=True).interval,
    )


def _by_prompt(a: Sample, b: Sample) -> np.ndarray:
    """[n] a - b of the prompts that both have; the figures are means."""
    if a.pooled is None or b.pooled is None:
        return np.zeros(0)
    common = a.units.intersection(b.units)
    x, y = a.at(common), b.at(common)
    return np.zeros(0) if x is None or y is None else x.numerators - y.numerators
