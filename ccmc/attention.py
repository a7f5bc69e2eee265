"""From attention weights to a chain and back.

One layer of self-attention scores the pair (query token i, token j) with e_j^T W e_i, where e_k is row k of the
embeddings E. With the output tied to the embeddings it emits the chain with logits theta[i, j] = e_j^T W e_i, so
theta = (E W E^T)^T. Only the part of W in

    S_E = span{(e_j - e_k) e_i^T}

matters. With linearly independent embeddings the map from S_E to chains is one-to-one, and this file inverts it.

Source: Ildiz et al. 2024.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.types import FloatArray
from ccmc.chain import CCMC


def chain_from_attention(E: ArrayLike, W: ArrayLike) -> CCMC:
    """The chain that one self-attention layer samples from.

    Args:
        E: [K, d] embeddings, one row per token.
        W: [d, d] attention weights (key on the left, query on the right: e_j^T W e_i).

    Returns:
        CCMC with logits (E W E^T)^T.

    Raises:
        ValueError: shapes do not fit, or numbers are not finite.

    Source: Ildiz et al. 2024.
    """
    embeddings = _embeddings(E)
    weights = np.asarray(W, dtype=np.float64)
    d = embeddings.shape[1]
    if weights.shape != (d, d):
        raise ValueError(f"W must have shape ({d}, {d}) to go with E {embeddings.shape}, got {weights.shape}")
    return CCMC((embeddings @ weights @ embeddings.T).T)


def attention_from_chain(chain: CCMC, E: ArrayLike) -> FloatArray:
    """The only W in S_E whose layer samples from the chain.

    W0 = pinv(E) theta^T pinv(E)^T has the right scores but is not in S_E. Its part outside is along u = pinv(E) 1:
    u is orthogonal to every e_j - e_k within the span of the embeddings, and removing it adds a constant to each row
    of theta, which the chain does not notice.

    Args:
        chain: K x K logits.
        E: [K, d] linearly independent embeddings, so d >= K.

    Returns:
        W [d, d].

    Raises:
        ValueError: the embeddings are dependent (the message names their rank) or do not fit the chain.

    Source: Ildiz et al. 2024.
    """
    embeddings = _embeddings(E)
    size = chain.vocab_size
    if embeddings.shape[0] != size:
        raise ValueError(f"E has {embeddings.shape[0]} rows but the chain has {size} tokens")
    rank = int(np.linalg.matrix_rank(embeddings))
    if rank < size:
        raise ValueError(
            f"the embeddings have rank {rank}, below the {size} tokens: they are linearly dependent, and not every "
            "chain over them comes from attention weights"
        )
    inverse = np.linalg.pinv(embeddings)
    u = inverse.sum(axis=1)
    # Project before multiplying out, so that the large part along u never enters.
    left = inverse - np.outer(u, u @ inverse) / (u @ u)
    W: FloatArray = left @ chain.logits.T @ inverse.T
    return W


def _embeddings(E: ArrayLike) -> FloatArray:
    embeddings = np.asarray(E, dtype=np.float64)
    if embeddings.ndim != 2:
        raise ValueError(f"E must be [K, d], got shape {embeddings.shape}")
    if not np.isfinite(embeddings).all():
        row, column = np.argwhere(~np.isfinite(embeddings))[0]
        raise ValueError(f"E[{row}, {column}] is {embeddings[row, column]}: embeddings are finite")
    return embeddings
