"""The cross-entropy of position-level rows with scale, distances and token pairs, and its gradient, for the heads of a
layer at once.

A row gives key position l the weight exp(c score_l + a[bucket of l] + b[bucket of the distance] + table[query token,
key token]). Against observed attention the loss is the sum over rows of log sum_l weight_l, less c . score_mass,
a . place_mass, b . distance_mass and table . pair_mass: convex in (a, b, c, table), and these sums are all that it
needs of the attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from harness.attention.blocks import Asked, View
from harness.attention.fast_exp import exp64
from harness.attention.static_inputs import StaticHeads
from harness.data.texts import IntArray, Text
from harness.surrogates._fitting.buckets import bucket_table


@dataclass(frozen=True)
class Entries:
    """Every (query position, key position) that is seen, over several texts, row after row.

    Attributes:
        score: float32 [H, E] scores before anything is fitted.
        start: [n + 1] where each row begins.
        place, bucket: [E] the buckets of the key's position and of the distance; pair: [E] number of the token pair.
    """

    score: np.ndarray[Any, np.dtype[np.float32]]
    start: IntArray
    place: np.ndarray[Any, np.dtype[np.int16]]
    bucket: np.ndarray[Any, np.dtype[np.int16]]
    pair: np.ndarray[Any, np.dtype[np.int32]]


def pair_numbers(types: IntArray, known: IntArray, vocab_size: int) -> IntArray:
    """[U, U] where each (query, key) stands among the sorted `known` pairs (query * K + key), if it is one of them."""
    found: IntArray = np.searchsorted(known, types[:, None] * vocab_size + types[None, :])
    return found


def gather(heads: StaticHeads, texts: Sequence[Text], known: IntArray, vocab_size: int) -> Entries:
    """Lay the scores that a layer's heads give along texts out as entries, block by block: no square is made.

    Args:
        heads: the layer's heads.
        texts: whose every pair that co-occurs must be known.
        known: sorted pairs, query * K + key.
        vocab_size: K.
    """
    views = [View(text, heads.at_start.key.device) for text in texts]
    lengths = np.concatenate([text.seen for text in texts])
    start = np.concatenate([[0], np.cumsum(lengths)])
    number = heads.at_start.query.shape[0]
    score = np.empty((number, start[-1]), np.float32)
    place, bucket = np.empty((2, start[-1]), np.int16)
    pair = np.empty(start[-1], np.int32)
    at = 0
    for view in views:
        asked = Asked.of(heads.of_text(view.text.tokens))
        table, of_distance = pair_numbers(view.types.cpu().numpy(), known, vocab_size), bucket_table(view.length)
        for block in view.blocks(None):
            distance = np.arange(block.start, block.stop)[:, None] - np.arange(block.low, block.stop)[None, :]
            seen = (distance >= 0) & (distance < (view.text.window or view.length))  # [B, L]
            part = slice(at, at + int(seen.sum()))
            score[:, part] = asked.scores(block).transpose(1, 2).cpu().numpy()[:, seen]
            place[part] = np.broadcast_to(of_distance[block.low : block.stop], seen.shape)[seen]
            bucket[part] = of_distance[distance[seen]]
            pair[part] = table[block.queries.cpu().numpy()][:, block.columns.cpu().numpy()][seen]
            at = part.stop
    return Entries(score, start, place, bucket, pair)


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"}, forceinline=True)
def log_normalisers(  # type: ignore[no-untyped-def]
    score, start, place, bucket, pair, heads, c, a, b, table, total, grad_c, grad_a, grad_b, grad_table
):
    """Add, for some heads, what the loss needs to what is there: all heads read a row while it is at hand.

    One short loop per step, so that all but the look-ups run on vector units.

    Args:
        score, start, place, bucket, pair: of `Entries`.
        heads: [A] the head of each problem.
        c, a, b, table: [A], [A, D], [A, D], [A, P] scale, and what places, distances and pairs add; a `table` of no
            pairs leaves pairs out.
        total: [A] receives the sum over rows of the log of the sum of weights.
        grad_c, grad_a, grad_b, grad_table: the same shapes, receive the predicted score, and mass per place, distance
            and pair.
    """
    longest, pairs = 0, table.shape[1] > 0
    for row in range(len(start) - 1):
        longest = max(longest, start[row + 1] - start[row])
    weight = np.empty(longest)
    for row in range(len(start) - 1):
        first, size = start[row], start[row + 1] - start[row]
        for h in range(len(heads)):
            scores, scale = score[heads[h]], c[h]
            for k in range(size):
                weight[k] = scale * scores[first + k] + a[h, place[first + k]] + b[h, bucket[first + k]]
            if pairs:
                for k in range(size):
                    weight[k] += table[h, pair[first + k]]
            top = weight[0]
            for k in range(size):
                top = max(top, weight[k])
            mass, scored = 0.0, 0.0
            for k in range(size):
                weight[k] = exp64(weight[k] - top)
                mass += weight[k]
                scored += weight[k] * scores[first + k]
            total[h] += top + np.log(mass)
            grad_c[h] += scored / mass
            share = 1.0 / mass
            for k in range(size):
                grad_a[h, place[first + k]] += weight[k] * share
                grad_b[h, bucket[first + k]] += weight[k] * share
            if pairs:
                for k in range(size):
                    grad_table[h, pair[first + k]] += weight[k] * share
