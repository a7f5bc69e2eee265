"""The model's own continuations of the prompts: heads are read on them, surrogates are compared with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.config import Config, Sampling, Strategy, strategy_name
from harness.prompts import Prompt
from harness.rows import Rows
from harness.seeds import derive_seed
from harness.store import write_parquet
from harness.units import Unit, Work

IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Model:
    """A resolved model, as a plan needs it. The rows depend on name, revision and weights, not on where it stands."""

    name: str
    path: Path
    revision: str | None
    weights_hash: str
    layers: int

    def settings(self) -> dict[str, Any]:
        return {"model": self.name, "revision": self.revision, "weights": self.weights_hash}


def local(model: Model, device: str) -> dict[str, Any]:
    """What a unit needs to find the model on this machine."""
    return {"path": str(model.path.absolute()), "device": device}


def continuation_unit(
    config: Config, model: Model, prompts: list[Prompt], strategy: Strategy, seed: int, device: str
) -> Unit:
    """The unit that continues prompts with one strategy and one seed."""
    generation = config.generation
    settings = {
        **model.settings(),
        "prompts": [prompt.as_dict() for prompt in prompts],
        "strategy": strategy_name(strategy),
        "temperature": strategy.temperature if isinstance(strategy, Sampling) else None,
        "max_new_tokens": generation.max_new_tokens,
        "batch_size": generation.batch_size,
        "ignore_eos": generation.ignore_eos,
        "seed": seed,
        "run_seed": config.seed,
    }
    label = f"{model.name}: continuing {len(prompts)} prompts, {settings['strategy']}, seed {seed}"
    return Unit("harness.experiments.continuations:continue_prompts", label, settings, local=local(model, device))


def real_units(config: Config, model: Model, prompts: list[Prompt], strategy: Strategy, device: str) -> list[Unit]:
    """The real continuations of all prompts: one unit per seed; greedy decoding has only one."""
    seeds = 1 if strategy == "greedy" else config.generation.seeds
    return [continuation_unit(config, model, prompts, strategy, seed, device) for seed in range(seeds)]


def continue_prompts(work: Work) -> pd.DataFrame:
    """Do one unit: generate, and keep the trajectories."""
    from harness.sources import loading
    from harness.sources.language_model import generate

    s = work.settings
    path = Path(work.local["path"])
    work.progress(0.0, "loading the model")
    model, tokenizer = loading.load_model(path, work.local["device"]), loading.load_tokenizer(path)
    ids = [loading.encode(tokenizer, prompt["text"]) for prompt in s["prompts"]]
    continuations = generate(
        model,
        tokenizer,
        ids,
        temperature=s["temperature"],
        max_new_tokens=s["max_new_tokens"],
        seed=derive_seed(s["run_seed"], "continuations", s["strategy"], s["seed"]),
        batch_size=s["batch_size"],
        ignore_eos=s["ignore_eos"],
        progress=work.progress,
    )
    rows = Rows(
        experiment="continuations",
        model=s["model"],
        revision=s["revision"],
        strategy=s["strategy"],
        surrogate="model",
        seed=s["seed"],
    )
    trajectories = []
    for prompt, prompt_ids, continuation in zip(s["prompts"], ids, continuations, strict=True):
        rows.add("length", len(continuation), split=prompt["split"], prompt=prompt["id"], n=1)
        trajectories.append(
            {
                "experiment": "continuations",
                "model": s["model"],
                "strategy": s["strategy"],
                "source": "model",
                "seed": s["seed"],
                "split": prompt["split"],
                "prompt": prompt["id"],
                "kind": prompt["kind"],
                "prompt_tokens": prompt_ids,
                "continuation": continuation.tolist(),
                "text": tokenizer.decode(continuation, skip_special_tokens=False),
            }
        )
    write_parquet(pd.DataFrame(trajectories), work.folder / "trajectories.parquet")
    return rows.frame()


@dataclass(frozen=True)
class Continuation:
    """One prompt and what the model made of it, in the model's token ids."""

    prompt: str
    split: str
    strategy: str
    seed: int
    prompt_tokens: IntArray
    continuation: IntArray

    @property
    def tokens(self) -> IntArray:
        return np.concatenate([self.prompt_tokens, self.continuation])


def read_continuations(folder: Path) -> list[Continuation]:
    """The continuations that a unit left in its folder, in the order of its prompts."""
    frame = pd.read_parquet(folder / "trajectories.parquet")
    return [
        Continuation(
            str(row["prompt"]),
            str(row["split"]),
            str(row["strategy"]),
            int(row["seed"]),
            np.asarray(row["prompt_tokens"], dtype=np.int64),
            np.asarray(row["continuation"], dtype=np.int64),
        )
        for row in frame.to_dict("records")
    ]
