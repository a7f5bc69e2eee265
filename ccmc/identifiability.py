"""What data can say about a chain: which logits are determined, and whether a maximum-likelihood fit exists.

For each query, join two tokens that occur together in one of its contexts. Logits of tokens in different components
of this graph are never compared, so the chain is *identified* iff every query's graph is connected. Point from every
token of a context to the token that was emitted: the likelihood has a maximum iff this directed graph is strongly
connected on each component (the condition of Ford 1957 for choice models). Where it is not, tokens that are beaten
and never beat back are driven to logit minus infinity.

Source: the chain's likelihood is that of Ildiz et al. 2024; the existence condition is Ford's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from scipy import sparse

from ccmc._data.pairs import Pairs
from ccmc._data.types import BoolArray, IntArray
from ccmc.contexts import PrefixContexts
from ccmc.observations import Observations, PairWins

# Sweeps over the rows after which a graph that long chains hold together is left to the general algorithm.
_SWEEPS = 4


class Components(Sequence[list[list[int]]]):
    """Item q lists the components of query q's graph, each a sorted list of tokens; together they cover all K tokens.

    Built on demand: a query that never occurs has K components of one token each.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs.ptr) - 1

    @overload
    def __getitem__(self, query: int) -> list[list[int]]: ...
    @overload
    def __getitem__(self, query: slice) -> list[list[list[int]]]: ...
    def __getitem__(self, query: int | slice) -> list[list[int]] | list[list[list[int]]]:
        if isinstance(query, slice):
            return [self[q] for q in range(*query.indices(len(self)))]
        size = len(self)
        if not -size <= query < size:
            raise IndexError(f"query {query} is outside the vocabulary 0 ... {size - 1}")
        part = slice(self._pairs.ptr[query % size], self._pairs.ptr[query % size + 1])
        seen = self._pairs.token[part]
        groups: list[list[int]] = [[] for _ in range(int(self._pairs.components[query % size]))]
        for token, group in zip(seen.tolist(), self._pairs.component[part].tolist(), strict=True):
            groups[group].append(token)
        alone = np.setdiff1d(np.arange(size), seen, assume_unique=True)
        groups.extend([token] for token in alone.tolist())
        return sorted(groups)

    def __iter__(self) -> Iterator[list[list[int]]]:
        return (self[query] for query in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(a == b for a, b in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<components of {len(self)} queries>"


@dataclass(frozen=True, eq=False)
class Identifiability:
    """What observations determine."""

    identified: bool
    """Whether the maximiser, where one exists, is unique: every query has all K tokens in one component."""
    components: Components
    """components[query]: lists of tokens whose logits are compared with one another."""
    mle_exists: bool
    """Whether the likelihood has a maximum."""
    diverging: list[tuple[int, int]]
    """(query, token) whose logit goes to minus infinity against others of its component; empty iff `mle_exists`."""
    free_directions: int
    """Dimension of the space of equally good solutions: sum over queries of components - 1."""


def identifiability(observations: Observations) -> Identifiability:
    """Decide what the observations determine, before any fit. Observations of weight 0 do not count.

    Args:
        observations: over K tokens. Of observations from wins only sums are known: their targets are taken to be
            positive on the whole context, and a pair whose sum is 0 to diverge where it has company.

    Returns:
        Identifiability.

    Source: Ford 1957, for the existence of the maximum.
    """
    used = drop_weightless(observations)
    pairs = used.contexts.numbered_pairs
    size = used.contexts.vocab_size
    groups = pairs.components + size - np.diff(pairs.ptr)
    losing = _losing_pairs(used, pairs)
    diverging = list(zip(pairs.query[losing].tolist(), pairs.token[losing].tolist(), strict=True))
    free = int((groups - 1).sum())
    return Identifiability(free == 0, Components(pairs), not diverging, diverging, free)


def drop_weightless(observations: Observations) -> Observations:
    """The same observations without those of weight 0."""
    keep = observations.weights > 0
    if keep.all():
        return observations
    if not keep.any():
        raise ValueError("every observation has weight 0")
    return observations.take(keep)


def _losing_pairs(observations: Observations, pairs: Pairs) -> BoolArray:
    """[pairs] whether the pair's token is beaten, directly or through others, by one that it never beats back."""
    if isinstance(observations.targets, PairWins):
        lost: BoolArray = (observations.wins == 0) & (pairs.component_sizes() > 1)
        return lost
    if observations.hard and (observations.wins > 0).all() and _surely_connected(observations, pairs):
        return np.zeros(len(pairs.token), np.bool_)
    source, target = beaten_by(observations, pairs)
    number = len(pairs.token)
    graph = sparse.coo_array((np.ones(len(source), np.int32), (source, target)), shape=(number, number))
    from scipy.sparse.csgraph import connected_components

    count, strong = connected_components(sparse.csr_array(graph), directed=True, connection="strong")
    leaves = np.zeros(count, bool)
    leaves[strong[source[strong[source] != strong[target]]]] = True
    losing: BoolArray = leaves[strong]
    return losing


def _surely_connected(observations: Observations, pairs: Pairs) -> bool:
    """Whether every component is strongly connected, found by looking at no more rows than that takes."""
    contexts = observations.contexts
    prefixes = contexts.prefixes if isinstance(contexts, PrefixContexts) else None
    if prefixes is not None and prefixes.streamed and observations.targets is prefixes.following:
        return prefixes.surely_connected(pairs)
    from ccmc._data.connect_kernels import strongly_connected

    rows = contexts.compact
    return strongly_connected(
        pairs.query_ptr, pairs.ptr, pairs.component, pairs.components, *rows.arrays(), observations.emitted, _SWEEPS
    )


def beaten_by(observations: Observations, pairs: Pairs) -> tuple[IntArray, IntArray]:
    """Edges between pairs, from each token of a context to the one emitted.

    Where one row emits several tokens they all beat one another, so edges to the first of them and from it to the
    rest connect as much as all edges would.
    """
    counts = observations.contexts.sparse_counts
    row, token, mass, _ = observations.entries
    row, token = row[mass > 0], token[mass > 0]
    query = observations.contexts.query
    emitted = pairs.number(query[row], token)
    _, first = np.unique(row, return_index=True)
    leader = emitted[first]
    size = np.diff(counts.indptr)
    members = pairs.number(np.repeat(query, size), counts.indices.astype(np.int64))
    source = np.concatenate([members, leader[row]])
    target = np.concatenate([np.repeat(leader, size), emitted])
    different = source != target
    return source[different], target[different]
