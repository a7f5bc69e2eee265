"""What the models of `depth` learn from: sequences that each have a chain of their own, near one mean chain.

The rows of a sequence's chain are Dirichlet with concentration c P0[i], so that the best predictor is known: P0 and the
transitions so far, (c P0[i, j] + n[i, j]) / (c + n[i]). What counts and a base can do ends where transitions within the
sequence matter; one layer cannot look these up, two can (Edelman et al. 2024, The Evolution of Statistical Induction
Heads, for chains that share no mean).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.core.seeds import derive_seed
from harness.data.texts import FloatArray, IntArray
from harness.experiments._shared.small_models import Data
from harness.experiments._shared.teachers import gaussian_chain

STOPPING = 128
"""Sequences on which training is stopped; they are drawn for this alone."""


def mean_chain(s: Mapping[str, Any], seed: int) -> FloatArray:
    """[K, K] P0, the mean of all chains."""
    chain = gaussian_chain(s["vocab_size"], s["logit_sd"], np.random.default_rng(derive_seed(seed, "mean chain")))
    logits = chain.block(np.arange(s["vocab_size"]))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: FloatArray = odds / odds.sum(axis=1, keepdims=True)
    return found


def draw(P0: FloatArray, concentration: float, count: int, length: int, rng: np.random.Generator) -> IntArray:
    """[count, length] sequences, each of a chain of its own; their first tokens are uniform."""
    K = len(P0)
    weight = rng.standard_gamma(concentration * P0, size=(count, K, K))
    total = weight.sum(axis=-1, keepdims=True)
    P = np.where(total > 0, weight / np.where(total > 0, total, 1.0), P0)
    upto = P.cumsum(axis=-1)
    tokens = np.empty((count, length), dtype=np.int64)
    tokens[:, 0] = rng.integers(0, K, count)
    chance, row = rng.random((count, length, 1)), np.arange(count)
    for place in range(1, length):
        below = upto[row, tokens[:, place - 1]] < chance[:, place]
        tokens[:, place] = np.minimum(below.sum(axis=-1), K - 1)
    return tokens


def sequences(s: Mapping[str, Any], seed: int) -> Data:
    """All sequences of one family of models; training sees each of its own once."""
    P0, length = mean_chain(s, seed), s["prompt_length"] + s["steps"]
    sizes = {
        "train": max(s["training_steps"] * s["batch_size"], s["surrogate_sequences"]),
        "stopping": STOPPING,
        "held out": s["held_out_sequences"],
    }
    train, stopping, held_out = (
        draw(P0, s["concentration"], count, length, np.random.default_rng(derive_seed(seed, name)))
        for name, count in sizes.items()
    )
    return Data(train, stopping, held_out, [str(index) for index in range(len(train))], len(P0))


def best_loss(tokens: IntArray, P0: FloatArray, concentration: float, start: int) -> float:
    """Mean loss in nats of the best predictor, over the tokens [n, L] from place `start` on."""
    n, K = len(tokens), len(P0)
    met = np.zeros((n, K, K))
    every, losses = np.arange(n), []
    for place in range(1, tokens.shape[1]):
        last, now = tokens[:, place - 1], tokens[:, place]
        seen = met[every, last]
        right = concentration * P0[last, now] + seen[every, now]
        losses.append(np.log(concentration + seen.sum(axis=1)) - np.log(right))
        met[every, last, now] += 1.0
    return float(np.mean(losses[start - 1 :]))
