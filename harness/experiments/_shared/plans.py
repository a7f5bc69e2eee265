"""What the plans of the paper's experiments share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.runs.units import Unit


def on_one_thread(units: Iterable[Unit], package: str) -> list[Unit]:
    """The units, those of one package limited to one thread of torch: their matrices are too small for more.

    Args:
        units: in their order.
        package: name of the package whose units are limited, such as `harness.experiments.coverage`; the others, such
            as continuations of a language model, stay as they are.
    """
    return [replace(unit, threads=1) if unit.task.startswith(f"{package}.") else unit for unit in units]
