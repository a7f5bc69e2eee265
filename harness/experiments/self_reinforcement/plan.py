"""The units of the experiment `self-reinforcement`: texts of the model, its curves, and those of surrogates."""

from __future__ import annotations

from typing import Any

from harness.config.decoding import Strategy, has_one_continuation, strategy_name
from harness.core import registry
from harness.core.hashing import canonical_hash
from harness.data.splits import Prompt
from harness.data.tokenisation import Encoded
from harness.experiments._shared.continuations import Model, continuation_unit, local, prompt_settings, smoke_length
from harness.experiments._shared.loop_rules import CONTROLS, LEADER, used
from harness.experiments._shared.loop_units import fit_units
from harness.experiments.experiment import Request
from harness.runs.units import Unit

ROOM = "harness.experiments.self_reinforcement"
GREEDY: Strategy = "greedy"


def plan(request: Request) -> list[Unit]:
    """Of every model: continuations, the model's curves, those of surrogates, those with heads replaced."""
    return [unit for model in request.models for unit in _of_model(request, model)]


def _of_model(request: Request, model: Model) -> list[Unit]:
    s = request.settings
    held_out = [prompt for prompt in request.prompts if prompt.split == "held_out"]
    texts = _texts(request, model, held_out)
    start, natural = _natural(model, held_out)
    neutral = _encoded(model, s.neutral, f"the neutral context {s.neutral!r}").whole
    settings = {
        **model.settings(),
        "prompts": [_about(model, prompt, natural[prompt.id]) for prompt in held_out],
        "start": start,
        "sentences": list(s.sentences),
        "length": s.length,
        "repetitions": s.repetitions,
        "preambles": list(s.preambles),
        "seed": request.config.seed,
    }
    own = {**local(model, request.device), "natural": natural, "start": start, "neutral": neutral}
    threads = request.config.threads
    of_model = Unit(
        f"{ROOM}.model_curves:measure",
        f"{model.name}: curves of the model",
        {**settings, "margin": s.margin},
        tuple(texts),
        own,
        threads,
    )
    found = [*texts, of_model]
    if s.surrogates or s.chains:
        fitted = {
            "surrogates": list(s.surrogates), "statistics": list(s.statistics), "chains": list(s.chains),
            "neutral": neutral, "top": s.top,
        }  # fmt: skip
        uses = [registry.surrogates("vocabulary")[name] for name in s.surrogates]
        uses += [registry.surrogates("next-token")[name] for name in s.chains]
        label = f"{model.name}: curves of {len(uses)} surrogates"
        task = f"{ROOM}.surrogate_curves:measure"
        found.append(Unit(task, label, {**settings, **fitted}, tuple(texts), own, threads, uses=tuple(uses)))
    return [*found, *_of_heads(request, model, texts, settings, own)]


def _of_heads(
    request: Request, model: Model, texts: list[Unit], settings: dict[str, Any], own: dict[str, Any]
) -> list[Unit]:
    """The units that fit surrogates of heads, and those of the model's curves with heads replaced."""
    s, config = request.settings, request.config
    if not s.heads:
        return []
    step = 1 if config.limit is None else max(1, model.layers // (2 * config.limit))
    length = smoke_length(config, s.max_length)
    fitted = [name for name in dict.fromkeys((*s.heads, *s.head_nulls)) if name not in CONTROLS]
    shared = {
        **model.settings(), "experiment": "self-reinforcement", "surrogates": registry.ladder(fitted),
        "max_length": length, "longest": max(length, s.longest + len(settings["start"])),
        "first_position": LEADER, "choosing": s.choosing, "seed": config.seed,
    }  # fmt: skip
    layers = list(range(0, model.layers, step))
    where: dict[str, Any] = {"device": request.device, "threads": config.threads}
    found = fit_units(model, layers, s.layers_per_unit, shared, texts, **where)
    needs = (*texts, *found)
    for order in s.heads:
        for arm in dict.fromkeys([order, *s.head_nulls]):
            more = {"arm": arm, "order": order, "shares": list(s.head_shares), "longest": shared["longest"]}
            label = f"{model.name}: curves with {arm} in the heads of {order}"
            task = f"{ROOM}.head_curves:measure"
            found.append(Unit(task, label, {**settings, **more}, needs, own, config.threads, uses=used([order, arm])))
    return found


def _encoded(model: Model, text: str, what: str) -> Encoded:
    """The ids of a text; none where the model was resolved for planning only."""
    return Encoded((), []) if model.reader is None else model.encode(text, what)


def _natural(model: Model, prompts: list[Prompt]) -> tuple[list[int], dict[str, list[int]]]:
    """What every text of the model begins with, and the ids of the prompts' texts, without a chat template."""
    encoded = {prompt.id: _encoded(model, prompt.text, f"prompt {prompt.id!r}, as text") for prompt in prompts}
    start = next((list(one.start) for one in encoded.values()), [])
    return start, {prompt: list(one.ids) for prompt, one in encoded.items()}


def _about(model: Model, prompt: Prompt, natural: list[int]) -> dict[str, Any]:
    return {**prompt_settings(model, prompt), "natural_sha256": canonical_hash(natural)}


def _texts(request: Request, model: Model, held_out: list[Prompt]) -> list[Unit]:
    """Continuations of training prompts with all strategies, and greedy ones of held-out prompts."""
    config, found = request.config, []
    train = [prompt for prompt in request.prompts if prompt.split == "train"]
    for strategy in config.generation.strategies:
        every = request.prompts if strategy_name(strategy) == GREEDY else train
        seeds = 1 if has_one_continuation(strategy) else config.generation.seeds
        found += [continuation_unit(config, model, every, strategy, seed, request.device) for seed in range(seeds)]
    if all(strategy_name(strategy) != GREEDY for strategy in config.generation.strategies):
        found.append(continuation_unit(config, model, held_out, GREEDY, 0, request.device))
    return found
