"""The headline answers of a run, in words, each with its figures and intervals."""

from __future__ import annotations

import json

import pandas as pd

from harness.core.format import interval, number
from harness.core.rows import MODEL, frames
from harness.stats.pooling import Observed, Sample, difference


def _samples(seen: Observed, **where: object) -> dict[str, Sample]:
    found = {str(key[0]): sample for key, sample in seen.cells(("surrogate",), split="held_out", **where)}
    return {name: sample for name, sample in found.items() if sample.value is not None}


def _ranked(found: dict[str, Sample], higher: bool) -> list[str]:
    names = [name for name in found if name not in {MODEL, *frames()}]
    return sorted(names, key=lambda name: (found[name].value or 0.0) * (-1 if higher else 1))


def answers(rows: pd.DataFrame) -> list[str]:
    """What a run says, a sentence or two per question.

    Args:
        rows: of one run.

    Returns:
        Sentences, in the order of the experiments; empty where the run has none of the known ones.
    """
    seen = Observed(rows)
    said: list[str] = []
    makers = {"one-layer": _one_layer, "heads": _heads, "generation": _generation}
    for experiment, make in makers.items():
        if (rows["experiment"] == experiment).any():
            said += make(seen)
    return said + _verdicts(rows)


def _verdicts(rows: pd.DataFrame) -> list[str]:
    """What became of the claims of the paper's experiments."""
    said = []
    judged = rows[(rows["split"] == "pooled") & rows["verdict"].notna()]
    for kind, part in judged.groupby("experiment", sort=False):
        right = int(part["verdict"].isin(["agrees", "holds"]).sum())
        text = f"{kind}: {right} of {len(part)} comparisons with theory came out as predicted"
        wrong = part[part["verdict"].isin(["differs", "does not hold"])]
        claims = wrong["condition"].map(lambda condition: str(json.loads(condition)["claim"])).value_counts(sort=False)
        if len(claims):
            text += f"; {len(wrong)} did not: " + "; ".join(f"{name} ({count})" for name, count in claims.items())
        said.append(text + ".")
    return said


def _one_layer(seen: Observed) -> list[str]:
    said = []
    rows = seen.frame[seen.frame["experiment"] == "one-layer"]
    error = rows.loc[rows["metric"] == "equivalence_error", "value"].dropna()
    if len(error):
        said.append(
            f"The trained one-layer model and the chain read off its weights give probabilities that differ by at most "
            f"{number(float(error.max()))}, over {len(error)} repetitions."
        )
    for name, sample in _samples(seen, experiment="one-layer", metric="excess_risk").items():
        part = rows[(rows["metric"] == "excess_risk") & (rows["surrogate"] == name)]
        predicted = part["prediction"].dropna().astype(float).mean()
        found = sample.interval()
        if name == "ccmc-weights" or found.low is None or found.high is None or pd.isna(predicted):
            continue
        if rows["condition"].nunique() > 1:
            continue
        inside = found.low <= predicted <= found.high
        said.append(
            f"Excess risk of {'the trained model' if name == 'model' else name}: {interval(found)} nats per token; "
            f"theory predicts {number(float(predicted))}, which {'agrees' if inside else 'does not agree'}."
        )
    return said


def _heads(seen: Observed) -> list[str]:
    said = []
    part = seen.frame[(seen.frame["experiment"] == "heads") & (seen.frame["metric"] == "explained")]
    for (model, strategy), _ in part.groupby(["model", "strategy"], sort=False):
        where = {"experiment": "heads", "model": model, "strategy": strategy, "metric": "explained"}
        found = _samples(seen, **where)
        order = _ranked(found, higher=True)
        if not order:
            continue
        best = found[order[0]]
        heads = part.loc[part["model"] == model, ["layer", "head"]].drop_duplicates()
        text = (
            f"Attention of {model} on {strategy} text: {order[0]} explains most, {interval(best.interval())} of what "
            f"counts alone leave open, over {len(heads)} heads and {len(best.units)} held-out prompts"
        )
        if len(order) > 1:
            lead = difference(best, found[order[1]], "explained", paired=True)
            beyond = f"{interval(lead.interval, signed=True)} ahead of {order[1]}"
            text += f"; it is {beyond}" + ("" if lead.sure else ", which is not sure")
        negative = [name for name in order if (found[name].interval().high or 0.0) < 0]
        said.append(text + (f". Worse than counts: {', '.join(negative)}." if negative else "."))
    return said


def _generation(seen: Observed) -> list[str]:
    said = []
    part = seen.frame[seen.frame["experiment"] == "generation"]
    for (model, strategy), _ in part.groupby(["model", "strategy"], sort=False):
        where: dict[str, object] = {"experiment": "generation", "model": model, "strategy": strategy}
        mass = _samples(seen, metric="in_context_mass", **where).get("model")
        if mass is not None:
            said.append(
                f"{model}, {strategy}: {interval(mass.interval())} of its probability is on tokens of its context, the "
                "part that a chain can speak about."
            )
        kl = _samples(seen, metric="kl", **where)
        order = _ranked(kl, higher=False)
        if order:
            nats = interval(kl[order[0]].interval())
            text = f"One token ahead ({model}, {strategy}), {order[0]} is closest (KL {nats} nats)"
            if len(order) > 1:
                lead = difference(kl[order[1]], kl[order[0]], "kl", paired=True)
                text += f"; {order[1]} is {interval(lead.interval, signed=True)} further" + (
                    "" if lead.sure else ", which is not sure"
                )
            said.append(text + ".")
        said += _winners(_samples(seen, metric="winner_jaccard", **where), f"{model}, {strategy}")
    return said


def _winners(found: dict[str, Sample], what: str) -> list[str]:
    floor, ceiling = found.get("model-shuffled"), found.get("model-reseeded")
    order = _ranked(found, higher=True)
    if not order or floor is None:
        return []
    best = found[order[0]]
    lead = difference(best, floor, "winner_jaccard", paired=True)
    judged = {1: "better than", -1: "worse than", 0: "no better than"}[lead.sure]
    top = f"; the model agrees with itself to {interval(ceiling.interval())}" if ceiling is not None else ""
    return [
        f"Which tokens win ({what}): {order[0]} agrees best, {interval(best.interval())}, {judged} other prompts' "
        f"continuations ({interval(floor.interval())}; difference {interval(lead.interval, signed=True)}){top}."
    ]
