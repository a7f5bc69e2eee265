"""The units that continue held-out prompts under an intervention, and measure what is written."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.attention.capture import IntArray
from harness.core.rows import MODEL, Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.continuations import decoding_condition
from harness.experiments.causes.learning import read_change
from harness.experiments.causes.settings import NGRAM
from harness.measures.measurement import Measurement, shorter_than
from harness.measures.repetition import repetition_measures
from harness.measures.winners import own_winner_measures
from harness.runs.units import Work
from harness.runs.writing import write_parquet

NOT_REACHED = "the level is not reached"


def context_repetition(continuation: IntArray, before: IntArray, n: int = 4) -> Measurement:
    """Share of n-grams of a continuation that occurred earlier, in its prompt or in itself.

    Args:
        continuation: [T] token ids.
        before: [L] those of the prompt.
        n: size of the n-grams; they lie inside the continuation.
    """
    if len(continuation) < n:
        return shorter_than(n)
    ids = np.concatenate([before, continuation]).tolist()
    seen, repeated, start = set(), 0, len(before)
    for place in range(len(ids) - n + 1):
        gram = tuple(ids[place : place + n])
        repeated += place >= start and gram in seen
        seen.add(gram)
    return Measurement(repeated / (len(continuation) - n + 1))


def write(work: Work) -> pd.DataFrame:
    """Do one job: continuations of all prompts in one context."""
    from harness.attention.interventions import intervene
    from harness.models import loading, tokenizers
    from harness.models.language_model import generate

    s, job = work.settings, work.settings["job"]
    name = job["intervention"]
    rows = Rows(
        experiment="causes", model=s["model"], revision=s["revision"], strategy=s["strategy"], split="held_out",
        surrogate=MODEL if name == "none" else name,
    )  # fmt: skip
    if name == "none":
        rows.add("repeats", s["repeats"], split=None, n=1)
        rows.add("margin_seq_rep_4", s["margin"], split=None, n=1)
    strength: float | None = 0.0
    if "level" in job:
        file = next(folder / "strengths.json" for folder in work.inputs if (folder / "strengths.json").exists())
        strength = json.loads(file.read_text(encoding="utf-8"))[f"{job['level']:g}"]
    if strength is None:
        rows.add("seq_rep_4", None, missing=NOT_REACHED, condition={**job, "context": s["context"]})
        return rows.frame()
    work.progress(0.0, "loading the model")
    model, tokenizer = loading.model_of(work.local), tokenizers.load_tokenizer(Path(work.local["path"]))
    change = read_change(model, work.inputs, name, s["layers"], s["seed"]) if "level" in job else None
    options = dict(s["options"]) | ({"no_repeat_ngram": job["n"]} if name == NGRAM else {})
    trajectories: list[dict[str, Any]] = []
    for seed in range(s["seeds"]):

        def progress(share: float, what: str, seed: int = seed) -> None:
            work.progress((seed + share) / s["seeds"], what)

        with nullcontext() if change is None else intervene(model, change, strength):
            made = generate(
                model, tokenizer, work.local["tokens"], temperature=s["temperature"],
                max_new_tokens=s["max_new_tokens"],
                seed=derive_seed(s["seed"], "continuations", s["strategy"], seed),  # the same noise in all jobs
                batch_size=s["batch_size"], ignore_eos=s["ignore_eos"], options=options, progress=progress,
            )  # fmt: skip
        trajectories += _measured(rows, work, seed, made, tokenizer)
    write_parquet(pd.DataFrame(trajectories), work.folder / "trajectories.parquet")
    return rows.frame()


def _measured(rows: Rows, work: Work, seed: int, made: list[IntArray], tokenizer: Any) -> list[dict[str, Any]]:
    """Rows of the continuations of one seed; returns their trajectories."""
    s, trajectories = work.settings, []
    condition = {**s["job"], "context": s["context"], **(decoding_condition(s["ignore_eos"]) or {})}
    for prompt, ids, tokens in zip(s["prompts"], work.local["tokens"], made, strict=True):
        where: dict[str, Any] = {
            "prompt": prompt["id"], "group": prompt["group"], "seed": seed, "condition": condition, "n": len(tokens),
        }  # fmt: skip
        before = np.asarray(ids, dtype=np.int64)
        found = {**repetition_measures(tokens), **own_winner_measures(tokens, before)}
        found["context_rep_4"] = context_repetition(tokens, before)
        for metric, one in found.items():
            rows.add(metric, one.value, missing=one.missing, **where)
        trajectories.append(
            {
                "experiment": "causes",
                "model": s["model"],
                "strategy": s["strategy"],
                "source": json.dumps(condition, sort_keys=True),
                "seed": seed,
                "split": "held_out",
                "prompt": prompt["id"],
                "group": prompt["group"],
                "kind": prompt["kind"],
                "prompt_tokens": list(ids),
                "continuation": tokens.tolist(),
                "text": tokenizer.decode(tokens, skip_special_tokens=False),
            }
        )
    return trajectories
