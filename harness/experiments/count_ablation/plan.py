"""The units of the experiment `count-ablation`: texts, a ranking of heads, and one unit per condition."""

from __future__ import annotations

from typing import Any

from harness.config.decoding import Sampling
from harness.core.errors import UsageError
from harness.experiments._shared.continuations import (
    Model,
    continuation_unit,
    local,
    prompt_settings,
    smoke_length,
    tokens_of,
)
from harness.experiments._shared.given_texts import texts_unit
from harness.experiments.count_ablation.settings import CountAblation
from harness.experiments.experiment import Request
from harness.runs.units import Unit

TASK = "harness.experiments.count_ablation.units"


def conditions(settings: CountAblation, limit: int | None) -> list[dict[str, Any]]:
    """What is done to the model, one mapping each; the first is nothing.

    Strengths apply to all heads; parts of the model lose the count at the largest of them. A smoke run with `limit` N
    takes at most N draws, and of strengths and penalties the N strongest.
    """
    strengths, penalties = sorted(settings.strengths), sorted(settings.repetition_penalties)
    most, draws = strengths[-1], settings.random_draws
    if limit is not None:
        strengths, penalties, draws = strengths[-limit:], penalties[-limit:], min(draws, limit)
    made: list[dict[str, Any]] = [{"ablation": "none"}]
    made += [{"ablation": "all", "strength": strength} for strength in strengths]
    made += [{"ablation": part, "strength": most} for part in ("first-half", "second-half", "best-heads")]
    made += [{"ablation": "random-heads", "strength": most, "draw": draw} for draw in range(draws)]
    made += [{"repetition_penalty": penalty} for penalty in penalties]
    made += [{"no_repeat_ngram": n} for n in settings.no_repeat_ngrams]
    return made


def plan(request: Request) -> list[Unit]:
    """The model's own texts and prose, the ranking of heads on the former, then one unit per condition."""
    if request.config.generation.use_model_defaults:
        raise UsageError(
            "generation.use_model_defaults: count-ablation has decoding strategies of its own; set it false, or run "
            "the other experiments in a config of their own"
        )
    return [unit for model in request.models for unit in _of_model(request, model)]


def _of_model(request: Request, model: Model) -> list[Unit]:
    config, settings, device = request.config, request.settings, request.device
    training = [prompt for prompt in request.prompts if prompt.split == "train"]
    held_out = [prompt for prompt in request.prompts if prompt.split == "held_out"]
    greedy = continuation_unit(config, model, training, "greedy", 0, device)
    sampled = continuation_unit(config, model, held_out, Sampling(temperature=1.0), 0, device)
    shared = {**model.settings(), "seed": config.seed, "heads": settings.heads}
    where = local(model, device)
    ranking = Unit(
        f"{TASK}:rank", f"{model.name}: ranking heads by their chains", shared, (greedy,), where, config.threads
    )
    prose = _prose_unit(request, model)
    units = [greedy, sampled, ranking, prose]
    for condition in conditions(settings, config.limit):
        name = ", ".join(f"{key} {value}" for key, value in condition.items())
        about = {
            **shared,
            "condition": condition,
            "prompts": [prompt_settings(model, prompt) for prompt in held_out],
            "max_length": settings.max_length,
            "max_new_tokens": smoke_length(config, config.generation.max_new_tokens),
            "batch_size": config.generation.batch_size,
            "ignore_eos": config.generation.ignore_eos,
        }
        given, needs = {**where, "tokens": tokens_of(model, held_out)}, (ranking, sampled, prose)
        units.append(Unit(f"{TASK}:measure", f"{model.name}: {name}", about, needs, given, config.threads))
    return units


def _prose_unit(request: Request, model: Model) -> Unit:
    """The unit that holds the texts that the loss is measured on, as far as it is."""
    where, longest = "experiments.count-ablation.prose: text", request.settings.max_length
    pieces = []
    for text in request.documents[: request.config.limit]:
        ids = model.encode(text.text, f"{where} {text.id!r}").whole[:longest]
        pieces.append({"document": text.id, "split": "held_out", "piece": 0, "tokens": ids})
    model.report("texts of prose")
    return texts_unit(model, pieces, f"{len(pieces)} texts of prose", longest, request.device)
