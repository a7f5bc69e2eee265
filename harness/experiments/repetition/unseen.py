"""Strategies that the joint fit does not see: which they may be, and the units that judge it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.config.decoding import Strategy, strategy_name, strategy_options
from harness.core import registry
from harness.core.errors import UsageError, nearest
from harness.runs.units import Unit

SMOOTH, NEAREST = "context-logit-smooth", "context-logit-nearest"
"""Sources whose weights were not fitted at the temperature: those of the joint fit, and of the nearest seen one.

They are no surrogates that a config could name: each is `context-logit` with weights of other strategies.
"""
JOINT = frozenset({SMOOTH, NEAREST})


def check_unseen(settings: Any, strategies: Sequence[Strategy]) -> None:
    """Refuse a joint fit over strategies that are more than a temperature, or over too few of them.

    Args:
        settings: of the experiment.
        strategies: of the run.

    Raises:
        UsageError: names the strategy.
    """
    if not settings.unseen:
        return
    names = [strategy_name(strategy) for strategy in strategies]
    for name in settings.unseen:
        if name not in names:
            raise UsageError(
                f"experiment repetition: unseen: {name!r} is no strategy of generation.strategies{nearest(name, names)}"
            )
    for name, strategy in zip(names, strategies, strict=True):
        if set(strategy_options(strategy)) - {"temperature"}:
            raise UsageError(
                f"experiment repetition: strategy {name} is more than a temperature, which weights of a joint fit "
                "depend on; with unseen, strategies are greedy or have a temperature alone"
            )
    seen, needed = len(names) - len(settings.unseen), settings.degree + 1
    if seen < needed:
        raise UsageError(
            f"experiment repetition: a joint fit of degree {settings.degree} needs {needed} strategies that it sees, "
            f"and generation.strategies has {seen} beside those of unseen"
        )


def temperature_of(settings: dict[str, Any]) -> float:
    """The temperature of a unit's strategy, 0 of greedy decoding."""
    return 0.0 if settings["temperature"] is None else float(settings["temperature"])


def with_joint_fits(settings: Any, units: Sequence[Unit], room: str, threads: int) -> list[Unit]:
    """The units of one model, and those that judge its joint fit, which the judgements of unseen strategies read too.

    Args:
        settings: of the experiment.
        units: of the model, with those of every strategy.
        room: the package that holds their tasks.
        threads: of the new ones.

    Returns:
        All of them, each after those that it needs.
    """
    if not settings.unseen:
        return list(units)
    folds = {(u.settings["strategy"], u.settings["judged"]): u for u in units if u.task == f"{room}.units:fold"}
    known = registry.surrogates("vocabulary")["context-logit"]
    made: dict[str, list[Unit]] = {}
    for (strategy, number), fold in folds.items():
        if strategy not in settings.unseen:
            continue
        seen = [one for (name, judged), one in folds.items() if judged == number and name not in settings.unseen]
        seen.sort(key=lambda one: temperature_of(one.settings))
        wanted = ("surrogates", "laws", "hazard_rollouts", "removed", "choice")
        own = {key: value for key, value in fold.settings.items() if key not in wanted}
        own |= {"at": temperature_of(fold.settings), "degree": settings.degree}
        own["seen"] = [
            {"strategy": one.settings["strategy"], "temperature": temperature_of(one.settings)} for one in seen
        ]
        unit = Unit(
            f"{room}.smooth:predict",
            f"{fold.settings['model']}, {strategy}: one fit of all other strategies, fold {number}",
            own,
            (
                *fold.needs[: 2 + len(own["neutral"])],
                *(need for one in seen for need in (*one.needs[:2], one)),
            ),
            {},
            threads,
            uses=(known,),
        )
        made.setdefault(strategy, []).append(unit)
    late = [u for u in units if u.task == f"{room}.judging:judge" and u.settings["strategy"] in settings.unseen]
    first = [unit for unit in units if unit not in late]
    judged = [replace(unit, needs=(*unit.needs, *made[unit.settings["strategy"]])) for unit in late]
    return [*first, *(unit for of in made.values() for unit in of), *judged]
