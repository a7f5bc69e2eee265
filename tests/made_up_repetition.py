"""Rows of the experiment `repetition` with known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.core.rows import Rows
from harness.experiments.repetition.margins import MARGINS

RUNGS = ("counts", "recency", "followed-by-1", "followed-by-2 + followed-by-3")
GAPS = {"counts": -0.3, "recency": -0.3, "followed-by-1": -0.01, "followed-by-2 + followed-by-3": 0.0}
"""Rung -> seq_rep_4 of its walks of the decoded law, less the model's .5."""
ENERGIES = {"counts": 3.0, "recency": 3.0, "followed-by-1": 1.0, "followed-by-2 + followed-by-3": 1.0}
LOSSES = {"counts": 3.0, "recency": 2.9, "followed-by-1": 2.4, "followed-by-2 + followed-by-3": 2.4}
REMOVED = {"counts": 0.02, "recency": 0.0, "followed-by-1": 0.3, "followed-by-2 + followed-by-3": 0.0}
"""Rung -> rise of the last one's log loss without it; base transitions are worth 1, all statistics 1.5."""
RAW_GAP = 0.4
"""How much more walks of the raw law repeat than those of the decoded one."""
NULL, CEILING, ENTROPY = 4.0, 0.5, 2.0
SEEN = 0.05
"""By how much the energy score of a prompt is less where the fit saw it."""
CHOSEN = {0: "followed-by-1", 1: "followed-by-1", 2: "followed-by-1"}
"""Fold -> its rung."""


def repetition_rows(
    models: Sequence[str] = ("m",),
    strategies: Sequence[str] = ("greedy", "temperature=1"),
    groups: int = 12,
    starts: Sequence[int] = (0,),
    laws: Sequence[str] = ("decoded", "raw"),
    gaps: Mapping[str, float] = GAPS,
    energies: Mapping[str, float] = ENERGIES,
    ceiling: float = CEILING,
    spread: float = 0.01,
    level: float = 0.5,
    chosen: Mapping[int, str] | None = CHOSEN,
    margins: Mapping[str, float] = MARGINS,
    removed: bool = False,
    refined: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Rows of groups of two prompts each; every mean is exactly as given.

    Args:
        models, strategies: each model with each strategy.
        groups: of two prompts, judged in three folds.
        starts: tokens of the model's own text before a surrogate takes over.
        laws: that surrogates were fitted to; walks of the raw law exist for the strategies without top_p.
        gaps, energies: of the rungs.
        ceiling: energy score of the model itself.
        spread: standard deviation of what is added to each prompt.
        level: seq_rep_4 of the model.
        chosen: the rung of each of the three folds; None where none was chosen.
        margins: of all strategies; empty: those of the program.
        removed: with fits that leave something out.
        refined: refinement -> what it changes in seq_rep_4 of the last rung; a tenth of it in its log loss.
    """
    rng = np.random.default_rng(0)
    prompts = [(f"p{place:02}", f"g{place // 2:02}", place % 3) for place in range(2 * groups)]
    frames = []

    def noise(size: float = spread) -> np.ndarray:
        drawn = rng.standard_normal(len(prompts))
        found: np.ndarray = size * (drawn - drawn.mean())
        return found

    for model in models:
        for strategy in strategies:
            rows = Rows(experiment="repetition", model=model, strategy=strategy, split="held_out")

            def add(metric: str, values: Any, surrogate: str, condition: Any = None, seed: int | None = None) -> None:
                where: dict[str, Any] = {"surrogate": surrogate, "condition": condition or None, "seed": seed, "n": 48}
                for (prompt, group, fold), value in zip(prompts, values, strict=True):
                    rows.add(metric, float(value), prompt=prompt, group=group, fold=fold, **where)  # noqa: B023

            for law in laws:
                add("entropy", ENTROPY + noise(), "model", {"law": law}, 0)
                add("log_loss" if law == "raw" else "new_share", 0.25 + noise(), "model", {"law": law}, 0)
                _fitted(rows, add, noise, law)
            for entry, more in ({**REMOVED, "statistics": 1.5, "base": 1.0} if removed else {}).items():
                add("log_loss", 2.4 + more + noise(), "context-logit", {"law": "decoded", "without": entry})
            for name, more in (refined or {}).items():
                add("log_loss", 2.4 + more / 10 + noise(), "context-logit", _refined(name))
            for t0 in starts:
                later = {"t0": t0} if t0 else {}
                real = level + noise(4 * spread)
                _shown(add, real, "model", later, noise)
                for name, score in (("model-reseeded", ceiling), ("model-shuffled", NULL), ("constant", 5.0)):
                    _scored(add, score + (noise() if score else np.zeros(len(prompts))), name, later)
                for law in [one for one in laws if one == "decoded" or "top_p" not in strategy]:
                    more = RAW_GAP if law == "raw" else 0.0
                    for rung, gap in gaps.items():
                        condition = {"law": law, "rung": rung, **later}
                        _shown(add, real + gap + more + noise(), "context-logit", condition, noise)
                        _scored(add, energies[rung] + 5 * more + noise(), "context-logit", condition)
                    for name, more in (refined or {}).items() if law == "decoded" else ():
                        condition = {**_refined(name), **later}
                        _shown(add, real + gaps[RUNGS[-1]] + more + noise(), "context-logit", condition, noise)
                        _scored(add, energies[RUNGS[-1]] + 5 * more + noise(), "context-logit", condition)
                    _shown(add, real - level + noise(), "suffix", {"law": law, **later}, noise)
                    _scored(add, 3.5 + noise(), "suffix", {"law": law, **later})
                _scored(add, 8.0 + noise(), "never-repeats", later)
            for name, margin in margins.items():
                rows.add(f"margin_{name}", margin, surrogate="model", n=1)
            if chosen is not None and "decoded" in laws:
                _training(rows, prompts, energies)
            frames.append(rows.frame())
        if chosen is not None and "decoded" in laws:
            frames.append(_choice(model, len(strategies), chosen, energies))
    return pd.concat(frames, ignore_index=True)


def _refined(name: str) -> dict[str, str]:
    return {"law": "decoded", "rung": RUNGS[-1], "refined": name}


def _fitted(rows: Rows, add: Any, noise: Any, law: str) -> None:
    """One step ahead, and the weights of two folds: those of the last rung are 1 and 3, with errors .1 and .2."""
    for name, rung, loss in (("suffix", "", 3.2), *(("context-logit", rung, LOSSES[rung]) for rung in RUNGS)):
        condition = {"law": law, **({"rung": rung} if rung else {})}
        add("log_loss", loss + noise(), name, condition)
        add("new_share", 0.2 + noise(), name, condition)
        add("kl", 0.5 + noise(), name, condition)
        add("top_token", 0.4 + noise(), name, condition)
        for fold, weight, error in ((0, 1.0, 0.1), (1, 3.0, 0.2)):
            where = {"surrogate": name, "split": "train", "fold": fold}
            rows.add("weight", weight, condition={**condition, "weight": "log-count"}, **where)
            if rung:
                rows.add("weight_error", error, condition={**condition, "weight": "log-count"}, **where)


def _training(rows: Rows, prompts: list[tuple[str, str, int]], energies: Mapping[str, float]) -> None:
    """Energy scores of training prompts in each fold, exactly `SEEN` below those of judged ones on average."""
    for fold in range(3):
        for rung, energy in energies.items():
            where = {"surrogate": "context-logit", "condition": {"law": "decoded", "rung": rung}, "split": "train"}
            for place, (prompt, group, own) in enumerate(prompts):
                if own != fold:
                    aside = 0.001 * (place - (len(prompts) - 1) / 2)
                    rows.add("training_energy", energy - SEEN + aside, prompt=prompt, group=group, fold=fold, **where)


def _choice(model: str, strategies: int, chosen: Mapping[int, str], energies: Mapping[str, float]) -> pd.DataFrame:
    """What the unit of the choice leaves."""
    rows = Rows(experiment="repetition", model=model, surrogate="context-logit", split="train", n=16)
    for fold, rung in chosen.items():
        condition = {"law": "decoded", "rung": rung}
        rows.add("chosen_rung", RUNGS.index(rung) + 1, fold=fold, condition=condition)
        for name in RUNGS:
            where = {"fold": fold, "condition": {"law": "decoded", "rung": name}}
            rows.add("choice_energy", strategies * (energies[name] - SEEN), **where)
            rows.add("choice_loss", strategies * LOSSES[name], **where)
            if name != RUNGS[-1]:
                rows.add("choice_p", 0.001 if energies[name] > 2 else 0.6, **where)
    return rows.frame()


def _shown(add: Any, repeats: np.ndarray, name: str, condition: dict[str, Any], noise: Any) -> None:
    for metric in ("seq_rep_1", "seq_rep_4", "above_half"):
        add(metric, repeats, name, condition, 0)
    add("loop_share", 0.1 + noise(), name, condition, 0)
    add("loop_onset", 30 + 100 * noise(), name, condition, 0)
    add("loop_period", 6 + 100 * noise(), name, condition, 0)
    add("new_tokens", 0.3 + noise(), name, condition, 0)


def _scored(add: Any, scores: np.ndarray, name: str, condition: dict[str, Any]) -> None:
    for metric in ("energy_score", "crps_seq_rep_4", "window_energy", "winner_energy"):
        add(metric, scores, name, condition)
