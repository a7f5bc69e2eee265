"""What a fold keeps of its fits of context-logit: weights and curvature, enough to fit all strategies together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.data.texts import FloatArray
from harness.runs.writing import write_atomic
from harness.surrogates.vocabulary.context_logit import ContextLogitSurrogate

FILE = "fits.json"


@dataclass(frozen=True)
class KeptFit:
    """One rung, fitted to the decoded law.

    Attributes:
        base: name of its base transitions: the neutral context that they were read off after.
        names: W names of the weights.
        weights: [W].
        curvature: [W, W] second derivatives of what was minimised, a sum over choices, at these weights.
        choices: how many there were.
    """

    base: str
    names: tuple[str, ...]
    weights: FloatArray
    curvature: FloatArray
    choices: int

    @classmethod
    def of(cls, fitted: ContextLogitSurrogate) -> KeptFit:
        """What is kept of a fit."""
        names = tuple(fitted.weights_)
        weights = np.array([fitted.weights_[name] for name in names])
        return cls(fitted.base, names, weights, fitted.curvature_, fitted.choices_)


def keep(folder: Path, fits: Mapping[str, KeptFit]) -> None:
    """Write the fits of a fold, by rung, into its folder."""
    found = {rung: {**asdict(fit), "weights": fit.weights.tolist(), "curvature": fit.curvature.tolist()}
             for rung, fit in fits.items()}  # fmt: skip
    write_atomic(folder / FILE, json.dumps(found).encode())


def kept(folder: Path) -> dict[str, KeptFit]:
    """Rung -> its fit, in the order of the ladder."""
    found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return {
        rung: KeptFit(
            one["base"], tuple(one["names"]), np.array(one["weights"]), np.array(one["curvature"]), one["choices"]
        )
        for rung, one in found.items()
    }
