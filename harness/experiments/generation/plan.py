"""The units of the experiment `generation`: one per strategy, after the units that make its texts."""

from __future__ import annotations

from harness.config.decoding import Strategy, has_one_continuation
from harness.core import registry
from harness.experiments._shared.continuations import Model, continuation_unit, local, real_units
from harness.experiments.experiment import Request
from harness.runs.units import Unit


def plan(request: Request) -> list[Unit]:
    """Per model and strategy: texts, with another seed of the held-out ones where it samples, and the surrogates."""
    strategies = request.config.generation.strategies
    return [unit for model in request.models for s in strategies for unit in _of_strategy(request, model, s)]


def _of_strategy(request: Request, model: Model, strategy: Strategy) -> list[Unit]:
    config, settings, device = request.config, request.settings, request.device
    held_out = [prompt for prompt in request.prompts if prompt.split == "held_out"]
    single = has_one_continuation(strategy)
    texts = real_units(config, model, request.prompts, strategy, device)
    if not single:
        texts.append(continuation_unit(config, model, held_out, strategy, config.generation.seeds, device))
    name = texts[0].settings["strategy"]
    known, measures = registry.surrogates("next-token"), registry.measures()
    about = {
        **model.settings(),
        "strategy": name,
        "temperature": texts[0].settings["temperature"],
        "options": texts[0].settings["options"],
        **{key: value for key, value in texts[0].settings.items() if key == "model_defaults"},
        "ignore_eos": config.generation.ignore_eos,
        "surrogates": list(settings.surrogates),
        "escape": settings.escape,
        "winners_at": list(settings.winners_at),
        "mean_field": settings.mean_field,
        "head_layers": settings.head_layers if settings.head_layers == "all" else list(settings.head_layers),
        "mixture_heads": settings.mixture_heads,
        "measures": list(settings.measures),
        "rollout_seeds": 1 if single else settings.rollout_seeds,
        "reseeded": None if single else config.generation.seeds,
        "seed": config.seed,
    }
    judged = Unit(
        "harness.experiments.generation.units:strategy",
        f"{model.name}: surrogates of generation, {name}",
        about,
        tuple(texts),
        local(model, device),
        config.threads,
        uses=(*(known[name] for name in settings.surrogates), *(measures[name] for name in settings.measures)),
    )
    return [*texts, judged]
