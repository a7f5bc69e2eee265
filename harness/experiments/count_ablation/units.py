"""Experiment `count-ablation`: does the count cause the repetition?

The theory says that a token is written again because it occurs in the context so often. So log(count of a token so
far) is taken from the attention scores of its positions, in all heads, in one half of the layers, in the heads whose
chains predict the training texts best and in random ones. Each is decoded greedily on held-out prompts, and its loss is
measured on prose and on the model's own text at temperature 1; penalties of the decoder are measured for comparison.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.data.texts import LocalVocabulary, Text
from harness.experiments._shared.continuations import read_continuations
from harness.measures.repetition import repetition_measures
from harness.measures.winners import own_winner_measures
from harness.runs.units import Work
from harness.runs.writing import write_parquet
from harness.surrogates._fitting.decoding import followers_of_tail
from harness.surrogates._fitting.head_chains import single_losses

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def rank(work: Work) -> pd.DataFrame:
    """Do the ranking: heads by how well their chains predict the model's greedy continuations of training prompts."""
    from harness.experiments._shared.static_chains import read_chains
    from harness.models import loading

    s = work.settings
    model = loading.model_of(work.local)
    found = [c for c in read_continuations(work.inputs[0]) if len(c.continuation)]
    vocabulary = LocalVocabulary(c.tokens for c in found)
    chains = read_chains(model, [c.tokens for c in found], vocabulary, work.progress)
    texts, targets = [], []
    for c in found:
        text = Text(vocabulary.local(c.tokens), start=len(c.prompt_tokens) - 1, stop=len(c.tokens) - 1)
        written = text.types == text.tokens[text.positions + 1][:, None]  # [n, U]
        # a token that is new to its context says nothing about chains, which cannot give it
        targets.append(np.where(text.counts > 0, written, 0.0).astype(float))
        texts.append(text)
    losses = single_losses(chains, texts, targets)
    rows = Rows(
        experiment="count-ablation", model=s["model"], revision=s["revision"], strategy="greedy", split="train",
        surrogate="ccmc-head", seed=s["seed"],
    )  # fmt: skip
    for chain, loss in zip(chains, losses, strict=True):
        rows.add("cross_entropy", float(loss), layer=chain.layer, head=chain.head, n=sum(map(len, texts)))
    order = np.argsort(losses, kind="stable")
    ranked = [[chains[index].layer, chains[index].head] for index in order]
    (work.folder / "heads.json").write_text(json.dumps(ranked) + "\n", encoding="utf-8")
    return rows.frame()


def chosen_heads(condition: dict[str, Any], ranked: list[list[int]], count: int, seed: int) -> dict[int, Any]:
    """Which heads lose the count: layer -> heads, None for all.

    Args:
        condition: one of `conditions`.
        ranked: (layer, head) of every head, the best first.
        count: size of the sets of best and of random heads.
        seed: of the random sets.
    """
    layers = sorted({layer for layer, _ in ranked})
    half = len(layers) // 2
    whole = {"all": layers, "first-half": layers[:half], "second-half": layers[half:]}
    part = condition["ablation"]
    if part in whole:
        return dict.fromkeys(whole[part])
    if part == "best-heads":
        picked = ranked[:count]
    else:
        rng = np.random.default_rng(derive_seed(seed, "random-heads", condition["draw"]))
        picked = [ranked[int(index)] for index in rng.permutation(len(ranked))[:count]]
    found: dict[int, Any] = {}
    for layer, head in sorted(picked):
        found.setdefault(layer, []).append(head)
    return found


def measure(work: Work) -> pd.DataFrame:
    """Do one condition: greedy continuations of the held-out prompts, and losses."""
    from harness.attention.count_ablation import without_counts
    from harness.models import loading, tokenizers
    from harness.models.language_model import generate

    s, condition = work.settings, work.settings["condition"]
    path = Path(work.local["path"])
    model, tokenizer = loading.model_of(work.local), tokenizers.load_tokenizer(path)
    ranked = json.loads((work.inputs[0] / "heads.json").read_text(encoding="utf-8"))
    ablated = condition.get("ablation", "none") != "none"
    options = {} if "ablation" in condition else condition
    rows = Rows(
        experiment="count-ablation", model=s["model"], revision=s["revision"], strategy="greedy", surrogate="model",
        condition=condition, seed=s["seed"],
    )  # fmt: skip
    change: Any = nullcontext()
    if ablated:
        heads = chosen_heads(condition, ranked, s["heads"], s["seed"])
        change = without_counts(model, float(condition["strength"]), heads)
    ids: list[list[int]] = work.local["tokens"]
    with change:
        made = generate(
            model, tokenizer, ids, temperature=None, max_new_tokens=s["max_new_tokens"], seed=s["seed"],
            batch_size=s["batch_size"], ignore_eos=s["ignore_eos"], options=options,
            progress=lambda share, what: work.progress(0.5 * share, what),
        )  # fmt: skip
        trajectories = _judged(rows, work, made, tokenizer)
        _losses(rows, work, model, options)
    write_parquet(pd.DataFrame(trajectories), work.folder / "trajectories.parquet")
    return rows.frame()


def _judged(rows: Rows, work: Work, made: list[IntArray], tokenizer: Any) -> list[dict[str, Any]]:
    """Rows of the measures of continuations, one per prompt; returns the trajectories."""
    s, trajectories = work.settings, []
    for prompt, prompt_ids, tokens in zip(s["prompts"], work.local["tokens"], made, strict=True):
        measures = {**repetition_measures(tokens), **own_winner_measures(tokens, np.asarray(prompt_ids))}
        for metric, found in measures.items():
            where: dict[str, Any] = {"split": prompt["split"], "prompt": prompt["id"], "n": len(tokens)}
            rows.add(metric, found.value, missing=found.missing, **where)
        trajectories.append(
            {
                "experiment": "count-ablation",
                "model": s["model"],
                "strategy": "greedy",
                "source": json.dumps(s["condition"], sort_keys=True),
                "seed": s["seed"],
                "split": prompt["split"],
                "prompt": prompt["id"],
                "kind": prompt["kind"],
                "prompt_tokens": prompt_ids,
                "continuation": tokens.tolist(),
                "text": tokenizer.decode(tokens, skip_special_tokens=False),
            }
        )
    return trajectories


def _losses(rows: Rows, work: Work, model: Any, options: dict[str, Any]) -> None:
    """Rows of the loss on prose and on the model's own text, one per text."""
    s = work.settings
    human = [(c.prompt, c.tokens.tolist(), 1) for c in read_continuations(work.inputs[2])]
    continued = [c for c in read_continuations(work.inputs[1]) if len(c.continuation)]
    own = [(c.prompt, c.tokens.tolist(), len(c.prompt_tokens)) for c in continued]
    for metric, texts in (("loss_prose", human), ("loss_model_text", own)):
        for index, (name, tokens, start) in enumerate(texts):
            work.progress(0.5 + 0.5 * index / len(texts), f"{metric}, text {index + 1} of {len(texts)}")
            tokens = tokens[: max(s["max_length"], start + 1)]
            loss = text_loss(model, tokens, start, options)
            where: dict[str, Any] = {"split": "held_out", "prompt": name, "n": len(tokens) - start}
            if np.isinf(loss):
                rows.add(metric, None, missing="infinite: the penalty forbids a token that was written", **where)
            else:
                rows.add(metric, loss, **where)


def text_loss(model: Any, tokens: list[int], start: int, options: dict[str, Any]) -> float:
    """Mean negative log-probability of a text's tokens from position `start` on, nats, penalties applied.

    Args:
        model: of `loading`.
        tokens: [T] token ids.
        start: the first token that is predicted, at least 1.
        options: repetition_penalty or no_repeat_ngram, or none.
    """
    ids: IntArray = np.asarray(tokens, dtype=np.int64)
    with torch.inference_mode():
        logits = model(torch.as_tensor(ids, device=model.device)[None]).logits[0, start - 1 : -1].double()  # [n, V]
        for row, position in enumerate(range(start, len(ids))):
            history = ids[:position]
            if "repetition_penalty" in options:
                seen = torch.as_tensor(np.unique(history), device=model.device)
                scores, penalty = logits[row, seen], float(options["repetition_penalty"])
                logits[row, seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
            if "no_repeat_ngram" in options:
                banned = np.unique(followers_of_tail(history, int(options["no_repeat_ngram"]) - 1))
                logits[row, torch.as_tensor(banned, device=model.device)] = -torch.inf
        log = torch.log_softmax(logits, -1)
        written = torch.as_tensor(ids[start:], device=model.device)
        return float(-log.gather(1, written[:, None]).mean())
