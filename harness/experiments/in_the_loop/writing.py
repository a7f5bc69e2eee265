"""Continuations of held-out prompts with heads replaced, measured as those of the model itself are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.attention.capture import IntArray
from harness.core.rows import MODEL, RESEEDED, Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.continuations import Continuation, decoding_condition, read_continuations
from harness.experiments._shared.head_sets import HeadSet, make_sets
from harness.experiments._shared.loop_arms import read_alone, read_arm, read_heads
from harness.measures.agreement import winner_measures
from harness.measures.repetition import repetition_measures
from harness.measures.winners import own_winner_measures
from harness.runs.units import Work
from harness.runs.writing import write_parquet

AGREEMENT = ("winner_jaccard", "dominance_area")


def written_by_model(work: Work, strategy: str | None = None) -> dict[tuple[str, str, int], Continuation]:
    """(strategy, prompt, seed) -> the model's own continuation of a held-out prompt."""
    folders = [folder for folder in work.inputs if (folder / "trajectories.parquet").exists()]
    found = [c for folder in folders for c in read_continuations(folder) if c.split == "held_out"]
    return {(c.strategy, c.prompt, c.seed): c for c in found if strategy in (None, c.strategy)}


def add_measures(rows: Rows, continuation: IntArray, before: IntArray, **where: Any) -> None:
    """Rows of everything that one continuation says about its repetition and its winners."""
    for metric, found in {**repetition_measures(continuation), **own_winner_measures(continuation, before)}.items():
        rows.add(metric, found.value, missing=found.missing, n=len(continuation), **where)


def add_agreement(rows: Rows, real: IntArray, other: IntArray, before: IntArray, **where: Any) -> None:
    """Rows of how far two continuations of a prompt agree, both cut to the length of the shorter."""
    length = min(len(real), len(other))
    found = winner_measures(real[:length], other[:length], before)
    for metric in AGREEMENT:
        rows.add(metric, found[metric].value, missing=found[metric].missing, n=length, **where)


def own(work: Work) -> pd.DataFrame:
    """Do the model itself: its continuations, and each seed against the next one."""
    s = work.settings
    rows = Rows(experiment="in-the-loop", model=s["model"], revision=s["revision"], split="held_out")
    rows.add("margin_seq_rep_4", s["margin"], surrogate=MODEL, n=1)
    known = written_by_model(work)
    seeds: dict[tuple[str, str], list[int]] = {}
    for strategy, prompt, seed in known:
        seeds.setdefault((strategy, prompt), []).append(seed)
    for (strategy, prompt, seed), c in known.items():
        condition = decoding_condition(s["ignore_eos"])
        where: dict[str, Any] = {
            "strategy": strategy, "prompt": prompt, "group": c.group, "seed": seed, "condition": condition,
        }  # fmt: skip
        add_measures(rows, c.continuation, c.prompt_tokens, surrogate=MODEL, **where)
        others = sorted(seeds[strategy, prompt])
        if len(others) > 1:
            other = known[strategy, prompt, others[(others.index(seed) + 1) % len(others)]]
            add_agreement(
                rows, c.continuation, other.continuation, c.prompt_tokens, surrogate=RESEEDED, **where
            )  # the ceiling
    return rows.frame()


def write(work: Work) -> pd.DataFrame:
    """Do one arm and strategy: continuations with each set of heads."""
    from harness.models import loading, tokenizers
    from harness.models.language_model import generate

    s = work.settings
    work.progress(0.0, "loading the model")
    model, tokenizer = loading.model_of(work.local), tokenizers.load_tokenizer(Path(work.local["path"]))
    arm = read_arm(model, work.inputs, s["arm"], s["longest"], s["order"])
    sets = make_sets(read_heads(work.inputs), s["order"], s["families"], s, alone=read_alone(work.inputs, s["order"]))
    rows = Rows(
        experiment="in-the-loop", model=s["model"], revision=s["revision"], surrogate=s["arm"],
        strategy=s["strategy"], split="held_out",
    )  # fmt: skip
    real, trajectories = written_by_model(work, s["strategy"]), []
    jobs = [(one, seed) for one in sets for seed in range(s["seeds"])]
    for number, (one, seed) in enumerate(jobs):

        def progress(share: float, what: str, number: int = number) -> None:
            work.progress((number + share) / len(jobs), f"set {number + 1} of {len(jobs)}, {what}")

        with arm.replacing(one.heads, s["first_position"]):
            made = generate(
                model, tokenizer, work.local["tokens"], temperature=s["temperature"],
                max_new_tokens=s["max_new_tokens"],
                seed=derive_seed(s["seed"], "continuations", s["strategy"], seed),  # the noise of the model's own
                batch_size=s["batch_size"], ignore_eos=s["ignore_eos"], options={**s["options"], **s["defaults"]},
                progress=progress,
            )  # fmt: skip
        trajectories += _judged(rows, work, one, seed, made, real, tokenizer)
    write_parquet(pd.DataFrame(trajectories), work.folder / "trajectories.parquet")
    return rows.frame()


def _judged(
    rows: Rows,
    work: Work,
    one: HeadSet,
    seed: int,
    made: list[IntArray],
    real: dict[tuple[str, str, int], Continuation],
    tokenizer: Any,
) -> list[dict[str, Any]]:
    """Rows of the continuations of one set and seed; returns their trajectories."""
    s, trajectories = work.settings, []
    condition = {**one.condition, "first_position": s["first_position"], **(decoding_condition(s["ignore_eos"]) or {})}
    for prompt, ids, tokens in zip(s["prompts"], work.local["tokens"], made, strict=True):
        group = prompt.get("group", prompt["id"])
        where: dict[str, Any] = {"prompt": prompt["id"], "group": group, "seed": seed, "condition": condition}
        add_measures(rows, tokens, np.asarray(ids), **where)
        own_text = real[s["strategy"], prompt["id"], seed].continuation
        add_agreement(rows, own_text, tokens, np.asarray(ids), **where)
        trajectories.append(
            {
                "experiment": "in-the-loop",
                "model": s["model"],
                "strategy": s["strategy"],
                "source": json.dumps({"surrogate": s["arm"], **condition}, sort_keys=True),
                "seed": seed,
                "split": "held_out",
                "prompt": prompt["id"],
                "group": group,
                "kind": prompt["kind"],
                "prompt_tokens": ids,
                "continuation": tokens.tolist(),
                "text": tokenizer.decode(tokens, skip_special_tokens=False),
            }
        )
    return trajectories
