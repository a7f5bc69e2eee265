"""The plan of one of the paper's experiments, by its kind."""

from __future__ import annotations

import importlib
from typing import Any

from harness.experiments.experiment import Request
from harness.runs.units import Unit


def plan(config: Any, settings: Any, models: list[Any], prompts: list[Any], device: str) -> list[Unit]:
    """The units of one of the paper's experiments.

    Args:
        config: the whole config.
        settings: of the experiment; its `kind` names the folder.
        models, prompts, device: for experiments that read a language model or texts.
    """
    module = importlib.import_module(f"harness.experiments.{settings.kind.replace('-', '_')}.plan")
    units: list[Unit] = module.plan(Request(config, settings, models, prompts, [], device))
    return units
