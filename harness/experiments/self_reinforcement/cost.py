"""What the units of `self-reinforcement` cost."""

from __future__ import annotations

from harness.experiments._shared.costs import ARM, texts_of
from harness.experiments._shared.ladder import rungs
from harness.runs.costs import Cost
from harness.runs.units import Unit

LAWS, NEW = 1.6, 0.25
"""Passes over a training text that its laws are worth, and distinct tokens of all texts as a share of their prompts."""
FITTED, ALONG = 0.9, 0.2
"""Seconds of a fit, per thousand training tokens, and of reading a thousand tokens of a repeated sentence."""


def cost(unit: Unit) -> Cost:
    """Curves of the model, of surrogates and with heads replaced."""
    s, texts = unit.settings, texts_of(unit.needs)
    tokens = sum(before + s["length"] * (s["repetitions"] + 1) for before in s["preambles"])
    sentences = len(s["prompts"]) * len(s["sentences"])
    read = float(tokens * sentences)
    passes = len(s["preambles"]) * sentences  # of one text, so short that each costs a step as well
    if "arm" in s:
        return Cost(steps=ARM * passes * len(s["shares"]), read=ARM * read * len(s["shares"]))
    if "surrogates" not in s:
        return Cost(steps=passes, read=read)
    train = texts.tokens("train")
    fits = len(s["chains"]) + len(s["surrogates"]) + len(rungs(tuple(s["statistics"])))
    base = NEW * (train / 4 + sum(len(ids) for ids in unit.local["natural"].values())) * (1 + len(s["neutral"]))
    return Cost(read=LAWS * train + base, seconds=fits * (FITTED * train + ALONG * read) / 1000)
