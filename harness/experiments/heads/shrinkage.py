"""Is a fitted surrogate of heads worse than the one it is shrunk to? It must not be, on texts that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.core.format import interval
from harness.core.records import Interval
from harness.experiments._shared.tables import SEED, Table
from harness.stats.intervals import paired_difference
from harness.stats.significance import holm, sign_flip_p

SHRUNK_TO = {"ccmc-fit": "ccmc-weights", "pccmc-fit": "pccmc-weights"}
LEVEL = 0.05


@dataclass(frozen=True)
class Shrinkage:
    """A fit against its prior, over heads.

    Attributes:
        heads: how many were compared.
        worse: how many of them have the larger kl with the fit, in the mean over held-out prompts.
        significant: how many of these after Holm's correction for all heads, at .05.
        head: layer and head of the worst.
        difference: kl of the fit less kl of the prior at the worst head, paired by prompt.
    """

    heads: int
    worse: int
    significant: int
    head: tuple[int, int]
    difference: Interval

    @property
    def verdict(self) -> str:
        """`holds` where no head is worse beyond chance."""
        return "holds" if self.significant == 0 else "does not hold"


def shrinkage(rows: pd.DataFrame, fit: str, seed: int) -> Shrinkage | None:
    """Compare a fit with its prior on the held-out prompts that both have, head by head.

    Args:
        rows: of one model, experiment `heads`.
        fit: a key of SHRUNK_TO.
        seed: of the tests.

    Returns:
        None where the rows do not hold both.
    """
    kept = rows[(rows["metric"] == "kl") & (rows["split"] == "held_out") & rows["value"].notna()]
    kept = kept.assign(value=kept["value"].astype(float))
    means = kept.groupby(["surrogate", "layer", "head", "prompt"])["value"].mean()
    present = means.index.get_level_values("surrogate")
    if fit not in present or SHRUNK_TO[fit] not in present:
        return None
    table = (means[fit] - means[SHRUNK_TO[fit]]).dropna().unstack("prompt")
    differences = [row[~np.isnan(row)] for row in table.to_numpy(dtype=float)]
    mean = np.array([row.mean() for row in differences])
    worse = mean > 0
    p = np.ones(len(mean))
    for index in np.flatnonzero(worse):
        p[index] = sign_flip_p(differences[index], seed)
    worst = int(mean.argmax())
    layer, head = table.index[worst]
    difference = paired_difference(differences[worst], np.zeros(len(differences[worst])), seed)
    significant = int((worse & (holm(p) <= LEVEL)).sum())
    return Shrinkage(len(mean), int(worse.sum()), significant, (int(layer), int(head)), difference)


def shrinkage_tables(rows: pd.DataFrame) -> list[Table]:
    """One table per model whose heads were fitted."""
    heads = rows[rows["experiment"] == "heads"]
    return [t for model in heads["model"].dropna().unique() for t in _table(heads[heads["model"] == model], str(model))]


def _table(rows: pd.DataFrame, model: str) -> list[Table]:
    found = {fit: shrinkage(rows, fit, SEED) for fit in SHRUNK_TO}
    body = [
        [
            fit,
            SHRUNK_TO[fit],
            str(s.heads),
            str(s.worse),
            str(s.significant),
            f"{s.head[0]}.{s.head[1]}: {interval(s.difference, signed=True)}",
            s.verdict,
        ]
        for fit, s in found.items()
        if s is not None
    ]
    note = (
        "kl on held-out prompts, fit less what it is shrunk to. Worse beyond chance: a sign-flip test over prompts, "
        "p <= .05 after Holm's correction for all heads; with few prompts it can find nothing. Interval: 95 %, "
        "bootstrap over prompts, not corrected."
    )
    header = ["surrogate", "shrunk to", "heads", "worse in the mean", "worse beyond chance", "worst head", "verdict"]
    return [Table(f"Heads of {model}: is any fit worse than what it is shrunk to?", header, body, note)] if body else []
