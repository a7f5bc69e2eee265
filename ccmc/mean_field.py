"""The mean field of one long trajectory: where token frequencies flow, and how far they get in a finite time.

A chain that is fed its own output moves its frequencies m by one part in t at each step t. Between two such moves of
note the tokens mix as the chain K_m[i, j] = m_j P[i, j] / (P m)_i does, whose stationary distribution is mu(m), so

    dm/ds = mu(m) - m,        s = log t.

Followed from counts at time t0 this predicts the frequencies at t0 + n. Early chance decides much: from t0 of about
1,000 on the prediction is good, from shorter prompts a simulated `prefix` should come first (`winners` does so).

Source: Ildiz et al. 2024, for the model on its own output; Benaim 1997, for the flow of reinforced walks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.arrays import as_floats
from ccmc._data.types import FloatArray, IntArray
from ccmc.chain import Chain
from ccmc.normalise import normalised
from ccmc.simulate import simulate

# Error of one integration step, in total variation; over a whole trajectory the error stays below 2e-3.
TOLERANCE = 1e-4
_MAX_STEPS = 1_000_000
_TIMES = 65
# The least a weight may be beside the largest of its row, so that every row stays positive.
_LEAST_WEIGHT = 1e-290


@dataclass(frozen=True, eq=False)
class MeanField:
    """Predicted frequencies of tokens along a trajectory."""

    times: FloatArray
    """[times] total count, log-spaced from t0 (the sum of the counts) to t0 + steps."""
    frequencies: FloatArray
    """[times, K] frequencies of the tokens, prompt included; the mean over paths where a prefix was simulated."""
    tokens: IntArray
    """[n] the tokens of the prompt, ascending: no other ever occurs."""
    paths: FloatArray
    """[paths, times, n] frequencies of `tokens` on each path: one, or one for each simulated prefix."""


def mean_field(
    chain: Chain,
    counts: ArrayLike,
    steps: int,
    *,
    points: int = _TIMES,
    prefix: int = 0,
    paths: int = 64,
    seed: int = 0,
    query: int | None = None,
) -> MeanField:
    """Predict the frequencies of tokens while the chain continues a prompt.

    Args:
        chain: over K tokens.
        counts: [K] counts of the prompt; any non-negative numbers, whole ones where a prefix is simulated.
        steps: tokens to come, at least 1.
        points: how many times to report.
        prefix: steps to simulate before the flow takes over; 0 for none.
        paths: how many prefixes to simulate.
        seed: seed of the simulation.
        query: last token of the prompt, where a prefix is simulated; drawn from the counts for each path if None.

    Returns:
        MeanField.

    Raises:
        ValueError: counts, steps, prefix, paths or query are malformed.

    Source: Ildiz et al. 2024; Benaim 1997.
    """
    start = checked_counts(chain, counts)
    for name, value, least in (("steps", steps, 1), ("points", points, 2), ("prefix", prefix, 0), ("paths", paths, 1)):
        if int(value) != value or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value}")
    tokens = np.flatnonzero(start)
    t0 = float(start.sum())
    times = np.geomspace(t0, t0 + steps, points)
    times[0], times[-1] = t0, t0 + steps
    weights = base_weights(chain, tokens)
    inside = start[tokens]
    prefix = min(prefix, steps)
    if prefix == 0:
        every = follow(weights, inside / t0, np.log(times / t0))[None]
    else:
        walked = simulated_prefix(chain, start, prefix, paths, seed, query)
        every = np.array([_after_prefix(weights, inside, np.searchsorted(tokens, path), times) for path in walked])
    frequencies = np.zeros((points, chain.vocab_size))
    frequencies[:, tokens] = every.mean(axis=0)
    return MeanField(times, frequencies, tokens, every)


def _after_prefix(weights: FloatArray, counts: FloatArray, prefix: IntArray, times: FloatArray) -> FloatArray:
    """Frequencies [times, n] from counts [n]: those of the prefix while it lasts, then those of the flow."""
    t0, n = counts.sum(), len(counts)
    early = int(np.searchsorted(times, t0 + len(prefix), side="right"))
    frequencies = np.empty((len(times), n))
    for k in range(early):
        seen = counts + np.bincount(prefix[: int(times[k] - t0)], minlength=n)
        frequencies[k] = seen / seen.sum()
    if early < len(times):
        seen = counts + np.bincount(prefix, minlength=n)
        frequencies[early:] = follow(weights, seen / seen.sum(), np.log(times[early:] / seen.sum()))
    return frequencies


def follow(weights: FloatArray, m: FloatArray, at: FloatArray, tolerance: float = TOLERANCE) -> FloatArray:
    """Where the flow takes frequencies m.

    Args:
        weights: [n, n] positive base transition weights, each row up to a factor.
        m: [n] positive frequencies that sum to 1.
        at: [times] log time since m, increasing from 0 or more.
        tolerance: error of one integration step, in total variation.

    Returns:
        Frequencies [times, n].
    """
    from ccmc._sim.flow import integrate

    logs = np.empty((len(at), len(m)))
    if integrate(weights, np.log(m), m.copy(), np.asarray(at, np.float64), tolerance, _MAX_STEPS, logs) < 0:
        raise RuntimeError(f"the mean field needed more than {_MAX_STEPS} integration steps")
    return normalised(logs)


def base_weights(chain: Chain, tokens: IntArray) -> FloatArray:
    """[n, n] base transition weights between the given tokens, the largest of each row 1."""
    logits = chain.block(tokens)
    logits = logits - logits.max(axis=1, keepdims=True)
    weights: FloatArray = np.maximum(np.exp(logits), _LEAST_WEIGHT)
    return weights


def simulated_prefix(
    chain: Chain, counts: FloatArray, steps: int, paths: int, seed: int, query: int | None
) -> IntArray:
    """[paths, steps] simulated continuations of a prompt of which only the counts (and perhaps the query) are known."""
    whole = counts.astype(np.int64)
    if (whole != counts).any():
        at = int(np.argmax(whole != counts))
        raise ValueError(f"counts[{at}] is {counts[at]}: simulating a prefix takes whole counts")
    if query is not None and not (0 <= query < len(counts) and counts[query] > 0):
        raise ValueError(f"query {query} is not a token of the prompt")
    rng = np.random.default_rng([seed, 1])
    last = np.full(paths, query) if query is not None else rng.choice(len(counts), size=paths, p=counts / counts.sum())
    prompts = np.tile(np.repeat(np.arange(len(counts)), whole), (paths, 1))
    # The order of a prompt does not matter beyond its last token.
    place = np.cumsum(whole)[last] - 1
    prompts[np.arange(paths), place] = prompts[:, -1]
    prompts[:, -1] = last
    return simulate(chain, prompts, steps, seed)


def checked_counts(chain: Chain, counts: ArrayLike) -> FloatArray:
    """[K] counts as floats, or ValueError naming the fault."""
    values = as_floats(np.asarray(counts), "counts")
    if values.shape != (chain.vocab_size,):
        raise ValueError(f"counts must have shape ({chain.vocab_size},), got {values.shape}")
    bad = ~((values >= 0) & (values < np.inf))
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"counts[{at}] is {values[at]}: counts are non-negative and finite")
    if not values.any():
        raise ValueError("all counts are 0: a trajectory starts from at least one token")
    return values
