"""The answer about the chosen rung: which one, how far its walks are from the model, and what they beat."""

from __future__ import annotations

from harness.core.format import listed
from harness.core.records import Answer
from harness.experiments._shared.sentences import with_unit
from harness.experiments.repetition.chosen_tables import RIVALS, rival
from harness.experiments.repetition.margins import MARGINS
from harness.experiments.repetition.parts import Part, word_of
from harness.experiments.repetition.sources import LOGIT
from harness.stats.contest import beyond_chance
from harness.stats.equivalence import judged_together

TARGETS = ("seq_rep_4", "above_half")
"""Measures that the answer's first word is about."""


def one_rung(part: Part, question: str) -> Answer:
    """The chosen ladder against the model in every measure, and its energy score against its rivals.

    "yes" where the target measures agree with the model, "no" where one of them differs.

    Args:
        part: a model and strategy.
        question: what is answered.
    """
    if part.choice is None or part.shown is None:
        reason = f"no rung of {LOGIT} was chosen" if part.rungs else f"{LOGIT} was not fitted"
        return Answer(question, f"{part.what}: could not be answered: {reason}.", answered=False)
    source = part.shown
    both = {measure: part.against_model(measure, source) for measure in MARGINS}
    every = judged_together([part.verdict(measure, source) for measure in MARGINS])
    verdicts = dict(zip(MARGINS, every, strict=True))
    words = {measure: word_of(verdicts[measure], both[measure]) for measure in MARGINS}
    targets = [words[measure] for measure in TARGETS]
    start = "no" if "differs" in targets else "not decided" if "undecided" in targets else "yes"
    said = []
    for word, how in (("agrees", "agree with the model in"), ("differs", "differ from it in")):
        if own := [measure for measure in MARGINS if words[measure] == word]:
            said.append(f"{how} {listed([_gap(part, measure) for measure in own])}")
    if open_ones := [measure for measure in MARGINS if words[measure] == "undecided"]:
        said.append(f"nothing is decided about {listed([_gap(part, measure) for measure in open_ones])}")
    walks = f"Walks of {LOGIT}, {part.shown_rung}, "
    text = f"{part.what}: {start}. {walks}{'; '.join(said)} (walks - model; Holm, {len(MARGINS)} measures)."
    return Answer(question, text + _rivals(part), verdicts[TARGETS[0]].interval, answered=start != "not decided")


def _gap(part: Part, measure: str) -> str:
    """One measure with its difference: "seq_rep_4 (+0.012 [-0.020, 0.044], margin 0.05)"."""
    assert part.shown is not None
    found = part.verdict(measure, part.shown).interval
    if found.value is None:
        return f"{measure} ({found.missing})"
    few = f", {found.missing}" if found.missing else ""
    return f"{measure} ({with_unit(found, signed=True)}, margin {part.margin(measure):g}{few})"


def _rivals(part: Part) -> str:
    """Which laws the energy score of the chosen rung is shown to be better or worse than."""
    compared = {name: both for name in RIVALS if (both := rival(part, name)).n}
    if not compared:
        return ""
    means = {name: both.mean() for name, both in compared.items()}
    clear = dict(zip(means, beyond_chance([mean.p() for mean in means.values()]), strict=True))
    sides: dict[str, list[str]] = {"better than": [], "worse than": [], "not shown to differ from": []}
    for name, mean in means.items():
        side = "better than" if (mean.value or 0.0) < 0 else "worse than"
        side = side if clear[name] else "not shown to differ from"
        sides[side].append(f"{RIVALS[name]} ({with_unit(mean.interval(), signed=True)})")
    words = [f"{side} that of {listed(names)}" for side, names in sides.items() if names]
    return f" Their energy score is {'; '.join(words)} (Holm, {len(means)} comparisons)."
