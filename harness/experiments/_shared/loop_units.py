"""The units that fit what takes the place of heads while a model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.experiments._shared.continuations import Model, local
from harness.experiments._shared.loop_rules import used
from harness.runs.units import Unit


def fit_units(
    model: Model,
    layers: Sequence[int],
    together: int,
    settings: dict[str, Any],
    texts: Sequence[Unit],
    *,
    device: str,
    threads: int,
) -> list[Unit]:
    """The units that fit surrogates of heads to training texts, some layers each.

    Args:
        model: whose heads.
        layers: which may be replaced.
        together: how many layers a unit fits.
        settings: of all of them, with experiment, surrogates, max_length, longest, first_position, choosing and seed.
        texts: units of continuations.
        device: of the model.
        threads: of each unit.
    """
    groups = [list(layers[first : first + together]) for first in range(0, len(layers), together)]
    return [
        Unit(
            "harness.experiments._shared.loop_fits:fit",
            f"{model.name}: chains of layers {', '.join(map(str, group))}",
            {**settings, "layers": group},
            tuple(texts),
            local(model, device),
            threads,
            uses=used(settings["surrogates"]),
        )
        for group in groups
    ]
