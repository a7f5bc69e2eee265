"""What the units of `generation` cost."""

from __future__ import annotations

from harness.experiments._shared.costs import texts_of
from harness.runs.costs import Cost
from harness.runs.units import Unit

READ = 1.1
"""Passes over a text that scoring it is worth, with its distribution over the context."""
FITTED, WALKED, COMPARED = 0.05, 0.05, 0.01
"""Seconds: of fitting a surrogate, per thousand training tokens; of a thousand steps of a walk; of comparing one."""


def cost(unit: Unit) -> Cost:
    """Scoring all texts, then every surrogate fitted and its walks compared with the model's texts."""
    s, texts = unit.settings, texts_of(unit.needs)
    held_out = [one for one in texts.lengths if one[0] == "held_out"]
    walks = len(held_out) * s["rollout_seeds"] * len(s["surrogates"])
    steps = sum(whole - start for _, start, whole in held_out) * s["rollout_seeds"] * len(s["surrogates"])
    fits = FITTED * len(s["surrogates"]) * texts.tokens("train") / 1000
    return Cost(read=READ * texts.tokens(), seconds=fits + WALKED * steps / 1000 + COMPARED * walks)
