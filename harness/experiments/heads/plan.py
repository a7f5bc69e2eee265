"""The units of the experiment `heads`: groups of layers, after the units that make the texts."""

from __future__ import annotations

from harness.core import registry
from harness.experiments._shared.continuations import Model, local, real_units, smoke_length
from harness.experiments._shared.given_texts import given_unit
from harness.experiments.experiment import Request
from harness.runs.units import Unit


def plan(request: Request) -> list[Unit]:
    """One unit per model and group of layers, after the units that make the texts."""
    return [unit for model in request.models for unit in _of_model(request, model)]


def _of_model(request: Request, model: Model) -> list[Unit]:
    config, settings, device = request.config, request.settings, request.device
    if settings.texts is not None:
        longest = smoke_length(config, settings.max_length)
        texts = [given_unit(model, request.documents, settings.texts, longest, device)]
    else:
        strategies = config.generation.strategies
        texts = [unit for s in strategies for unit in real_units(config, model, request.prompts, s, device)]
    layers = every_layer(model, config.limit) if settings.layers == "all" else list(settings.layers)
    size = settings.layers_per_unit
    groups = [layers[first : first + size] for first in range(0, len(layers), size)]
    known = registry.surrogates("heads")
    priors = [known[name].prior for name in settings.surrogates if known[name].prior in known]
    used = tuple(known[name] for name in dict.fromkeys([*settings.surrogates, *priors]))
    return texts + [
        Unit(
            "harness.experiments.heads.units:layers",
            f"{model.name}: heads of layers {', '.join(map(str, group))}",
            {
                **model.settings(),
                "layers": group,
                "surrogates": list(settings.surrogates),
                "max_length": settings.max_length,
                "seed": config.seed,
            },
            tuple(texts),
            local(model, device),
            config.threads,
            uses=used,
        )
        for group in groups
    ]


def every_layer(model: Model, limit: int | None) -> list[int]:
    """All layers; in a smoke run with `limit` N about 2 N of them, evenly spread, the first among them."""
    return list(range(0, model.layers, 1 if limit is None else max(1, model.layers // (2 * limit))))
