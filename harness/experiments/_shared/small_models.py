"""Small models trained on sequences of one length, measured as a language model is.

Surrogates are fitted to a model's next-token distributions, restricted to the context, on training sequences and judged
on held-out ones; then model and surrogates continue held-out prompts. Ceiling: the model with another seed. Floor: its
continuations of other prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from harness.core.rows import MODEL, Rows
from harness.core.seeds import derive_seed
from harness.data.texts import IntArray, Text
from harness.experiments._shared.comparison import Comparison
from harness.experiments._shared.continuations import Continuation
from harness.experiments._shared.fidelity_rows import add_finite, fidelity_means
from harness.models.language_model import generate, next_token_distributions
from harness.models.training import IGNORED, Examples
from harness.stats.explained import explained_interval
from harness.surrogates._fitting.decoding import Decoding
from harness.surrogates.base import Ingredients, NextTokenSurrogate
from harness.surrogates.make import make
from harness.surrogates.observations import NextTokenObservations, pair_mass

ONE_STEP = ("kl", "total_variation", "top_token")
ROLLOUTS = ("seq_rep_4", "rep_32", "winner_size", "winner_jaccard", "dominance_area")
LABELS = {
    "stopping_loss": "loss on sequences kept back for early stopping, nats",
    "in_context_mass": "probability that the model gives to its context",
    "kl": "KL from model to surrogate, nats",
    "total_variation": "total variation distance",
    "top_token": "share of contexts with the same likeliest token",
    "explained": "share of KL(counts) explained",
    "seq_rep_4": "share of repeated 4-grams",
    "rep_32": "share of tokens among the 32 before",
    "winner_size": "size of the winner set",
    "winner_jaccard": "overlap of winners with the model's",
    "dominance_area": "distance of dominance curves",
    "new_tokens": "share of tokens that are new to prompt and continuation",
}


@dataclass(frozen=True)
class Data:
    """Sequences of one length, all of whose first tokens are a prompt.

    Attributes:
        train: [n, L] what models and surrogates learn from.
        stopping: [m, L] from the training data too, for early stopping.
        held_out: [h, L] judged on.
        groups: the origin of each training sequence; folds never cut one in two.
        vocab_size: K.
    """

    train: IntArray
    stopping: IntArray
    held_out: IntArray
    groups: list[str]
    vocab_size: int


def next_tokens(tokens: np.ndarray[Any, Any], prompt_length: int, inside: bool) -> Examples:
    """What came after each position from the prompt's last on; `inside`: only where it occurs in the context."""
    labels = np.full_like(tokens, IGNORED)
    for place in range(prompt_length - 1, tokens.shape[1] - 1):
        after = tokens[:, place + 1]
        known = (tokens[:, : place + 1] == after[:, None]).any(axis=1)
        labels[:, place] = np.where(known | (not inside), after, IGNORED)
    return Examples(torch.as_tensor(tokens), labels=torch.as_tensor(labels))


def scored_texts(model: Any, sequences: Any, s: dict[str, Any]) -> list[tuple[Text, Any]]:
    start, stop = s["prompt_length"] - 1, s["prompt_length"] + s["steps"] - 1
    texts = [Text(tokens, start=start, stop=stop) for tokens in sequences]
    vocabulary = np.arange(model.config.vocab_size)
    return [(text, next_token_distributions(model, text.tokens, text, vocabulary)) for text in texts]


def one_step(
    rows: Rows,
    model: Any,
    data: Data,
    s: dict[str, Any],
    seed: int,
    chains: Mapping[str, NextTokenSurrogate] | None = None,
) -> dict[str, NextTokenSurrogate]:
    """Fit every surrogate on training sequences; rows of what it says of the held-out ones, one token ahead.

    Args:
        rows: where they go.
        model: trained.
        data: its sequences.
        s: settings of the unit: prompt_length, steps, surrogate_sequences and surrogates, `counts` among these.
        seed: of the fits.
        chains: further surrogates by name, such as a chain read off the model's weights.
    """
    size = s["surrogate_sequences"]
    train_, held_out = scored_texts(model, data.train[:size], s), scored_texts(model, data.held_out, s)
    rows.add("in_context_mass", float(np.mean([f.in_context_mass for _, f in held_out])), surrogate=MODEL)
    observations = NextTokenObservations(
        texts=[text for text, _ in train_],
        groups=data.groups[:size],
        wins=[pair_mass(text, found.restricted[None], data.vocab_size) for text, found in train_],
        vocab_size=data.vocab_size,
        targets=[found.restricted for _, found in train_],
        in_context_mass=[found.in_context_mass for _, found in train_],
        outside=[found.outside for _, found in train_],
    )
    fitted = {name: chain.fit(observations) for name, chain in (chains or {}).items()}
    for name in s["surrogates"]:
        fitted[name] = make(name, "next-token", Ingredients(seed)).fit(observations)
    kl = {}
    for name, surrogate in fitted.items():
        each = [fidelity_means(found.restricted[None], surrogate.predict(text)) for text, found in held_out]
        means = {metric: float(np.mean([found[metric] for found in each])) for metric in ONE_STEP}
        for metric, value in means.items():
            add_finite(rows, metric, value, surrogate=name, n=len(each))
        kl[name] = means["kl"]
    for name, divergence in kl.items():
        share = explained_interval([divergence], [kl["counts"]], seed)
        if share.value is None:
            rows.add("explained", None, missing=share.missing, surrogate=name, n=len(held_out))
        else:
            add_finite(rows, "explained", share.value, surrogate=name, n=len(held_out))
    return fitted


def rollouts(
    rows: Rows, model: Any, fitted: Mapping[str, NextTokenSurrogate], data: Data, s: dict[str, Any], seed: int
) -> None:
    """Rows of repetition and winner agreement: means over the held-out prompts."""
    prompts = [tokens[: s["prompt_length"]] for tokens in data.held_out]
    nothing = SimpleNamespace(pad_token_id=None, eos_token_id=None)

    def continued(number: int) -> list[Continuation]:
        made = generate(
            model, nothing, [p.tolist() for p in prompts], temperature=1.0, max_new_tokens=s["steps"],
            seed=derive_seed(seed, "continued", number), batch_size=len(prompts),
        )  # fmt: skip
        return [
            Continuation(str(i), "held_out", "temperature=1", number, prompt, tokens)
            for i, (prompt, tokens) in enumerate(zip(prompts, made, strict=True))
        ]

    single = Rows(experiment="small-models")
    again, real = {c.prompt: c for c in continued(1)}, continued(0)
    comparison = Comparison(single, real, again, derive_seed(seed, "floor"))
    comparison.frame_rows()
    rows.add("new_tokens", new_tokens(prompts, [c.continuation for c in real]), surrogate=MODEL, n=len(prompts))
    for name, surrogate in fitted.items():
        steps = [s["steps"]] * len(prompts)
        made = surrogate.rollout(prompts, steps, derive_seed(seed, name), Decoding(1.0), keys=prompts)
        comparison.add(name, 0, {str(i): tokens for i, tokens in enumerate(made)})
        rows.add("new_tokens", new_tokens(prompts, made), surrogate=name, n=len(prompts))
    frame = single.frame()
    for (metric, who), part in frame[frame["metric"].isin(ROLLOUTS)].groupby(["metric", "surrogate"], sort=False):
        found = part["value"].dropna().astype(float)
        if len(found):
            rows.add(str(metric), float(found.mean()), surrogate=who, n=len(found))
        else:
            rows.add(str(metric), None, missing=str(part["missing"].iloc[0]), surrogate=who)


def new_tokens(prompts: Sequence[IntArray], continuations: Sequence[IntArray]) -> float:
    """Mean share of the tokens of continuations that neither the prompt nor the continuation so far holds."""
    each = []
    for prompt, continuation in zip(prompts, continuations, strict=True):
        new = np.setdiff1d(continuation, prompt)  # every one of them is new once
        each.append(len(new) / len(continuation))
    return float(np.mean(each))
