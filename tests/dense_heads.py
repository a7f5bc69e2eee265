"""Attention of heads as whole squares: the plain twins of what the harness does block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness.attention.capture import LayerCall, key_heads, visible_scores
from harness.attention.static_inputs import StaticHeads
from harness.data.texts import Text
from harness.surrogates._fitting.buckets import BUCKETS, bucket_table


def rows_without_sink(call: LayerCall) -> tuple[Any, Any]:
    """[H, T - 1, T - 1] rows over the positions from 1 on, renormalised, and [H, T - 1] what position 0 held."""
    visible = visible_scores(call)[:, 1:]
    sink = torch.exp(visible[:, :, 0] - torch.logsumexp(visible, dim=-1))
    return torch.softmax(visible[:, :, 1:], dim=-1).numpy(), sink.numpy()


def score_scale(call: LayerCall) -> float:
    """What the rounding of the scores of a call is relative to: the longest query times the longest key, scaled.

    No |query|.|key| is larger, however the two are rotated (Cauchy-Schwarz).
    """
    heads = key_heads(len(call.query), len(call.key))
    longest = call.query.double().norm(dim=-1).amax(1) * call.key.double().norm(dim=-1).amax(1)[heads]
    return abs(float(call.scaling)) * float(longest.max())


def bucket_matrix(text: Text) -> Any:
    """[n, T - first] the distance bucket of each (query position, key position); of future keys, bucket 0."""
    keys = np.arange(text.first, len(text.tokens))
    return bucket_table(len(text.tokens))[np.maximum(text.positions[:, None] - keys[None, :], 0)]


def distance_mass(text: Text, rows: Any) -> Any:
    """Sum attention rows [H, n, T - first] over the pairs of positions in each distance bucket: [H, D]."""
    flat = bucket_matrix(text).ravel()
    return np.stack([np.bincount(flat, weights=row.ravel(), minlength=BUCKETS) for row in rows])


def position_rows(score: Any, text: Text) -> Any:
    """Softmax of scores [H, n, T - first] over the key positions that a query sees."""
    score = np.where(text.visible, score, -np.inf)
    weight = np.exp(score - score.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def text_scores(heads: StaticHeads, text: Text) -> Any:
    """[H, n, T - 1] scores read off the weights, 0 where a query does not see a key."""
    return np.where(text.visible, visible_scores(heads.of_text(text.tokens))[:, 1:, 1:].numpy(), 0.0)


def place_matrix(text: Text) -> Any:
    """[n, m] the bucket of each key's position."""
    return np.broadcast_to(bucket_table(len(text.tokens))[text.first :], (len(text), len(text.tokens) - text.first))


def place_mass(text: Text, rows: Any) -> Any:
    """[H, D] rows [H, n, m] summed per bucket of the key's position."""
    summed = np.zeros((len(rows), BUCKETS))
    for place, bucket in enumerate(bucket_table(len(text.tokens))[text.first :]):
        summed[:, bucket] += rows[:, :, place].sum(1)
    return summed


def score_mass(heads: StaticHeads, text: Text, rows: Any) -> Any:
    """[H] sum of attention rows [H, n, T - 1] times the scores read off the weights."""
    return np.sum(rows * text_scores(heads, text), axis=(1, 2))
