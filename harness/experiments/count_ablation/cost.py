"""What the units of `count-ablation` cost."""

from __future__ import annotations

from harness.experiments._shared.costs import decoding, texts_of
from harness.runs.costs import Cost
from harness.runs.units import Unit

ABLATED, LOST, RANKED = 1.2, 1.2, 3.0
"""Steps that one without counts is worth; passes that the loss of a text, and scoring all heads along it, are worth."""


def cost(unit: Unit) -> Cost:
    """The ranking of heads, and one condition."""
    s, texts = unit.settings, texts_of(unit.needs)
    if unit.task.endswith(":rank"):
        return Cost(read=RANKED * texts.tokens())
    own = decoding(unit.local["tokens"], s["max_new_tokens"], s["batch_size"])
    more = ABLATED if "strength" in s["condition"] else 1.0
    return Cost(own.steps * more, own.decoded * more, own.read + LOST * texts.tokens(longest=s["max_length"]))
