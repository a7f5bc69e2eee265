"""Experiment `generation`: do chains fitted to a model's next-token distributions repeat what the model repeats?

Per strategy: the model scores its own texts; its next-token distributions, restricted to the context, are what the
surrogates are fitted to (training prompts) and judged on (held-out prompts). Then every surrogate continues the
held-out prompts with the same strategy, cut to the real length, and is measured as the real continuations are.

Two rows frame the surrogates. Ceiling, `model-reseeded`: the model itself with another seed. Floor, `model-shuffled`:
the model's own continuations, each compared with the prompt of another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.config import Config
from harness.experiment_settings import GenerationExperiment
from harness.experiments.continuations import (
    Continuation,
    Model,
    continuation_unit,
    local,
    read_continuations,
    real_units,
)
from harness.experiments.fidelity_rows import add_finite, add_ridge, fidelity_means
from harness.measures.repetition import repetition_measures
from harness.measures.winners import own_winner_measures, winner_measures
from harness.prompts import Prompt
from harness.rows import Rows
from harness.seeds import derive_seed
from harness.store import write_parquet
from harness.surrogates.base import Decoding, Observations, Surrogate, pair_mass
from harness.surrogates.ccmc_fit import CCMCFit, FlatPrior
from harness.surrogates.counts import Counts
from harness.surrogates.in_context_bigram import InContextBigram
from harness.texts import LocalVocabulary, Text
from harness.units import Unit, Work

IntArray = np.ndarray[Any, np.dtype[np.int64]]
SHUFFLES = 5


def plan(
    config: Config, settings: GenerationExperiment, model: Model, prompts: list[Prompt], device: str
) -> list[Unit]:
    """One unit per strategy, after the units that make its texts and, for sampling, the reseeded held-out ones."""
    units: list[Unit] = []
    held_out = [prompt for prompt in prompts if prompt.split == "held_out"]
    for strategy in config.generation.strategies:
        texts = real_units(config, model, prompts, strategy, device)
        if strategy != "greedy":
            texts.append(continuation_unit(config, model, held_out, strategy, config.generation.seeds, device))
        name = texts[0].settings["strategy"]
        units += texts
        units.append(
            Unit(
                "harness.experiments.generation:strategy",
                f"{model.name}: surrogates of generation, {name}",
                {
                    **model.settings(),
                    "strategy": name,
                    "temperature": texts[0].settings["temperature"],
                    "surrogates": list(settings.surrogates),
                    "rollout_seeds": 1 if strategy == "greedy" else settings.rollout_seeds,
                    "reseeded": None if strategy == "greedy" else config.generation.seeds,
                    "seed": config.seed,
                },
                tuple(texts),
                local(model, device),
            )
        )
    return units


def make_surrogate(name: str, seed: int) -> Surrogate:
    """A surrogate of generation by its name in the ladder."""
    if name == "ccmc-fit":
        return CCMCFit(FlatPrior(), seed)
    plain: dict[str, type[Surrogate]] = {"counts": Counts, "in-context-bigram": InContextBigram}
    return plain[name]()


def strategy(work: Work) -> pd.DataFrame:
    """Do one strategy."""
    from harness.sources import loading
    from harness.sources.language_model import next_token_distributions

    s = work.settings
    work.progress(0.0, "loading the model")
    path = Path(work.local["path"])
    model, tokenizer = loading.load_model(path, work.local["device"]), loading.load_tokenizer(path)
    continuations = [c for folder in work.inputs for c in read_continuations(folder)]
    reseeded = {c.prompt: c for c in continuations if c.seed == s["reseeded"]}
    real = [c for c in continuations if c.seed != s["reseeded"]]
    vocabulary = LocalVocabulary(c.tokens for c in real)
    rows = Rows(
        experiment="generation",
        model=s["model"],
        revision=s["revision"],
        strategy=s["strategy"],
        split="held_out",
    )

    scored: list[tuple[Continuation, Text, Any]] = []
    for index, c in enumerate(real):
        work.progress(0.7 * index / len(real), f"scoring text {index + 1} of {len(real)}")
        if len(c.continuation) == 0:
            continue  # the model ended at once: nothing was continued
        text = Text(vocabulary.local(c.tokens), start=len(c.prompt_tokens) - 1, stop=len(c.tokens) - 1)
        found = next_token_distributions(model, c.tokens, text)
        rows.add(
            "in_context_mass",
            float(found.in_context_mass.mean()),
            surrogate="model",
            split=c.split,
            prompt=c.prompt,
            seed=c.seed,
            n=len(text),
        )
        scored.append((c, text, found.restricted))
    train = [entry for entry in scored if entry[0].split == "train"]
    held_out = [entry for entry in scored if entry[0].split == "held_out"]
    if not train or not held_out:
        raise ValueError(
            "the model ended every training or every held-out prompt at once; there is nothing to fit or judge"
        )
    observations = Observations(
        texts=[text for _, text, _ in train],
        groups=[c.prompt for c, _, _ in train],
        wins=[pair_mass(text, target[None], len(vocabulary)) for _, text, target in train],
        vocab_size=len(vocabulary),
        targets=[target for _, _, target in train],
    )
    fitted: dict[str, Surrogate] = {}
    for index, name in enumerate(s["surrogates"]):
        work.progress(0.7 + 0.1 * index / len(s["surrogates"]), f"fitting {name}")
        fitted[name] = make_surrogate(name, derive_seed(s["seed"], "generation", s["strategy"])).fit(observations)
        for ridge in getattr(fitted[name], "ridge_", ()):
            add_ridge(rows, float(ridge), surrogate=name)
        for c, text, target in held_out:
            for metric, values in fidelity_means(target[None], fitted[name].predict(text)).items():
                add_finite(rows, metric, float(values[0]), surrogate=name, prompt=c.prompt, seed=c.seed, n=len(text))

    judged = [c for c in real if c.split == "held_out"]
    comparison = Comparison(rows, judged, reseeded, derive_seed(s["seed"], "floor", s["strategy"]))
    comparison.frame_rows()
    decoding = Decoding(s["temperature"])
    trajectories = []
    prompts = {c.prompt: vocabulary.local(c.prompt_tokens) for c in judged}
    steps = [max(len(c.continuation) for c in judged if c.prompt == prompt) for prompt in prompts]
    for index, (name, surrogate) in enumerate(fitted.items()):
        for seed in range(s["rollout_seeds"]):
            done = index * s["rollout_seeds"] + seed
            work.progress(0.8 + 0.2 * done / (len(fitted) * s["rollout_seeds"]), f"continuing with {name}, seed {seed}")
            rollout_seed = derive_seed(s["seed"], "rollout", s["strategy"], name, seed)
            rollouts = surrogate.rollout(list(prompts.values()), steps, rollout_seed, decoding)
            made = {prompt: vocabulary.ids[tokens] for prompt, tokens in zip(prompts, rollouts, strict=True)}
            comparison.add(name, seed, made)
            trajectories += [
                {
                    "experiment": "generation",
                    "model": s["model"],
                    "strategy": s["strategy"],
                    "source": name,
                    "seed": seed,
                    "split": "held_out",
                    "prompt": prompt,
                    "kind": None,
                    "prompt_tokens": next(c.prompt_tokens for c in judged if c.prompt == prompt).tolist(),
                    "continuation": tokens.tolist(),
                    "text": tokenizer.decode(tokens, skip_special_tokens=False),
                }
                for prompt, tokens in made.items()
            ]
    write_parquet(pd.DataFrame(trajectories), work.folder / "trajectories.parquet")
    return rows.frame()


class Comparison:
    """Measures of real continuations and of what is compared with them, prompt by prompt.

    Args:
        rows: where the rows go.
        real: the held-out continuations.
        reseeded: prompt -> continuation with another seed; empty for greedy decoding, which has only one.
        seed: of the shuffles that make the floor.
    """

    def __init__(self, rows: Rows, real: list[Continuation], reseeded: dict[str, Continuation], seed: int) -> None:
        self.rows, self.real, self.reseeded, self.seed = rows, real, reseeded, seed

    def _own(
        self, surrogate: str, seed: int, c: Continuation, tokens: IntArray, condition: dict[str, int] | None
    ) -> None:
        measures = {**repetition_measures(tokens), **own_winner_measures(tokens, c.prompt_tokens)}
        for metric, found in measures.items():
            self.rows.add(
                metric,
                found.value,
                missing=found.missing,
                surrogate=surrogate,
                prompt=c.prompt,
                seed=seed,
                condition=condition,
                n=len(tokens),
            )

    def _pair(self, surrogate: str, seed: int, c: Continuation, tokens: IntArray) -> None:
        """Compare one continuation with the real one, both cut to the shorter of the two."""
        length = min(len(tokens), len(c.continuation))
        other, condition = tokens[:length], {"real_seed": c.seed}
        self._own(surrogate, seed, c, other, condition)
        pair = winner_measures(c.continuation[:length], other, c.prompt_tokens)
        for metric, found in pair.items():
            if metric != "winner_size":  # stands among its own measures
                self.rows.add(
                    metric,
                    found.value,
                    missing=found.missing,
                    surrogate=surrogate,
                    prompt=c.prompt,
                    seed=seed,
                    condition=condition,
                    n=length,
                )

    def frame_rows(self) -> None:
        """The real measures, the ceiling and the floor."""
        for c in self.real:
            self._own("model", c.seed, c, c.continuation, None)
            other = self.reseeded.get(c.prompt, c)  # greedy decoding repeats itself: its ceiling is perfect
            self._pair("model-reseeded", other.seed, c, other.continuation)
        for seed in sorted({c.seed for c in self.real}):
            group = [c for c in self.real if c.seed == seed]
            order = np.random.default_rng(self.seed).permutation(len(group))
            for shift in range(1, min(SHUFFLES, len(group) - 1) + 1):
                for place, index in enumerate(order):
                    other = group[order[(place + shift) % len(group)]]
                    self._pair("model-shuffled", shift, group[index], other.continuation)

    def add(self, surrogate: str, seed: int, made: dict[str, IntArray]) -> None:
        """Compare a surrogate's rollouts, prompt -> token ids, with every real continuation of the prompt."""
        for c in self.real:
            self._pair(surrogate, seed, c, made[c.prompt][: len(c.continuation)])
