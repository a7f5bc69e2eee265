"""What the units of `causes` cost."""

from __future__ import annotations

from harness.experiments._shared.costs import decoding, texts_of
from harness.runs.costs import Cost
from harness.runs.units import Unit

LEARNED = 4.0
"""Passes over the learning texts that kinds of heads, mean outputs and noise are worth."""
TRIED, CHANGED = 3.0, 1.7
"""Strengths that are tried for each level, and passes that one with an intervention is worth."""
CHAINED = 1.5
"""Steps of decoding that one with an intervention is worth."""


def cost(unit: Unit) -> Cost:
    """What is learned, strengths and continuations."""
    s, task = unit.settings, unit.task.partition(":")[2]
    if task == "write":
        own = decoding(unit.local["tokens"], s["max_new_tokens"], s["batch_size"], s["seeds"])
        more = CHAINED if "level" in s["job"] else 1.0
        return Cost(own.steps * more, own.decoded * more, own.read * more)
    mean = texts_of(unit.needs)
    length = min(s["max_length"], mean.tokens() / max(1, mean.count()))
    if task == "learn":
        return Cost(read=LEARNED * length * sum("learn" in parts for parts in s["parts"].values()))
    return Cost(read=length * len(s["parts"]) * (1 + TRIED * (1 + len(s["levels"])) * CHANGED / 2))
