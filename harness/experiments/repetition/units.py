"""Experiment `repetition`: which statistics of its context make a model repeat itself?

A fold fits surrogates over the whole vocabulary to the model's distributions along its texts of the other folds, by two
laws: `decoded` is the model's distribution after the decoding strategy, and the surrogate is then sampled as it is;
`raw` is the distribution at temperature 1, and the strategy is applied to the surrogate afterwards. An average over
what a surrogate does not see has no sharp peaks, so the two differ much. Every prompt is judged once, by fits that saw
none of its group: one step ahead along the model's own text, and by walks from the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.ladder import rungs, statistics_of
from harness.experiments.repetition.bigrams import BIGRAM
from harness.experiments.repetition.hazards import FoldHazards
from harness.experiments.repetition.kept import KeptFit, keep
from harness.experiments.repetition.opened import Opened
from harness.experiments.repetition.scores import one_law
from harness.experiments.repetition.settings import BASE, NO_BASE, left_out
from harness.experiments.repetition.sources import DECODED, LOGIT, LOGITS, RAW
from harness.experiments.repetition.training_walks import TrainingWalks
from harness.experiments.repetition.walks_kept import keep_walks
from harness.runs.units import Work
from harness.surrogates._fitting.cut_walks import cut_walks
from harness.surrogates.vocabulary_base import Along, Law, ScoredText, VocabularySurrogate

CUTS = ("top_h", "top_k", "top_p", "min_p")


def fold(work: Work) -> pd.DataFrame:
    """Do one fold of one strategy."""
    s, opened = {**work.settings, "laws": fitted_laws(work.settings)}, Opened.of(work)
    train, judged, names, chosen = opened.train, opened.judged, opened.names, opened.chosen
    rows = opened.rows(work)
    _base_rows(rows, opened)
    walks: list[dict[str, Any]] = []
    fits: dict[str, KeptFit] = {}
    hazards = FoldHazards(rows, s, train, judged)
    hazards.of_model()
    training = TrainingWalks(rows, s, [work.inputs[0], *work.inputs[2 + len(s["neutral"]) :]])
    plan = list(_fits(s, bool(names)))
    without = left_out(tuple(s["statistics"]), bool(names)) if s.get("removed") else {}
    total = len(plan) + len(without)
    if set(LOGITS) & set(s["surrogates"]):
        opened.compute_contexts(statistics_of(s["statistics"]))
    before: dict[tuple[str, str], Mapping[str, float]] = {}
    for index, (law, name, rung, statistics) in enumerate(plan):
        label = f"{name}, {rung}" if rung else name
        work.progress(index / total, f"fitting {label} to the {law} law")
        surrogate = make(name, statistics, chosen, before.get((law, name))).fit(opened.observations(law))
        if name in LOGITS:
            before[law, name] = surrogate.weights_  # type: ignore[attr-defined]
        condition = {"law": law, **({"rung": rung} if rung else {})}
        if (law, name) == (DECODED, LOGIT):
            fits[rung] = KeptFit.of(surrogate)  # type: ignore[arg-type]
        for fact in surrogate.extra_rows():
            where = {**fact.where, "condition": {**condition, **fact.where.get("condition", {})}}
            rows.add(fact.metric, fact.value, surrogate=name, split="train", **where)
        for text in judged:
            along = surrogate.along(text)
            one_step(rows, name, condition, along, text, text.laws[law])
            hazards.of_text(name, condition, text, along)
        hazards.of_surrogate(name, condition, surrogate)
        work.progress((index + 0.7) / total, f"walks of {label}")
        walks += walk(s, surrogate, name, condition, judged)
        training.of_surrogate(name, condition, surrogate)
    for index, (entry, statistics) in enumerate(without.items(), len(plan)):
        work.progress(index / total, f"fitting {LOGIT} without {entry}")
        base = NO_BASE if entry == BASE else chosen
        near = before.get((DECODED, LOGIT))
        surrogate = make(LOGIT, statistics, base, near).fit(opened.observations(DECODED))
        for text in judged:
            where = _where(LOGIT, {"law": DECODED, "without": entry}, text)
            _log_loss(rows, surrogate.along(text), where)
    keep_walks(work.folder, walks, s)
    keep(work.folder, fits)
    return rows.frame()


def fitted_laws(s: dict[str, Any]) -> list[str]:
    """The laws that surrogates are fitted to: one, where the strategy makes both the same.

    Args:
        s: settings of the unit.
    """
    same = DECODED in s["laws"] and one_law(s["temperature"], s["options"])
    return [DECODED] if same else list(s["laws"])


def _base_rows(rows: Rows, opened: Opened) -> None:
    """Rows of all base transitions that could be chosen."""
    for name, loss in opened.losses.items():
        where: dict[str, Any] = {"surrogate": BIGRAM, "split": "train", "condition": {"base": name}}
        where["n"] = sum(map(len, opened.train))
        rows.add("base_loss", loss, **where)
        rows.add("base_chosen", float(name == opened.chosen), **where)


def _fits(s: dict[str, Any], base: bool) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """(law, surrogate, rung, statistics) in the order of the ladder."""
    declared = registry.surrogates("vocabulary")
    for law in s["laws"]:
        for name in [name for name in declared if name in s["surrogates"]]:
            if name in LOGITS:
                some = s.get("raw_rungs", ()) if law == RAW else ()
                ladder = rungs(tuple(s["statistics"])).items()
                yield from ((law, name, rung, every) for rung, every in ladder if not some or rung in some)
            elif name != BIGRAM or base:
                yield law, name, "", ()


def make(
    name: str, statistics: tuple[str, ...], base: str, start: Mapping[str, float] | None = None
) -> VocabularySurrogate:
    """A surrogate of one rung, not fitted; `start`: the weights of the rung below, or others near by."""
    made: type[VocabularySurrogate] = registry.surrogate(name, "vocabulary")
    if name in LOGITS:
        return made(statistics, base, start=start)  # type: ignore[call-arg]
    return made(base) if name == BIGRAM else made()  # type: ignore[call-arg]


def one_step(rows: Rows, name: str, condition: dict[str, Any], found: Along, text: ScoredText, law: Law) -> None:
    """Rows of one judged text: how well its next tokens are predicted."""
    mass = law.inside.sum(axis=1, dtype=np.float64)
    speaks = mass > 1e-9
    where = _where(name, condition, text)
    _log_loss(rows, found, where)
    rows.add("new_share", float(found.new.mean()), **where)
    if not speaks.any():
        rows.add("kl", None, missing="the law gives nothing to tokens of the context", **where)
        return
    p = law.inside[speaks].astype(np.float64) / mass[speaks, None]
    log = np.where(text.known[speaks], found.log_inside[speaks], -np.inf)
    log -= np.logaddexp.reduce(log, axis=1)[:, None]
    held = p > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(held, p * (np.log(np.where(held, p, 1.0)) - np.where(held, log, 0.0)), 0.0)
    rows.add("kl", float(terms.sum(axis=1).mean()), **{**where, "n": int(speaks.sum())})
    right = float((log.argmax(axis=1) == p.argmax(axis=1)).mean())
    rows.add("top_token", right, **{**where, "n": int(speaks.sum())})


def _where(name: str, condition: dict[str, Any], text: ScoredText) -> dict[str, Any]:
    """Columns of the rows of one judged text."""
    of_text = {"prompt": text.prompt, "group": text.group, "n": len(text)}
    return {"surrogate": name, "condition": condition, "split": "held_out", **of_text}


def _log_loss(rows: Rows, found: Along, where: dict[str, Any]) -> None:
    loss = float(-found.log_next.mean())
    if np.isfinite(loss):
        rows.add("log_loss", loss, **where)
    else:
        gone = int(np.isinf(found.log_next).sum())
        rows.add("log_loss", None, missing=f"infinite: {gone} tokens that came had probability 0", **where)


def walk(
    s: dict[str, Any],
    surrogate: VocabularySurrogate,
    name: str,
    condition: dict[str, Any],
    judged: Sequence[ScoredText],
) -> list[dict[str, Any]]:
    """Walks of one surrogate from every judged prompt, after each number of the model's own tokens.

    To walks of the raw law the strategy is applied, with its cuts. They only start at the first of these, where the
    decoded one is walked too, and so do rungs that are not among `warm_rungs`, where some are named.
    """
    law, rung, found = condition["law"], condition.get("rung", ""), []
    temperature = 1.0 if law == DECODED else s["temperature"]
    cuts = {} if law == DECODED or temperature is None else {k: v for k, v in s["options"].items() if k in CUTS}
    if cuts and surrogate.reader() is None:
        return []
    seeds = 1 if temperature is None else s["rollout_seeds"]
    late = rung in ("", *s.get("warm_rungs", [rung])) and (law == DECODED or DECODED not in s["laws"])
    starts = s["warm_starts"] if late else [min(s["warm_starts"])]
    for start in starts:
        texts = [text for text in judged if len(text) > start]
        for seed in range(seeds):
            number = derive_seed(s["seed"], "repetition", s["strategy"], name, rung, law, seed)
            steps = max((len(text) - start for text in texts), default=0)
            prompts = [text.tokens[: text.start + start] for text in texts]
            paths: Any = []
            if texts and cuts:
                paths = cut_walks(surrogate.reader, prompts, steps, number, temperature, cuts)
            elif texts:
                paths = surrogate.rollout(prompts, steps, number, temperature)
            for text, path in zip(texts, paths, strict=True):
                found.append(
                    {
                        "experiment": "repetition",
                        "model": s["model"],
                        "strategy": s["strategy"],
                        "source": name,
                        "rung": rung,
                        "law": law,
                        "t0": start,
                        "seed": seed,
                        "split": "held_out",
                        "prompt": text.prompt,
                        "continuation": path[: len(text) - start].tolist(),
                    }
                )
    return found
