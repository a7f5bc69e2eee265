"""The unit of the model's laws: its next-token distributions along its texts, raw and after decoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file

from ccmc import BaseTransition, NumberedText
from harness.core.rows import MODEL, Rows
from harness.experiments._shared.continuations import Continuation, read_continuations
from harness.experiments.repetition import bases
from harness.experiments.repetition.bigrams import BIGRAM, Bigrams, expected_name
from harness.runs.units import Work
from harness.surrogates.vocabulary_base import Law, ScoredText

FILE = "laws.safetensors"
SIZE = "vocab_size"
LAWS = ("raw", "decoded")
PARTS = ("entropy", "log_next")


def score(work: Work) -> pd.DataFrame:
    """Do one strategy: one teacher-forced pass over each text of the first seed."""
    from harness.models import loading
    from harness.models.base_reading import vocabulary_size

    s = work.settings
    texts = [c for c in read_continuations(work.inputs[0]) if len(c.continuation)]
    if not texts:
        raise ValueError("the model ended every prompt at once; there is nothing to fit or judge")
    given = {name: bases.load(folder) for name, folder in zip(s["neutral"], work.inputs[1:], strict=True)}
    work.progress(0.0, "loading the model")
    model = loading.model_of(work.local)
    size = vocabulary_size(model, int(texts[0].tokens[0]))
    counted = _bigrams(texts, s, size) if "bigram" in s else None
    names = [*given, *([] if counted is None else map(expected_name, counted.judged))]
    shared = {"model": s["model"], "revision": s["revision"], "strategy": s["strategy"]}
    rows = Rows(experiment="repetition", split="held_out", surrogate=MODEL, **shared)
    kept: dict[str, list[np.ndarray[Any, Any]]] = {}
    for index, c in enumerate(texts):
        work.progress(index / len(texts), f"the model's laws, text {index + 1} of {len(texts)}")
        of_text = given if counted is None else {**given, **counted.along(c.prompt)}
        for law, found in laws_along(model, c, s["temperature"], s["options"], of_text).items():
            kept.setdefault(f"{law}/inside", []).append(found.inside.astype(np.float32).ravel())
            for part in PARTS:
                kept.setdefault(f"{law}/{part}", []).append(getattr(found, part))
            for name in names:  # a text has no bigram for the fold in which it is judged
                values = found.log_base.get(name, np.full(len(found.entropy), np.nan))
                kept.setdefault(f"{law}/log_base/{name}", []).append(values)
            where: dict[str, Any] = {"prompt": c.prompt, "n": len(c.continuation), "seed": c.seed}
            where |= {"fold": s["folds"][c.prompt], "group": s["groups"][c.prompt], "condition": {"law": law}}
            rows.add("entropy", float(found.entropy.mean()), **where)
            if law == "raw":  # after decoding, rounding may give what came nothing: the entropy is the reference
                rows.add("log_loss", float(-found.log_next.mean()), **where)
            rows.add("new_share", float(found.new.mean()), **where)
    joined = {name: np.concatenate(values) for name, values in kept.items()}
    save_file({**joined, SIZE: np.array([size])}, work.folder / FILE)
    return rows.frame()


def _bigrams(texts: Sequence[Continuation], s: dict[str, Any], size: int) -> Bigrams:
    folds = {prompt: -1 if fold is None else fold for prompt, fold in s["folds"].items()}
    return Bigrams([(c.prompt, s["groups"][c.prompt], folds[c.prompt], c.tokens) for c in texts], size, s["bigram"])


def read_vocabulary_size(scores: Path) -> int:
    """Over how many tokens the laws of a unit's folder are."""
    return int(load_file(scores / FILE)[SIZE][0])


def laws_along(
    model: Any, c: Continuation, temperature: float | None, options: dict[str, Any], given: dict[str, BaseTransition]
) -> dict[str, Law]:
    """The model's distributions along one text, by both laws."""
    from harness.models.base_reading import expected_log

    tokens, start = c.tokens, len(c.prompt_tokens)
    with torch.inference_mode():
        logits = model(torch.as_tensor(tokens, device=model.device)[None], use_cache=False).logits[0, start - 1 : -1]
        text = NumberedText.of(tokens)
        types = torch.as_tensor(text.types, device=logits.device)
        known = np.arange(len(text.types)) < text.sizes(start)[:, None]
        following = torch.as_tensor(tokens[start:], device=logits.device)[:, None]
        found = {}
        for law in LAWS:
            p = torch.softmax(logits.float(), -1) if law == "raw" else decoded(logits.float(), temperature, options)
            log = torch.log(torch.where(p > 0, p, torch.ones_like(p)))
            came = torch.gather(p, 1, following)[:, 0].double().cpu().numpy()
            inside = np.where(known, p[:, types].double().cpu().numpy(), 0.0)
            of_base = {name: expected_log(base, tokens[start - 1 : -1], p) for name, base in given.items()}
            entropy = -(p * log).sum(-1).double().cpu().numpy()
            found[law] = Law(inside, entropy, np.log(np.maximum(came, 1e-300)), of_base)
    return found


def decoded(logits: torch.Tensor, temperature: float | None, options: dict[str, Any]) -> torch.Tensor:
    """[n, V] the law of the decoded process: all on the likeliest token, or tempered and cut as the strategy does.

    Args:
        logits: [n, V] float32.
        temperature: None for greedy decoding.
        options: of the strategy.
    """
    from harness.models.sampling import cuts

    if temperature is None:
        law = torch.zeros_like(logits)
        law.scatter_(1, logits.argmax(-1, keepdim=True), 1.0)
        return law
    scores: torch.Tensor = logits
    for processor in cuts(temperature, {k: v for k, v in options.items() if k != "temperature"}):
        scores = processor(torch.zeros((len(scores), 1), dtype=torch.long), scores)
    return torch.softmax(scores, -1)


def one_law(temperature: float | None, options: dict[str, Any]) -> bool:
    """Does the strategy leave the model's distribution as it is, so that the raw and the decoded law are one?

    Args:
        temperature, options: of the strategy.
    """
    return temperature == 1.0 and not set(options) - {"temperature"}


def read_scored(texts: Path, scores: Path, settings: dict[str, Any], names: Sequence[str]) -> list[ScoredText]:
    """The scored texts of one strategy.

    Args:
        texts, scores: folders of the units.
        settings: of the fold, with `folds` and `groups`, and the fold that is `judged` where the bigram is named.
        names: of base transitions whose expected logs are read.
    """
    keys = {name: expected_name(settings["judged"]) if name == BIGRAM else name for name in names}
    arrays = load_file(scores / FILE)
    found, at, wide = [], 0, 0
    for c in read_continuations(texts):
        if not len(c.continuation):
            continue
        rows, types = len(c.continuation), len(NumberedText.of(c.tokens).types)
        part, block = slice(at, at + rows), slice(wide, wide + rows * types)
        laws = {
            law: Law(
                arrays[f"{law}/inside"][block].reshape(rows, types),
                arrays[f"{law}/entropy"][part],
                arrays[f"{law}/log_next"][part],
                {name: arrays[f"{law}/log_base/{key}"][part] for name, key in keys.items()},
            )
            for law in LAWS
        }
        at, wide = at + rows, wide + rows * types
        fold, group = settings["folds"][c.prompt], settings["groups"][c.prompt]
        found.append(ScoredText(c.prompt, group, -1 if fold is None else fold, c.tokens, len(c.prompt_tokens), laws))
    return found
