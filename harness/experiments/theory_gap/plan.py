"""The plan of `theory-gap`: which units of work a config becomes."""

from __future__ import annotations

from typing import Any

from harness.core import registry
from harness.experiments._shared.claims import repetitions
from harness.experiments._shared.continuations import real_units
from harness.experiments._shared.plans import on_one_thread
from harness.experiments.experiment import Request
from harness.runs.units import Unit


def plan(request: Request) -> list[Unit]:
    """The texts and their characters first, then one unit per kind of data, rung and repetition, and one to pool."""
    config = request.config
    settings = request.settings.limited(config.limit)
    module = f"{__package__}.units"
    total = repetitions(config, settings.repetitions)
    shared = settings.model_dump(mode="json", exclude={"repetitions", "data", "rungs", "streams", "characters"})
    texts = _streams(request, settings) if "text" in settings.data else []
    known = registry.surrogates("next-token")
    rungs = [
        Unit(
            f"{module}:rung",
            f"theory-gap, {data}, {rung}, repetition {index + 1} of {total}",
            {**shared, "data": data, "rung": rung, "seed": config.seed, "repetition": index},
            (texts[-1],) if data == "text" else (),
            uses=tuple(known[name] for name in settings.surrogates),
        )
        for data in settings.data
        for rung in settings.rungs
        for index in range(total)
    ]
    pooling = {"seed": config.seed, "data": list(settings.data), "rungs": list(settings.rungs)}
    pool = Unit(f"{module}:pool", "theory-gap: pooling", pooling, tuple(rungs))
    return on_one_thread([*texts, *rungs, pool], __package__)


def _streams(request: Request, settings: Any) -> list[Unit]:
    """The model's continuations of the prompts, where they are wanted, and the unit that makes characters of them."""
    made: list[Unit] = []
    if settings.streams == "generations":
        for strategy in request.config.generation.strategies:
            made += real_units(request.config, request.models[0], request.prompts, strategy, request.device)
    about = {"prompts": [prompt.as_dict() for prompt in request.prompts], "characters": settings.characters}
    task = f"{__package__}.streams:characters"
    return [*made, Unit(task, "theory-gap: streams of characters", about, tuple(made))]
