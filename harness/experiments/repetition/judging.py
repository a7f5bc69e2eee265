"""The unit that judges walks: the figures of every continuation, and proper scores of every law, prompt by prompt.

Four rows frame the surrogates. `model-reseeded`, the model's other seeds, is the ceiling: no law has a smaller expected
score. `model-shuffled`, the model's continuations of training prompts, knows the law over prompts but not which prompt
it is. `constant` always writes one training continuation, and `never-repeats` repeats nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.core.rows import MODEL, RESEEDED, SHUFFLED, Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.continuations import Continuation, read_continuations
from harness.experiments.repetition.sources import CONSTANT, NEVER, Source
from harness.experiments.repetition.vectors import (
    FIGURES,
    FloatArray,
    IntArray,
    defined,
    distances,
    energy_of,
    figures,
    spreads,
    vector,
    vectors,
)
from harness.experiments.repetition.walks_kept import read_walks
from harness.measures.measurement import Measurement
from harness.measures.windows import inverse_document_frequency, window_distances, winner_distances
from harness.runs.units import Work
from harness.stats.proper import Score, energy, self_energy

DRAWN = 8  # continuations of training prompts that stand for the law over prompts


def judge(work: Work) -> pd.DataFrame:
    """Judge one strategy."""
    s = work.settings
    texts = [{c.prompt: c for c in read_continuations(folder)} for folder in work.inputs[: s["texts"]]]
    walks = _walks(work.inputs[s["texts"] :])
    rows = Rows(
        experiment="repetition", model=s["model"], revision=s["revision"], strategy=s["strategy"], split="held_out"
    )
    for name, margin in s["margins"].items():
        rows.add(f"margin_{name}", margin, surrogate=MODEL, n=1)
    by_fold: dict[int, list[str]] = {}
    for prompt, number in s["folds"].items():
        if number is not None and all(len(of[prompt].continuation) for of in texts):
            by_fold.setdefault(number, []).append(prompt)
    done, total = 0, sum(map(len, by_fold.values())) * len(s["warm_starts"])
    for number, prompts in sorted(by_fold.items()):
        train = [c for of in texts for p, c in of.items() if s["folds"][p] != number and len(c.continuation)]
        for t0 in s["warm_starts"]:
            judged = [p for p in prompts if all(len(of[p].continuation) > t0 for of in texts)]
            frame = _Frame(rows, s, train, t0, number)
            for prompt in judged:
                work.progress(done / max(total, 1), f"judging prompt {done + 1} of {total}")
                frame.judge(prompt, [of[prompt] for of in texts], walks)
                done += 1
    return rows.frame()


def _walks(folders: Sequence[Any]) -> dict[tuple[str, int], dict[Source, list[IntArray]]]:
    """(prompt, t0) -> source -> its walks, seed by seed."""
    found: dict[tuple[str, int], dict[Source, list[IntArray]]] = {}
    for folder in folders:
        frame = read_walks(folder)
        for row in frame.to_dict("records"):
            source = Source(str(row["source"]), str(row["law"]), str(row["rung"]), int(row["t0"]),
                            refined=str(row.get("refined", "")))  # fmt: skip
            of = found.setdefault((str(row["prompt"]), source.t0), {}).setdefault(source, [])
            of.append(np.asarray(row["continuation"], dtype=np.int64))
    return found


class _Frame:
    """Rows of one fold and warm start.

    Args:
        rows: where they go.
        s: settings of the unit.
        train: continuations of the other folds, all seeds: spreads, document frequencies and the constant law.
        t0: tokens of the model's own text before a surrogate takes over.
        fold: its number.
    """

    def __init__(self, rows: Rows, s: dict[str, Any], train: Sequence[Continuation], t0: int, fold: int) -> None:
        self.rows, self.s, self.t0, self.fold = rows, s, t0, fold
        later = [c for c in train if len(c.continuation) > t0]
        self.later = later
        self.idf = inverse_document_frequency([c.continuation[t0:] for c in later] or [np.zeros(1, np.int64)])
        known = vectors([self.parts(c) for c in later])
        self.scale = spreads(known)
        there = ~np.isnan(known).all(axis=0)  # short texts may have no figure of loops at all
        middle = np.where(there, np.nanmedian(np.where(there, known, 0.0), axis=0), np.nan)
        place = int(np.nanargmin(np.nansum(((known - middle) / self.scale) ** 2, axis=1)))
        self.constant = later[place].continuation[t0:] if later else np.zeros(1, np.int64)

    def parts(self, c: Continuation) -> tuple[IntArray, IntArray]:
        """What is judged of one of the model's continuations, and what stands before it."""
        return c.continuation[self.t0 :], np.concatenate([c.prompt_tokens, c.continuation[: self.t0]])

    def judge(self, prompt: str, real: Sequence[Continuation], walks: Mapping[tuple[str, int], Any]) -> None:
        """Rows of one prompt.

        Args:
            prompt: its id.
            real: the model's continuations, seed by seed; surrogates continue the first.
            walks: of surrogates.
        """
        observed = [self.parts(c) for c in real] if self.t0 == 0 else [self.parts(real[0])]
        measured = [figures(*of) for of in observed]
        for seed, found in enumerate(measured):
            self._add(Source(MODEL, t0=self.t0), prompt, seed, found)
        y, y_texts = np.stack([vector(found) for found in measured]), [text for text, _ in observed]
        one = bool(self.s["one"])
        if self.t0 == 0 and len(y) > 1:
            self._scores(Source(RESEEDED), prompt, self._own(y, y_texts))
        elif one:
            self._scores(Source(RESEEDED, t0=self.t0), prompt, self._own(y, y_texts, deterministic=True))
        before, length = observed[0][1], len(y_texts[0])
        drawn = [text[:length] for text in self._climatology(prompt)]
        laws: dict[Source, tuple[list[IntArray], bool]] = {
            Source(SHUFFLED, t0=self.t0): (drawn, False),
            Source(CONSTANT, t0=self.t0): ([self.constant[:length]], True),
        }
        for source, paths in walks.get((prompt, self.t0), {}).items():
            greedy = source.law == "raw" and self.s["temperature"] is None
            laws[source] = ([path[:length] for path in paths], greedy)
        for source, (paths, deterministic) in laws.items():
            every = [figures(path, before) for path in paths]
            if source.name not in (SHUFFLED, CONSTANT):
                for seed, of_seed in enumerate(every):
                    self._add(source, prompt, seed, of_seed)
            if every:
                x = np.stack([vector(of_seed) for of_seed in every])
                self._scores(source, prompt, self._against(x, y, paths, y_texts, deterministic))
        never = np.zeros((1, len(FIGURES)))
        never[0, FIGURES.index("new_tokens")] = 1.0
        self._scores(Source(NEVER, t0=self.t0), prompt, self._against(never, y, None, y_texts, deterministic=True))

    def _climatology(self, prompt: str) -> list[IntArray]:
        """One continuation of each of several training prompts, drawn anew for every judged prompt."""
        by_prompt = {c.prompt: c for c in self.later}  # one seed of each
        names = sorted(by_prompt)
        rng = np.random.default_rng(derive_seed(self.s["seed"], "climatology", self.s["strategy"], prompt))
        chosen = rng.permutation(len(names))[:DRAWN].tolist()
        return [by_prompt[names[index]].continuation[self.t0 :] for index in chosen]

    def _own(self, y: FloatArray, texts: Sequence[IntArray], deterministic: bool = False) -> dict[str, Score]:
        """The model's other seeds against each of its seeds."""
        there = defined(y)
        made = {"energy_score": self_energy(distances(y, y, self.scale, there), deterministic)}
        for place, name in enumerate(FIGURES):
            apart = np.abs(y[:, None, place] - y[None, :, place])
            made[f"crps_{name}"] = self_energy(apart, deterministic) if there[place] else _undefined(y, y)
        made["window_energy"] = self_energy(window_distances(texts, texts, self.idf), deterministic)
        made["winner_energy"] = self_energy(winner_distances(texts, texts), deterministic)
        return made

    def _against(
        self, x: FloatArray, y: FloatArray, paths: Sequence[IntArray] | None, texts: Sequence[IntArray],
        deterministic: bool,
    ) -> dict[str, Score]:  # fmt: skip
        """Draws [n_x, figures] of a law against the model's seeds [n_y, figures]."""
        alone = len(x) == 1 and not deterministic
        there = defined(x, y)
        made = {"energy_score": energy_of(x, y, self.scale, deterministic)}
        for place, name in enumerate(FIGURES):
            if not there[place]:
                made[f"crps_{name}"] = _undefined(x, y)
                continue
            across, among = np.abs(x[:, None, place] - y[None, :, place]), np.abs(x[:, None, place] - x[None, :, place])
            made[f"crps_{name}"] = energy(across, None if alone else among, deterministic)
        if paths is not None:
            for metric, distance in (
                ("window_energy", lambda a, b: window_distances(a, b, self.idf)),
                ("winner_energy", winner_distances),
            ):
                made[metric] = energy(distance(paths, texts), None if alone else distance(paths, paths), deterministic)
        return made

    def _add(self, source: Source, prompt: str, seed: int, found: Mapping[str, Measurement]) -> None:
        for metric, one in found.items():
            self.rows.add(metric, one.value, missing=one.missing, seed=seed, n=1, **self._where(source, prompt))

    def _scores(self, source: Source, prompt: str, found: Mapping[str, Score]) -> None:
        for metric, score in found.items():
            self.rows.add(
                metric, score.value, missing=score.missing, n=score.observations, **self._where(source, prompt)
            )

    def _where(self, source: Source, prompt: str) -> dict[str, Any]:
        group = self.s["groups"][prompt]
        where = {"surrogate": source.name, "condition": source.condition, "prompt": prompt}
        return {**where, "group": group, "fold": self.fold}


def _undefined(x: FloatArray, y: FloatArray) -> Score:
    return Score(None, 0.0, None, len(x), len(y), "a continuation is too short for the figure")
