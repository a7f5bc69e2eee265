"""Teachers of the paper's experiments, their information, and attention models trained on what they emit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ccmc import CCMC, chain_from_attention
from harness.experiments._shared.sampling import FloatArray, IntArray
from harness.models.one_layer_config import OneLayerConfig
from harness.models.one_layer_hf import OneLayerForCausalLM
from harness.models.training import Examples, Outcome, Recipe, train

MAXIMUM_LIKELIHOOD = Recipe(optimiser="lbfgs", steps=400)


def gaussian_chain(K: int, sd: float, rng: np.random.Generator) -> CCMC:
    """Independent normal logits."""
    return CCMC(rng.normal(0.0, sd, (K, K)))


def dirichlet_chain(K: int, rng: np.random.Generator, concentration: float = 1.0) -> CCMC:
    """Rows of P from a Dirichlet distribution; entries below 1e-12 are lifted there."""
    P = np.maximum(rng.dirichlet(np.full(K, concentration), K), 1e-12)
    return CCMC(np.log(P))


def hessians(probability: FloatArray, query: IntArray, weight: FloatArray) -> FloatArray:
    """Blocks [K, K, K] of the Hessian in the logits, one per query: sum of weight (diag p - p p^T).

    Args:
        probability: [n, K] next-token probabilities after each context.
        query: [n].
        weight: [n].
    """
    K = probability.shape[1]
    blocks = np.zeros((K, K, K))
    for i in range(K):
        p, w = probability[query == i], weight[query == i]
        blocks[i] = np.diag(w @ p) - (p * w[:, None]).T @ p
    return blocks


def attention_trained_on(
    prompts: IntArray,
    mass: FloatArray,
    K: int,
    seed: int,
    recipe: Recipe = MAXIMUM_LIKELIHOOD,
    folder: Path | None = None,
) -> tuple[CCMC, Outcome]:
    """Train the paper's model from W = 0 and read its chain off.

    Embeddings are orthonormal: e_j^T W e_i is then as well conditioned as the logits themselves, and training reaches
    the maximum instead of stopping short of it.

    Args:
        prompts: [n, L].
        mass: [n, K] how often each token came after each prompt.
        K: vocabulary.
        seed: of the embeddings.
        recipe: how to train.
        folder: gets checkpoint and loss curve.

    Returns:
        The chain read off the trained weights, and what training did.
    """
    rng = np.random.default_rng(seed)
    E = np.linalg.qr(rng.normal(size=(2 * K, K)))[0].T  # [K, 2K], orthonormal rows
    model = OneLayerForCausalLM(OneLayerConfig(vocab_size=K, dimension=2 * K)).double()
    model.E.data = torch.as_tensor(np.ascontiguousarray(E))
    examples = Examples(torch.as_tensor(prompts), mass=torch.as_tensor(mass))
    outcome = train(model, examples, recipe, seed=seed, folder=folder)
    W = model.layers[0].W.detach()[0].numpy()
    return chain_from_attention(E, W), outcome
