"""The paper's claims as experiments: each file plans units and, at the end, one that pools them and states verdicts."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

from harness.runs.units import Unit


def plan(config: Any, settings: Any, models: list[Any], prompts: list[Any], device: str) -> list[Unit]:
    """The units of one of the paper's experiments.

    Args:
        config: the whole config.
        settings: of the experiment; its `kind` names the file.
        models, prompts, device: for experiments that look at a language model or at texts.
    """
    package = f"harness.experiments.{settings.kind.replace('-', '_')}."
    module = importlib.import_module(f"{package}units")
    extra = {"winners": (models, device), "theory-gap": (models, prompts, device)}.get(settings.kind, ())
    units: list[Unit] = module.plan(config, settings.limited(config.limit), *extra)
    return [replace(unit, threads=1) if unit.task.startswith(package) else unit for unit in units]
