"""How alike each type of a context is to its last tokens, by embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.numbered import NumberedText
from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.names import TOPIC

Float32Array = NDArray[np.float32]


def similarities(text: NumberedText, start: int, embeddings: Float32Array) -> FloatArray:
    """[n, U] cosine of each type of a text with the mean of the last tokens of its contexts of start .. T - 1 tokens.

    Args:
        text: numbered.
        start: tokens of the first context.
        embeddings: [U, d] of its types.
    """
    of_types = embeddings.astype(np.float64)
    summed = np.concatenate([np.zeros((1, of_types.shape[1])), np.cumsum(of_types[text.local], axis=0)])
    ends = np.arange(start, len(text.local))
    topic = summed[ends] - summed[np.maximum(ends - TOPIC, 0)]
    size = np.linalg.norm(topic, axis=1)[:, None] * np.linalg.norm(of_types, axis=1)
    found: FloatArray = topic @ of_types.T / np.where(size > 0, size, 1.0)
    return found


@summing_kernel
def _products(key: Float32Array, topic: FloatArray) -> tuple[float, float]:
    """key . topic and key . key."""
    both, own = 0.0, 0.0
    for d in range(len(topic)):
        value = np.float64(key[d])
        both += value * topic[d]
        own += value * value
    return both, own


@kernel
def add_similarity(n: int, many: int, weight: float, local: IntArray, keys: Float32Array, u: FloatArray) -> None:
    """Add weight x similarity to the utilities of the types of a context of n tokens.

    Args:
        local: [T] the text; its first n tokens are the context.
        keys: [T, d] embeddings of the types.
        u: [T] utilities, of which the first `many` are of types of the context.
    """
    topic = np.zeros(keys.shape[1])
    for place in range(max(n - TOPIC, 0), n):
        key = keys[local[place]]
        for d in range(len(topic)):
            topic[d] += key[d]
    size = 0.0
    for d in range(len(topic)):
        size += topic[d] * topic[d]
    for c in range(many):
        both, own = _products(keys[c], topic)
        if own > 0.0 and size > 0.0:
            u[c] += weight * both / np.sqrt(own * size)
