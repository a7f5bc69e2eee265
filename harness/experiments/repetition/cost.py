"""What the units of `repetition` cost."""

from __future__ import annotations

from harness.experiments._shared.costs import Texts, texts_of
from harness.experiments._shared.ladder import rungs
from harness.experiments.repetition.sources import LOGITS
from harness.runs.costs import Cost
from harness.runs.units import Unit

NEW = 0.25
"""Distinct tokens of a run's texts, as a share of those of its prompts and of a quarter of what is written."""
LAWS, LISTED = 2.0, 9.0
"""Passes over a text that its laws are worth, raw and decoded; tokens that keeping the top of one law is worth."""
FITTED, READ, WALKED, COMPARED, FORECAST = 0.02, 0.02, 0.012, 0.005, 0.03
"""Seconds: of a fit, per thousand training tokens; of reading a thousand judged tokens; of a thousand steps of a walk;
of comparing a walk; of a thousand steps of a rollout for forecasts."""
COMPILED = 3.0
"""Seconds in which a unit reads its texts and the first of a process loads compiled kernels, shared among its units."""
CUT, SORTED = 0.6, 3.0
"""Seconds of a thousand steps of a walk of the raw law whose tail is cut, and where the vocabulary is sorted."""
ROLLED, EVERY, TRAINED = 16, 8, 2
"""Steps of such a rollout, steps from one forecast to the next, and walks of each prompt that a rung is chosen by."""
WALKS = ("fold", "on_policy", "alternatives", "regimes", "predict")


def cost(unit: Unit) -> Cost | None:
    """Base transitions, laws, folds, refinements, judgements and choices."""
    s, task = unit.settings, unit.task.partition(":")[2]
    if task == "read_off":
        lengths = texts_of(unit.needs).lengths
        prompts = sum(start for _, start, _ in lengths)
        queries = NEW * (prompts + (sum(whole for *_, whole in lengths) - prompts) / 4)
        return Cost(read=queries * (len(s["ids"]) + LISTED))
    if task == "score":
        return Cost(read=LAWS * texts_of(unit.needs[:1]).tokens())
    if task in WALKS:
        return _fold(unit)
    if task == "judge":
        folds = [need for need in unit.needs if need.task.partition(":")[2] in WALKS]
        return Cost(seconds=COMPARED * sum(_sources(fold) * _walks(fold) for fold in folds))
    return Cost(seconds=1.0)


def _judged(unit: Unit) -> Texts:
    """The texts that a fold judges."""
    writing = texts_of(unit.needs[:1])
    prompts = unit.needs[0].settings["prompts"]
    inside = zip(prompts, writing.lengths, strict=True)
    own = unit.settings["judged"]
    return Texts(tuple(one for prompt, one in inside if unit.settings["folds"][prompt["id"]] == own))


def _sources(unit: Unit) -> float:
    """Surrogates that a unit fits and lets walk."""
    s, task = unit.settings, unit.task.partition(":")[2]
    ladder = len(rungs(tuple(s.get("statistics", ()))))
    if task == "on_policy":
        return float(3 * (1 + s["on_policy"]) * (ladder if s["on_policy_rungs"] == "all" else 1))
    if task == "alternatives":
        return float(ladder * len(s["alternatives"]))
    if task == "regimes":
        return 4.0 * (ladder if s["regimes"] == "all" else 1)
    if task == "predict":
        return 2.0 * ladder
    return _decoded_sources(unit) + _raw_sources(unit)


def _decoded_sources(unit: Unit) -> float:
    """Those that are fitted to one law: every rung of each ladder, and the other surrogates."""
    s = unit.settings
    ladders = len(set(LOGITS) & set(s["surrogates"]))
    return float(len(s["surrogates"]) + ladders * (len(rungs(tuple(s.get("statistics", ())))) - 1))


def _raw_sources(unit: Unit) -> float:
    """Those that are fitted to the raw law beside the decoded one."""
    s = unit.settings
    ladder = len(rungs(tuple(s.get("statistics", ()))))
    share = (len(s.get("raw_rungs", ())) or ladder) / ladder if ladder else 1.0
    return share * _decoded_sources(unit) if len(s["laws"]) > 1 else 0.0


def _cut_steps(unit: Unit) -> float:
    """Seconds of a thousand steps of every walk of the raw law, beyond those of a walk that nothing cuts."""
    options = {key for key, value in unit.settings.get("options", {}).items() if value is not None}
    if unit.settings["temperature"] is None or not options & {"top_k", "top_p", "min_p"}:
        return 0.0
    return _raw_sources(unit) * (SORTED if "top_p" in options else CUT)


def _walks(unit: Unit) -> float:
    """Walks of one surrogate, by their number."""
    s = unit.settings
    seeds = 1 if s["temperature"] is None else s["rollout_seeds"]
    return float(_judged(unit).count() * seeds * len(s["warm_starts"]))


def _fold(unit: Unit) -> Cost:
    s, texts = unit.settings, texts_of(unit.needs[:1])
    judged = _judged(unit)
    new = max((whole - start for _, start, whole in texts.lengths), default=0)
    sources = _sources(unit)
    steps = _walks(unit) * new + TRAINED * len(s.get("choice", ())) * new / 2
    seconds = FITTED * (texts.tokens() - judged.tokens()) + READ * judged.tokens() + WALKED * steps
    forecast = s.get("hazard_rollouts", 0) * judged.count() * new / EVERY * ROLLED * FORECAST
    rungs_of = len(s.get("hazard_rungs", ())) or len(s.get("statistics", ()))
    removed = (1 + len(s["statistics"])) * FITTED * texts.tokens() if s.get("removed") else 0.0
    cut = _cut_steps(unit) * _judged(unit).count() * s["rollout_seeds"] * new if unit.task.endswith(":fold") else 0.0
    return Cost(seconds=COMPILED + (sources * seconds + forecast * (1 + rungs_of) + removed + cut) / 1000)
