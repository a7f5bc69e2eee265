"""The model's own continuations of the prompts: heads are read on them, surrogates are compared with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.config.decoding import Strategy, has_one_continuation
from harness.config.load import Config
from harness.config.model_defaults import resolve
from harness.core.hashing import canonical_hash
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.data.splits import Prompt
from harness.data.tokenisation import Encoded, Reader
from harness.measures.repetition import argmax_repeat_rate
from harness.runs.units import Unit, Work
from harness.runs.writing import write_parquet

if TYPE_CHECKING:
    from harness.models.token_scores import TokenScores

IntArray = np.ndarray[Any, np.dtype[np.int64]]


FULL = "float32"


@dataclass(frozen=True)
class Model:
    """A resolved model, as a plan needs it. The rows depend on name, revision and weights, not on where it is.

    Attributes:
        name: as the config writes it.
        path: the folder of its files.
        revision: of its weights; None for a local folder.
        weights_hash: SHA-256 over weights, config and tokenizer.
        layers: how many it has.
        tokens: prompt -> its token ids, as the model's tokenizer and chat template make them.
        allow_mismatch: units load it although files and config do not agree. What they then compute depends on the
            files and versions alone, which are in their identity.
        dtype: of its weights in memory.
        defaults: decoding fields of its folder that the run takes; none unless `generation.use_model_defaults`.
        reader: makes token ids of further texts.
        read: hashes of the ids of those that were made so far.
    """

    name: str
    path: Path
    revision: str | None
    weights_hash: str
    layers: int
    tokens: Mapping[str, Sequence[int]] = field(default_factory=dict)
    allow_mismatch: bool = False
    dtype: str = FULL
    defaults: Mapping[str, Any] = field(default_factory=dict)
    reader: Reader | None = field(default=None, compare=False, repr=False)
    read: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def settings(self) -> dict[str, Any]:
        half = {} if self.dtype == FULL else {"dtype": self.dtype}
        return {"model": self.name, "revision": self.revision, "weights": self.weights_hash, **half}

    def tokens_hash(self) -> str:
        """SHA-256 over the token ids of all prompts: of a mapping prompt -> SHA-256 of its ids, as units have them."""
        return canonical_hash({prompt: canonical_hash(list(ids)) for prompt, ids in self.tokens.items()})

    def encode(self, text: str, what: str) -> Encoded:
        """The token ids of a text that is no prompt; `what` it is, for messages."""
        assert self.reader is not None, "a model that was resolved for planning only reads no texts"
        encoded = self.reader.text(text, what)
        self.read[what] = canonical_hash(encoded.whole)
        return encoded

    def texts_hash(self) -> str | None:
        """SHA-256 over the token ids of all texts that are no prompts; None where there are none."""
        return canonical_hash(self.read) if self.read else None

    def report(self, texts: str) -> None:
        """Note what was decided about the texts that were encoded since the last report, such as "documents"."""
        if self.reader is not None:
            self.reader.report(texts)


def local(model: Model, device: str) -> dict[str, Any]:
    """What a unit needs to find the model on this machine."""
    allowed = {"allow_mismatch": True} if model.allow_mismatch else {}
    half = {} if model.dtype == FULL else {"dtype": model.dtype}
    return {"path": str(model.path.absolute()), "device": device, **allowed, **half}


def continuation_unit(
    config: Config, model: Model, prompts: list[Prompt], strategy: Strategy, seed: int, device: str
) -> Unit:
    """The unit that continues prompts with one strategy and one seed."""
    generation = config.generation
    resolved = resolve(strategy, model.defaults)
    settings = {
        **model.settings(),
        "prompts": [prompt_settings(model, prompt) for prompt in prompts],
        "strategy": resolved.name,
        "temperature": resolved.temperature,
        "options": resolved.options,
        **({"model_defaults": resolved.fields} if resolved.fields else {}),
        "record": generation.record,
        "max_new_tokens": smoke_length(config, generation.max_new_tokens),
        "batch_size": generation.batch_size,
        "ignore_eos": generation.ignore_eos,
        "seed": seed,
        "run_seed": config.seed,
    }
    label = f"{model.name}: continuing {len(prompts)} prompts, {settings['strategy']}, seed {seed}"
    task = "harness.experiments._shared.continuations:continue_prompts"
    return Unit(
        task,
        label,
        settings,
        local={**local(model, device), "tokens": tokens_of(model, prompts)},
        threads=config.threads,
    )


def prompt_settings(model: Model, prompt: Prompt) -> dict[str, Any]:
    """What rows depend on of a prompt: its name, kind, split and group, and the ids that the model reads.

    Its fold is not among them: what the model writes does not depend on that.
    """
    about = {"id": prompt.id, "kind": prompt.kind, "split": prompt.split}
    group = {"group": prompt.group} if prompt.group != prompt.id else {}
    return {**about, **group, "tokens_sha256": canonical_hash(list(model.tokens[prompt.id]))}


def tokens_of(model: Model, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids of prompts."""
    return [list(model.tokens[prompt.id]) for prompt in prompts]


def smoke_length(config: Config, longest: int) -> int:
    """Tokens of a text: as many as the config says; in a smoke run with `limit` N at most 32 N."""
    return longest if config.limit is None else min(longest, 32 * config.limit)


def real_units(config: Config, model: Model, prompts: list[Prompt], strategy: Strategy, device: str) -> list[Unit]:
    """The real continuations of all prompts: one unit per seed; greedy decoding has only one."""
    seeds = 1 if has_one_continuation(strategy) else config.generation.seeds
    return [continuation_unit(config, model, prompts, strategy, seed, device) for seed in range(seeds)]


def continue_prompts(work: Work) -> pd.DataFrame:
    """Do one unit: generate, and keep the trajectories."""
    from harness.models import loading, tokenizers

    s = work.settings
    path = Path(work.local["path"])
    work.progress(0.0, "loading the model")
    model, tokenizer = loading.model_of(work.local), tokenizers.load_tokenizer(path)
    ids: list[list[int]] = work.local["tokens"]
    recorded: dict[int, TokenScores] = {}
    continuations = _written(work, model, tokenizer, recorded)
    rows = Rows(
        experiment="continuations",
        model=s["model"],
        revision=s["revision"],
        strategy=s["strategy"],
        surrogate="model",
        seed=s["seed"],
        condition=decoding_condition(s["ignore_eos"]),
    )
    trajectories = []
    for index, (prompt, prompt_ids, continuation) in enumerate(zip(s["prompts"], ids, continuations, strict=True)):
        rows.add("length", len(continuation), **_about(prompt), n=1)
        trajectories.append(
            {
                "experiment": "continuations",
                "model": s["model"],
                "strategy": s["strategy"],
                "source": "model",
                "seed": s["seed"],
                **_about(prompt),
                "group": prompt.get("group", prompt["id"]),
                "kind": prompt["kind"],
                "prompt_tokens": prompt_ids,
                "continuation": continuation.tolist(),
                "text": tokenizer.decode(continuation, skip_special_tokens=False),
            }
        )
        if s["record"]:
            trajectories[-1] |= _record(rows, prompt, np.asarray(prompt_ids), continuation, recorded[index])
    write_parquet(pd.DataFrame(trajectories), work.folder / "trajectories.parquet")
    return rows.frame()


def _written(work: Work, model: Any, tokenizer: Any, recorded: dict[int, TokenScores]) -> list[Any]:
    """The continuation of each prompt of a unit; `recorded` gets the scores of their tokens.

    Raises:
        FloatingPointError: the model says nothing about the next token of a text; names both.
    """
    from harness.models.language_model import generate
    from harness.models.sampling import UnsoundOutputError

    s = work.settings
    try:
        return generate(
            model,
            tokenizer,
            work.local["tokens"],
            temperature=s["temperature"],
            max_new_tokens=s["max_new_tokens"],
            seed=derive_seed(s["run_seed"], "continuations", s["strategy"], s["seed"]),
            batch_size=s["batch_size"],
            ignore_eos=s["ignore_eos"],
            options={**s["options"], **s.get("model_defaults", {})},
            record=recorded.__setitem__ if s["record"] else None,
            progress=work.progress,
        )
    except UnsoundOutputError as error:
        prompt = s["prompts"][error.index]["id"]
        raise FloatingPointError(f"model {s['model']!r}, prompt {prompt!r}: {error.reason}") from None


def decoding_condition(ignore_eos: bool) -> dict[str, bool] | None:
    """What rows say about the end token: nothing where it ends a continuation, as it should."""
    return {"ignore_eos": True} if ignore_eos else None


def _about(prompt: dict[str, Any]) -> dict[str, Any]:
    """The columns of rows that say which prompt it is."""
    return {"split": prompt["split"], "prompt": prompt["id"], "group": prompt.get("group")}


def _record(
    rows: Rows, prompt: dict[str, Any], prompt_ids: IntArray, continuation: IntArray, found: TokenScores
) -> dict[str, Any]:
    """What the model thought of one continuation: columns of its trajectory, and rows of the means."""
    per_token = {
        "log_probability": found.log_probability,
        "entropy": found.entropy,
        "in_context_mass": found.in_context_mass,
    }
    where = {**_about(prompt), "n": len(continuation)}
    for metric, values in per_token.items():
        if len(values):
            rows.add(metric, float(values.mean()), **where)
        else:
            rows.add(metric, None, missing="the model ended at once", **where)
    repeats = argmax_repeat_rate(found.argmax, continuation, prompt_ids)
    rows.add("argmax_repeat_rate", repeats.value, missing=repeats.missing, **where)
    return {name: values.astype(np.float32).tolist() for name, values in per_token.items()}


@dataclass(frozen=True)
class Continuation:
    """One prompt and what the model made of it, in the model's token ids; `group` is the prompt's, or its id."""

    prompt: str
    split: str
    strategy: str
    seed: int
    prompt_tokens: IntArray
    continuation: IntArray
    group: str = ""

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
            str(row.get("group", row["prompt"])),
        )
        for row in frame.to_dict("records")
    ]


def read_texts(folder: Path) -> list[tuple[str, str]]:
    """The continuations of a unit as texts: (prompt, text) in the order of its prompts."""
    frame = pd.read_parquet(folder / "trajectories.parquet")
    return [(str(prompt), str(text)) for prompt, text in zip(frame["prompt"], frame["text"], strict=True)]
