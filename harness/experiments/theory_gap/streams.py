"""What the models of `theory-gap` learn from: paths of a teacher chain, or windows of a stream of characters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ccmc import simulate
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.continuations import read_texts
from harness.experiments._shared.sampling import IntArray
from harness.experiments._shared.small_models import Data
from harness.experiments._shared.teachers import gaussian_chain
from harness.runs.units import Work

STREAMS = "streams.json"
OTHER = "\N{REPLACEMENT CHARACTER}"  # in place of every character that is not frequent enough
_STOPPING = 32  # sequences kept back from training, for early stopping


def teacher_paths(s: Mapping[str, Any], seed: int) -> Data:
    """Uniform prompts, each continued by one random chain with normal logits."""
    rng = np.random.default_rng(derive_seed(seed, "teacher"))
    K, total = s["vocab_size"], s["sequences"] + _STOPPING + s["held_out_sequences"]
    chain = gaussian_chain(K, s["logit_sd"], rng)
    prompts = rng.integers(0, K, (total, s["prompt_length"]))
    paths = np.concatenate([prompts, simulate(chain, prompts, s["steps"], seed=derive_seed(seed, "paths"))], axis=1)
    train, stopping, held_out = np.split(paths, [s["sequences"], s["sequences"] + _STOPPING])
    return Data(train, stopping, held_out, [str(index) for index in range(len(train))], K)


def characters(work: Work) -> pd.DataFrame:
    """The unit that makes streams of characters of the prompts' texts, each with the model's continuations of it.

    Lower case, blanks run together. The most frequent characters of the training texts are tokens, all others are
    one. Without units to read it takes the prompts' texts alone.
    """
    s = work.settings
    texts = {p["id"]: p["text"] for p in s["prompts"]}
    for folder in work.inputs:
        for prompt, text in read_texts(folder):
            texts[prompt] += text
    split = {p["id"]: p["split"] for p in s["prompts"]}
    plain = {name: " ".join(text.lower().split()) for name, text in texts.items()}
    seen = Counter(c for name, text in sorted(plain.items()) if split[name] == "train" for c in text)
    alphabet = sorted(c for c, _ in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[: s["characters"] - 1])
    number = {c: index for index, c in enumerate(alphabet)}
    streams = [
        {"id": name, "split": split[name], "tokens": [number.get(c, len(alphabet)) for c in text]}
        for name, text in plain.items()
    ]
    found = {"alphabet": [*alphabet, OTHER], "streams": streams}
    (work.folder / STREAMS).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    rows = Rows(experiment="theory-gap", model="one-layer", condition={"data": "text"})
    for part in ("train", "held_out"):
        lengths = [len(stream["tokens"]) for stream in streams if stream["split"] == part]
        rows.add("length", float(sum(lengths)), split=part, n=len(lengths))
    return rows.frame()


def windows(folder: Path, s: Mapping[str, Any], seed: int) -> Data:
    """Windows of streams of characters: of the training prompts to learn from, of the held-out ones to judge.

    Raises:
        ValueError: no stream of a split is as long as a window.
    """
    stored = json.loads((folder / STREAMS).read_text(encoding="utf-8"))
    length = s["prompt_length"] + s["steps"]
    parts: dict[str, list[tuple[str, list[int]]]] = {"train": [], "held_out": []}
    for stream in stored["streams"]:
        if len(stream["tokens"]) >= length:
            parts[stream["split"]].append((stream["id"], stream["tokens"]))
    for part, streams in parts.items():
        if not streams:
            raise ValueError(f"no {part} text has {length} characters; give longer texts or lower prompt_length, steps")
    rng = np.random.default_rng(derive_seed(seed, "windows"))
    train, groups = _draw(parts["train"], s["sequences"] + _STOPPING, length, rng)
    held_out, _ = _draw(parts["held_out"], s["held_out_sequences"], length, rng)
    n = s["sequences"]
    return Data(train[:n], train[n:], held_out, groups[:n], len(stored["alphabet"]))


def _draw(
    streams: Sequence[tuple[str, list[int]]], number: int, length: int, rng: np.random.Generator
) -> tuple[IntArray, list[str]]:
    """Windows [number, length] at random places, every place as likely as any other, and the streams they are from."""
    places = np.array([len(tokens) - length + 1 for _, tokens in streams])
    chosen = rng.choice(len(streams), number, p=places / places.sum())
    starts = [int(rng.integers(0, places[index])) for index in chosen]
    pieces = [streams[index][1][start : start + length] for index, start in zip(chosen, starts, strict=True)]
    return np.array(pieces, dtype=np.int64), [streams[index][0] for index in chosen]
