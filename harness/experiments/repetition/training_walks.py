"""Walks from training prompts: by their energy score a rung of the ladder is chosen before judged prompts are read.

The fits saw the texts of these prompts. That favours higher rungs, if anything, and hardly: some twenty weights are
fitted to tens of thousands of choices; base transitions that are counted in texts have counted these. The walks of
every prompt are judged in its own fold as well, so that a table shows how much lower the score of a prompt is where
fits saw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.continuations import Continuation, read_continuations
from harness.experiments.repetition.sources import DECODED, LOGIT, TRAINING_ENERGY
from harness.experiments.repetition.vectors import IntArray, energy_of, spreads, vectors
from harness.surrogates.vocabulary_base import VocabularySurrogate

SEEDS = 2  # walks of each prompt: more prompts tell more than more walks


class TrainingWalks:
    """Rows of one fold; none where its settings name no prompts to choose by.

    Args:
        rows: where they go.
        s: settings of the unit: `choice` names the training prompts that are walked from.
        folders: of the model's continuations, seed by seed; walks have the length of the first.
    """

    def __init__(self, rows: Rows, s: dict[str, Any], folders: Sequence[Path]) -> None:
        self.rows, self.s = rows, s
        self.chosen: list[str] = s.get("choice", [])
        self.start: int = min(s["warm_starts"])
        self.real: dict[str, list[Continuation]] = {}
        if not self.chosen:
            return
        for folder in folders:
            for c in read_continuations(folder):
                if s["folds"][c.prompt] != s["judged"]:
                    self.real.setdefault(c.prompt, []).append(c)
        known = [c for of in self.real.values() for c in of if len(c.continuation) > self.start]
        self.scale = spreads(vectors([self._parts(c) for c in known]))
        self.walked = [name for name in self.chosen if all(len(c.continuation) > self.start for c in self.real[name])]

    def of_surrogate(self, name: str, condition: dict[str, Any], surrogate: VocabularySurrogate) -> None:
        """Walk from every prompt and score the walks; nothing of surrogates that no rung is chosen of."""
        if not self.chosen or name != LOGIT or condition["law"] != DECODED or not self.walked:
            return
        firsts = [self.real[prompt][0] for prompt in self.walked]
        steps = [len(c.continuation) - self.start for c in firsts]
        prompts = [self._parts(c)[1] for c in firsts]
        paths: list[list[IntArray]] = [[] for _ in firsts]
        for seed in range(SEEDS):
            number = derive_seed(self.s["seed"], "choice", self.s["strategy"], name, condition["rung"], seed)
            walks = surrogate.rollout(prompts, max(steps), number, 1.0)
            for of, walk, length in zip(paths, walks, steps, strict=True):
                of.append(np.asarray(walk[:length], dtype=np.int64))
        for prompt, first, of in zip(self.walked, firsts, paths, strict=True):
            observed = self.real[prompt] if self.start == 0 else [first]  # later starts continue the first text
            before = self._parts(first)[1]
            x = vectors([(path, before) for path in of])
            score = energy_of(x, vectors([self._parts(c) for c in observed]), self.scale)
            where = {"surrogate": name, "condition": condition, "split": "train", "prompt": prompt}
            where |= {"group": self.s["groups"][prompt], "n": score.observations}
            self.rows.add(TRAINING_ENERGY, score.value, missing=score.missing, **where)

    def _parts(self, c: Continuation) -> tuple[IntArray, IntArray]:
        """What is judged of a continuation, and what stands before it."""
        return c.continuation[self.start :], np.concatenate([c.prompt_tokens, c.continuation[: self.start]])
