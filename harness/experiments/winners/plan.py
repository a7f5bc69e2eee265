"""The plan of `winners`: which units of work a config becomes."""

from __future__ import annotations

from harness.core.errors import UsageError
from harness.experiments._shared.claims import repetitions
from harness.experiments._shared.continuations import Model, local
from harness.experiments._shared.plans import on_one_thread
from harness.experiments.experiment import Request
from harness.runs.units import Unit


def plan(request: Request) -> list[Unit]:
    """One unit per family, number of tokens and repetition; one per repetition for finite windows; one to pool them.

    Raises:
        UsageError: the model has fewer tokens than a chain of its heads needs.
    """
    config, models = request.config, request.models
    settings = request.settings.limited(config.limit)
    module = f"{__package__}.units"
    total = repetitions(config, settings.repetitions)
    shared = {
        "starts": list(settings.starts),
        "paths": settings.paths,
        "horizon": settings.horizon,
        "seed": config.seed,
    }
    units = []
    if "heads" in settings.families:
        _check_size(models[0], max(settings.vocab_sizes))
    for family in settings.families:
        of_model = models[0].settings() if family == "heads" else {}
        where = local(models[0], request.device) if family == "heads" else {}
        for K in settings.vocab_sizes:
            units += [
                Unit(
                    f"{module}:repetition",
                    f"winners, {family}, K = {K}, repetition {index + 1} of {total}",
                    {**shared, **of_model, "family": family, "K": K, "repetition": index},
                    local=where,
                )
                for index in range(total)
            ]
    if settings.windows:
        units += [
            Unit(
                f"{module}:absorption",
                f"winners, finite windows, repetition {index + 1} of {total}",
                {**shared, "windows": list(settings.windows), "repetition": index},
            )
            for index in range(total)
        ]
    pool = Unit(f"{module}:pool", "winners: pooling", {"seed": config.seed}, tuple(units))
    return on_one_thread([*units, pool], __package__)


def _check_size(model: Model, K: int) -> None:
    from harness.models import loading

    size = int(loading.load_config(model.path).vocab_size)
    if size < K:
        raise UsageError(
            f"experiments.winners.vocab_sizes: {model.name!r} has {size} tokens, so its heads give no chain of {K}; "
            "leave that size or the family 'heads' out"
        )
