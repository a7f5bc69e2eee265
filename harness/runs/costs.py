"""What units cost: tokens that a model decodes and reads, and other work, in the terms of the machine they run on."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.runs.units import Unit


@dataclass(frozen=True)
class Cost:
    """Work of one unit.

    Attributes:
        steps: passes of decoding, each of one batch of texts.
        decoded: tokens that these write.
        read: tokens that a model reads, a pass through all layers each.
        seconds: of other work on one core of the machine that costs were measured on.
    """

    steps: float = 0.0
    decoded: float = 0.0
    read: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.steps + other.steps,
            self.decoded + other.decoded,
            self.read + other.read,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Speed:
    """How fast a machine is with one model.

    Attributes:
        step: seconds of a pass of decoding, whatever the number of texts.
        decoding, reading: seconds per token.
        core: seconds that one second of other work takes.
    """

    step: float = 0.0
    decoding: float = 0.0
    reading: float = 0.0
    core: float = 1.0

    def said(self, model: str, batch: int) -> str:
        """The same in words, with a batch of so many texts."""
        written = batch / max(self.step + batch * self.decoding, 1e-9)
        return f"{model} writes {written:.3g} tokens a second, {batch} texts together, and reads {1 / self.reading:.3g}"

    def seconds(self, cost: Cost) -> float:
        """How long a unit takes."""
        model = cost.steps * self.step + cost.decoded * self.decoding + cost.read * self.reading
        return model + cost.seconds * self.core


def makespan(plan: Sequence[Unit], seconds: Mapping[str, float], workers: int) -> float:
    """Time until all units are done, each begun in the order of the plan as soon as a worker is free and its needs are.

    Args:
        plan: units, each after those that it needs.
        seconds: key -> time of a unit; what has none is done already.
        workers: at least 1.
    """
    waiting = [unit for unit in plan if unit.key in seconds]
    done: set[str] = {unit.key for unit in plan} - {unit.key for unit in waiting}
    running: list[tuple[float, str]] = []
    now = 0.0
    while waiting or running:
        for unit in list(waiting):
            if len(running) == workers:
                break
            if all(need.key in done for need in unit.needs):
                heapq.heappush(running, (now + seconds[unit.key], unit.key))
                waiting.remove(unit)
        if not running:
            break  # a plan whose needs are outside of it
        now, key = heapq.heappop(running)
        done.add(key)
    return now
