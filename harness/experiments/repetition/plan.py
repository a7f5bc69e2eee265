"""The units of `repetition`: continuations, base transitions, and per strategy laws, folds and the judgement."""

from __future__ import annotations

from typing import Any

from harness.config.decoding import Strategy, has_one_continuation, strategy_name
from harness.core import registry
from harness.core.seeds import derive_seed
from harness.data.splits import Fold, folds_of, spread
from harness.experiments._shared.continuations import Model, continuation_unit, local
from harness.experiments._shared.drawing import short
from harness.experiments._shared.ladder import rungs, split
from harness.experiments.experiment import Request
from harness.experiments.repetition.experiment import RepetitionExperiment
from harness.experiments.repetition.settings import COUNTED, READ_OFF
from harness.experiments.repetition.sources import DECODED, LOGIT
from harness.experiments.repetition.unseen import check_unseen, with_joint_fits
from harness.runs.units import Unit

ROOM = "harness.experiments.repetition"
FOLD = f"{ROOM}.units:fold"
SHOWN = 40  # signs of a neutral context in a label


def plan(request: Request) -> list[Unit]:
    """Per model: base transitions, and per strategy what is judged."""
    strategies = request.config.generation.strategies
    RepetitionExperiment().check_strategies(strategies)
    check_unseen(request.settings, strategies)
    units: list[Unit] = []
    for model in request.models:
        texts = {strategy_name(strategy): _texts(request, model, strategy) for strategy in strategies}
        every = [unit for of in texts.values() for unit in of]
        bases = _bases(request, model, every)
        own = [*every, *bases]
        for strategy in strategies:
            own += _of_strategy(request, model, strategy, texts[strategy_name(strategy)], bases)
        folds = [unit for unit in own if unit.task == FOLD]
        own += _choice(request, model, [u for u in folds if u.settings["strategy"] not in request.settings.unseen])
        units += with_joint_fits(request.settings, own, ROOM, request.config.threads)
    return units


def _texts(request: Request, model: Model, strategy: Strategy) -> list[Unit]:
    """The model's continuations of all prompts, seed by seed."""
    seeds = 1 if has_one_continuation(strategy) else request.config.generation.seeds
    return [
        continuation_unit(request.config, model, request.prompts, strategy, seed, request.device)
        for seed in range(seeds)
    ]


def _bases(request: Request, model: Model, texts: list[Unit]) -> list[Unit]:
    """One unit a neutral context; none where all base transitions are alike."""
    settings = request.settings
    if settings.base not in READ_OFF:
        return []
    found = []
    for text in settings.neutral:
        ids = model.encode(text, f"the neutral context {text!r}").whole if model.reader is not None else []
        found.append(
            Unit(
                f"{ROOM}.bases:read_off",
                f"{model.name}: base transitions after {short(text, SHOWN)!r}",
                {**model.settings(), "neutral": text, "ids": list(ids), "top": settings.top},
                tuple(texts) if settings.base_rows == "run" else (),
                local=local(model, request.device),
                threads=request.config.threads,
            )
        )
    return found


def _of_strategy(
    request: Request, model: Model, strategy: Strategy, texts: list[Unit], bases: list[Unit]
) -> list[Unit]:
    config, settings = request.config, request.settings
    one = has_one_continuation(strategy)
    shared = {
        **model.settings(),
        **{key: texts[0].settings[key] for key in ("strategy", "temperature", "options", "ignore_eos")},
        "folds": {prompt.id: prompt.fold for prompt in request.prompts},
        "groups": {prompt.id: prompt.group for prompt in request.prompts},
        "seed": config.seed,
        **({"bigram": settings.top} if settings.base in COUNTED else {}),
    }
    neutral = [unit.settings["neutral"] for unit in bases]
    name = f"{model.name}, {shared['strategy']}"
    threads = config.threads
    scores = Unit(
        f"{ROOM}.scores:score",
        f"{name}: the model's laws along its texts",
        {**shared, "neutral": neutral},
        (texts[0], *bases),
        local(model, request.device),
        threads,
    )
    known = registry.surrogates("vocabulary")
    parts = folds_of(request.prompts)
    choice = {part.number: _to_choose(request, part) for part in parts}
    folds = [
        Unit(
            FOLD,
            f"{name}: surrogates of fold {part.number}",
            {**shared, **_of_surrogates(settings), "neutral": neutral, "judged": part.number, **choice[part.number]},
            (texts[0], scores, *bases, *(texts[1:] if choice[part.number] else ())),
            {},
            threads,
            uses=tuple(known[surrogate] for surrogate in settings.surrogates),
        )
        for part in parts
    ]
    per_fold = {**shared, **_of_refinements(settings), "neutral": neutral}
    refined = [
        Unit(
            f"{ROOM}.refinements:{task}",
            f"{name}: {label} of fold {unit.settings['judged']}",
            {**per_fold, **of, "judged": unit.settings["judged"]},
            (texts[0], scores, *bases),
            local(model, request.device) if task == "on_policy" else {},
            threads,
            uses=(known["context-logit"],),
        )
        for task, (label, of) in _refinements(settings).items()
        for unit in folds
    ]
    judged = Unit(
        f"{ROOM}.judging:judge",
        f"{name}: how much it repeats, and which prompts",
        {
            **shared,
            "texts": len(texts),
            "warm_starts": list(settings.warm_starts),
            "margins": settings.margins.of(shared["strategy"]),
            "one": one,
        },
        (*texts, *folds, *refined),
        {},
        threads,
    )
    return [scores, *folds, *refined, judged]


def _to_choose(request: Request, fold: Fold) -> dict[str, list[str]]:
    """The training prompts that a fold chooses a rung by, the same with all strategies; none where it chooses none."""
    settings = request.settings
    if not settings.choice_prompts or LOGIT not in settings.surrogates or DECODED not in settings.laws:
        return {}
    seed = derive_seed(request.config.seed, "choice", fold.number)
    return {"choice": sorted(prompt.id for prompt in spread(fold.train, settings.choice_prompts, seed))}


def _choice(request: Request, model: Model, folds: list[Unit]) -> list[Unit]:
    """The unit that chooses a rung of one model, by the training prompts of its folds with all strategies."""
    own = [unit for unit in folds if unit.settings["model"] == model.name and "choice" in unit.settings]
    if not own:
        return []
    settings = {
        **model.settings(),
        "strategies": list(dict.fromkeys(unit.settings["strategy"] for unit in own)),
        "rungs": list(rungs(request.settings.statistics)),
        "folds": sorted({unit.settings["judged"] for unit in own}),
    }
    label = f"{model.name}: one rung for all strategies"
    return [Unit(f"{ROOM}.choosing:choose_rungs", label, settings, tuple(own), {}, request.config.threads)]


def _of_surrogates(settings: Any) -> dict[str, Any]:
    return {
        "surrogates": list(settings.surrogates),
        "statistics": list(settings.statistics),
        "base": settings.base,
        "laws": list(settings.laws),
        "rollout_seeds": settings.rollout_seeds,
        "warm_starts": list(settings.warm_starts),
        **({"hazard_rollouts": settings.hazard_rollouts} if settings.hazard_rollouts else {}),
        **_rungs_of(settings, "hazard_rungs", "raw_rungs", "warm_rungs"),
        **({"removed": True} if settings.removed else {}),
    }


def _refinements(settings: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """Task of each refinement -> its label and its own settings; nothing that was not wanted."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    if settings.on_policy:
        own = {"on_policy": settings.on_policy, "on_policy_rungs": settings.on_policy_rungs}
        found["on_policy"] = ("refits to own walks", own)
    if settings.regimes != "none":
        found["regimes"] = ("two regimes", {"regimes": settings.regimes})
    if settings.alternatives:
        found["alternatives"] = (
            "other ladders",
            {"alternatives": {k: list(v) for k, v in settings.alternatives.items()}},
        )
    return found


def _of_refinements(settings: Any) -> dict[str, Any]:
    return {
        "statistics": list(settings.statistics),
        "rollout_seeds": settings.rollout_seeds,
        "warm_starts": list(settings.warm_starts),
        **_rungs_of(settings, "warm_rungs"),
    }


def _rungs_of(settings: Any, *fields: str) -> dict[str, list[str]]:
    """The rungs that some settings name, as rows call them; nothing of those that name none."""
    named = {field: [" + ".join(split(name)) for name in getattr(settings, field)] for field in fields}
    return {field: names for field, names in named.items() if names}
