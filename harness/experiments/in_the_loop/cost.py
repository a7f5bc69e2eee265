"""What the units of `in-the-loop` cost."""

from __future__ import annotations

from typing import Any

from harness.experiments._shared.costs import ARM, Texts, decoding, shape, texts_of
from harness.runs.costs import Cost
from harness.runs.units import Unit

KINDS = 5
"""Kinds of heads, each a set; every other family but `random` has a set a share, or one a layer."""
MEASURED = 0.5
"""Passes over a text that comparing its distributions with the model's is worth."""
CHAINED, DRAWN = 1.6, 1.0
"""Steps of decoding that one with heads replaced is worth, and what it adds per token."""


def cost(unit: Unit) -> Cost:
    """Losses, single heads, selections and continuations."""
    s, task, texts = unit.settings, unit.task.partition(":")[2], texts_of(unit.needs)
    if unit.task.endswith("alone:measure"):
        layers, heads = shape(unit.local["path"])
        tokens = 2 * _of_each(unit, s["alone_texts"], s["max_length"])
        above = sum(layers - layer for layer in s["layers"]) / layers  # a pass begins at the layer that is changed
        return Cost(read=tokens * (1 + heads * (above + MEASURED * len(s["layers"]))))
    if task == "select":
        g = s["greedy"]
        rounds = -(-g["heads"] // g["step"]) * g["candidates"] * 2
        return Cost(read=ARM * rounds * g["texts"] * min(s["max_length"], _mean(texts)))
    if task == "measure":
        held_out = _of_each(unit, s["held_out_texts"], s["max_length"])
        chosen = _of_each(unit, s["training_texts"], s["max_length"])
        rules = 1 + (len(s["rules"]) - 1) / 2
        return Cost(read=(held_out + chosen) * (1 + _sets(unit) * rules * (ARM + MEASURED)))
    if task == "write":
        own = decoding(unit.local["tokens"], s["max_new_tokens"], s["batch_size"], s["seeds"])
        jobs = len(s["shares"]) * len(s["families"])
        return Cost(jobs * CHAINED * own.steps, jobs * DRAWN * own.decoded, jobs * ARM * own.read)
    return Cost(seconds=0.002 * texts.count())


def _sets(unit: Unit) -> float:
    """Sets of heads that an arm is measured with."""
    s: dict[str, Any] = unit.settings
    layers, _ = shape(unit.local["path"])
    shares = len(s["shares"])
    each = {"share": shares, "alone": shares, "greedy": 1, "random": shares * s["random_draws"], "kind": KINDS}
    return float(sum(each.get(family, layers) for family in s["families"]) * len(s["layer_0"]))


def _mean(texts: Texts) -> float:
    return texts.tokens() / max(1, texts.count())


def _of_each(unit: Unit, count: int | None, longest: int) -> float:
    """Tokens of so many texts of each strategy, of the first seed."""
    found, seen = 0.0, set()
    for need in unit.needs:
        if "strategy" not in need.settings or need.settings["strategy"] in seen:
            continue
        seen.add(need.settings["strategy"])
        texts = texts_of([need])
        own = [min(whole, longest) for split, _, whole in texts.lengths if split == "held_out"]
        if own:
            found += sum(own) / len(own) * (len(own) if count is None else min(count, len(own)))
    return found
