"""The units that set strengths: as strong as raises the loss by each level on one half of the texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.attention.capture import IntArray
from harness.attention.interventions import Intervention, intervene
from harness.core.rows import Rows
from harness.experiments._shared.continuations import Continuation
from harness.experiments.causes.learning import read_change, texts_of
from harness.experiments.causes.settings import OWN
from harness.experiments.causes.texts import MATCH, REPORT
from harness.runs.units import Work

STEPS = 4  # strengths up to the full one at which the loss is measured before a level is looked for
TRIALS = 12  # further ones for a level
CLOSE = 0.03  # of a level: near enough
BATCH = 1024  # tokens that go through the model at once, padding included
NO_HEADS = "the model has no head of this kind"


@dataclass(frozen=True)
class Found:
    """What a search for a level ended with.

    Attributes:
        strength: None where the level is not reached.
        rise: of the loss, at the strength.
    """

    strength: float | None
    rise: float


class Search:
    """Looks for the strengths at which a rise reaches its levels; every strength is tried once.

    Args:
        rise: of the loss, by strength; 0 at 0.
        full: the largest strength.
    """

    def __init__(self, rise: Callable[[float], float], full: float) -> None:
        self._rise, self._full = rise, full
        self.tried: dict[float, float] = {0.0: 0.0}

    def at(self, strength: float) -> float:
        """The rise at a strength."""
        if strength not in self.tried:
            self.tried[strength] = self._rise(strength)
        return self.tried[strength]

    @property
    def largest(self) -> float:
        """The largest rise that any strength above 0 made."""
        return max(value for strength, value in self.tried.items() if strength > 0)

    def level(self, level: float) -> Found:
        """The least strength at which the rise reaches a level, as far as the strengths that are tried can say.

        Between a strength at which it is below and one at which it is not, the next one is where a straight line
        reaches the level (false position with the Illinois rule), or the middle where that does not help.
        """
        for step in range(STEPS):  # from weak to strong: a bracket is found without trying what breaks the model
            if self.at(self._full * 4.0 ** (step + 1 - STEPS)) >= level:
                break
        below, above = self._bracket(level)
        if above is None:
            return Found(None, self.largest)
        weights = [1.0, 1.0]
        for trial in range(TRIALS):
            best = min((below, above), key=lambda one: abs(self.at(one) - level))
            if abs(self.at(best) - level) <= CLOSE * level:
                return Found(best, self.at(best))
            low, high = weights[0] * (self.at(below) - level), weights[1] * (self.at(above) - level)
            middle = below + (above - below) * (-low / (high - low)) if trial % 3 < 2 else (below + above) / 2
            if self.at(middle) < level:
                below, weights = middle, [1.0, weights[1] / 2]
            else:
                above, weights = middle, [weights[0] / 2, 1.0]
        best = min((below, above), key=lambda one: abs(self.at(one) - level))
        return Found(best, self.at(best))

    def _bracket(self, level: float) -> tuple[float, float | None]:
        """The strengths around the first crossing of those that were tried."""
        before = 0.0
        for strength in sorted(self.tried):
            if self.tried[strength] >= level:
                return before, strength
            before = strength
        return before, None


def losses(model: Any, texts: Sequence[tuple[IntArray, int]], change: Intervention | None, strength: float) -> Any:
    """[n] mean loss of each text over its tokens from a start on, nats; padded batches of texts of like length.

    Args:
        model: which runs.
        texts: token ids [T], and the first position that is predicted, at least 1.
        change: what is done to it; None for nothing.
        strength: of that.
    """
    found = np.zeros(len(texts))
    order = sorted(range(len(texts)), key=lambda place: (len(texts[place][0]), place))
    batches: list[list[int]] = []
    for place in order:
        if not batches or (len(batches[-1]) + 1) * len(texts[place][0]) > BATCH:
            batches.append([])
        batches[-1].append(place)
    with torch.inference_mode():
        for batch in batches:
            width = max(len(texts[place][0]) for place in batch)
            tokens, mask = torch.zeros(2, len(batch), width, dtype=torch.long, device=model.device)
            for row, place in enumerate(batch):
                ids = texts[place][0]
                tokens[row, width - len(ids) :] = torch.as_tensor(ids)
                mask[row, width - len(ids) :] = 1
            padding = {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
            if change is None:
                logits = model(tokens, use_cache=False, **padding).logits
            else:
                with intervene(model, change, strength):
                    logits = model(tokens, use_cache=False, **padding).logits
            for row, place in enumerate(batch):
                count = len(texts[place][0]) - texts[place][1]
                own = torch.log_softmax(logits[row, -1 - count : -1].float(), -1)
                written = tokens[row, -count:, None]
                found[place] = -float(own.gather(1, written).double().mean())
    if not np.isfinite(found).all():
        place = int(np.argmin(np.isfinite(found)))
        raise FloatingPointError(f"text {place} of {len(found)}: the loss under the intervention is {found[place]}")
    return found


def calibrate(work: Work) -> pd.DataFrame:
    """Do one intervention on one sort of texts: `strengths.json` (level -> strength), rises on both halves."""
    from harness.models import loading

    s = work.settings
    work.progress(0.0, "loading the model")
    model = loading.model_of(work.local)
    rows = Rows(
        experiment="causes", model=s["model"], revision=s["revision"], surrogate=s["intervention"], seed=s["seed"]
    )
    change = read_change(model, work.inputs, s["intervention"], s["layers"], s["seed"])
    match, report = ([one for _, one in _read(work, part)] for part in (MATCH, REPORT))
    names = [c for c, _ in _read(work, REPORT)]
    strengths: dict[str, float | None] = {}
    base = {half: losses(model, texts, None, 0.0) for half, texts in (("match", match), ("report", report))}
    search: Search | None = None
    if change is not None:

        def rise(strength: float) -> float:
            work.progress(0.2, f"loss at strength {strength:.3g}")
            changed = losses(model, match, change, strength)
            return float(np.mean(changed - base["match"]))

        search = Search(rise, change.full)
    for number, level in enumerate(s["levels"]):
        condition = {"intervention": s["intervention"], "text": s["text"], "level": level}
        found = Found(None, 0.0) if search is None else search.level(level)
        strengths[f"{level:g}"] = found.strength
        where: dict[str, Any] = {"condition": condition, "split": "train", "n": len(match)}
        if found.strength is None:
            reason = NO_HEADS if search is None else "full strength does not reach the level"
            rows.add("strength", None, missing=reason, **where)
            continue
        rows.add("strength", found.strength, **where)
        rows.add("loss_rise", found.rise, **where)
        work.progress(0.3 + 0.7 * number / len(s["levels"]), f"loss on the other half at level {level:g}")
        changed = losses(model, report, change, found.strength)
        for c, (ids, start), value in zip(names, report, changed - base["report"], strict=True):
            where = {"prompt": c.prompt, "group": s["groups"].get(c.prompt), "n": len(ids) - start}
            rows.add("loss_rise", float(value), condition=condition, split="held_out", **where)
    about = {"intervention": s["intervention"], "text": s["text"]}
    if search is not None:
        rows.add("largest_rise", search.largest, condition=about, split="train", n=len(match))
    for c, (ids, start), value in zip(names, report, base["report"], strict=True):
        where = {"prompt": c.prompt, "group": s["groups"].get(c.prompt), "n": len(ids) - start}
        rows.add("loss_without", float(value), condition=about, split="held_out", **where)
    (work.folder / "strengths.json").write_text(json.dumps(strengths) + "\n", encoding="utf-8")
    return rows.frame()


def _read(work: Work, part: str) -> list[tuple[Continuation, tuple[IntArray, int]]]:
    """Texts of a part with the first position that is predicted: of the model's own, the first that it wrote."""
    s, found = work.settings, []
    for c in texts_of(work, part):
        start = len(c.prompt_tokens) if s["text"] == OWN else 1
        tokens = c.tokens[: max(s["max_length"], start + 1)]
        if len(tokens) > start:
            found.append((c, (tokens, start)))
    return found
