"""Buckets of distances, and of positions: fine where keys are near, wide where they are far."""

from __future__ import annotations

import numpy as np

from harness.data.texts import FloatArray, IntArray

_EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
BUCKETS = len(_EDGES) + 1


def bucket_table(length: int) -> IntArray:
    """[T] the bucket of each distance 0 ... T - 1."""
    table: IntArray = np.searchsorted(_EDGES, np.arange(length), side="right").astype(np.int64)
    return table


def bucket_sums(by_distance: FloatArray) -> FloatArray:
    """Sum a quantity per distance [H, T] over the distances of each bucket: [H, D]."""
    table = np.zeros((by_distance.shape[1], BUCKETS))
    table[np.arange(len(table)), bucket_table(len(table))] = 1.0
    summed: FloatArray = by_distance @ table
    return summed


def profile_of(buckets: FloatArray, length: int) -> FloatArray:
    """[H, T] the value of each distance 0 ... T - 1 from those of the buckets [H, D]."""
    return buckets[:, bucket_table(length)]
