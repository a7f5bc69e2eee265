"""Slow and obvious twins of the package's fast code, written from the formulas alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy import optimize


def next_token(theta, counts, query):
    """p(j) = m_j exp(theta[i, j]) / sum_k m_k exp(theta[i, k]) for one context, by the definition."""
    present = [j for j in range(len(counts)) if counts[j] > 0]
    best = max(theta[query][j] for j in present)
    mass = {j: counts[j] * math.exp(theta[query][j] - best) for j in present}
    total = math.fsum(mass.values())
    return np.array([mass.get(j, 0.0) / total for j in range(len(counts))])


def prefixes(sequence, start, stop, vocab_size, window=None):
    """(counts, query) of the prefixes of length start ... stop, counted one by one."""
    for length in range(start, stop + 1):
        kept = sequence[:length] if window is None else sequence[max(0, length - window) : length]
        counts = np.zeros(vocab_size)
        for token in kept:
            counts[token] += 1
        yield counts, sequence[length - 1]


def one_hot(targets, vocab_size):
    return np.eye(vocab_size)[targets]


def objective(theta, counts, query, targets, weight, prior, ridge):
    """Sum of weighted cross-entropies plus ridge/2 ||row-centred(theta - prior)||^2, and its gradient [K, K]."""
    value, gradient = 0.0, np.zeros_like(theta)
    for m, i, t, w in zip(counts, query, targets, weight, strict=True):
        p = next_token(theta, m, i)
        value -= w * sum(t[j] * math.log(p[j]) for j in range(len(m)) if t[j] > 0)
        gradient[i] += w * (p - t)
    centred = (theta - prior) - (theta - prior).mean(axis=1, keepdims=True)
    return value + ridge / 2 * (centred**2).sum(), gradient + ridge * centred


def fit(counts, query, targets, weight, prior, ridge):
    """Logits that minimise `objective`, by a general-purpose optimiser."""
    shape = prior.shape

    def flat(x):
        value, gradient = objective(x.reshape(shape), counts, query, targets, weight, prior, ridge)
        return value, gradient.ravel()

    found = optimize.minimize(flat, prior.ravel(), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 1e-15})
    return found.x.reshape(shape), found.fun


def components(counts, query, vocab_size):
    """For each query the sets of tokens joined by occurring together, by repeated merging."""
    result = []
    for i in range(vocab_size):
        groups = [{token} for token in range(vocab_size)]
        for m, q in zip(counts, query, strict=True):
            if q == i:
                inside = set(np.flatnonzero(m).tolist())
                touched = [group for group in groups if group & inside]
                groups = [group for group in groups if not group & inside] + [set().union(*touched)]
        result.append(sorted(sorted(group) for group in groups))
    return result


def diverging(counts, query, targets, vocab_size):
    """(query, token) pairs that some token beats, through others if need be, without being beaten back."""
    lost = []
    for i in range(vocab_size):
        beats = np.zeros((vocab_size, vocab_size), bool)
        for m, q, t in zip(counts, query, targets, strict=True):
            if q == i:
                for winner in np.flatnonzero(t):
                    beats[winner, np.flatnonzero(m)] = True
        for through in range(vocab_size):
            beats |= beats[:, [through]] & beats[[through], :]
        lost += [(i, token) for token in range(vocab_size) if (beats[:, token] & ~beats[token, :]).any()]
    return lost


def path_law(theta, prompt, steps, window=None):
    """Probability of every continuation of `steps` tokens, by walking through all of them."""
    vocab_size = len(theta)
    law = {}
    for path in itertools.product(range(vocab_size), repeat=steps):
        sequence, chance = list(prompt), 1.0
        for token in path:
            kept = sequence if window is None else sequence[-window:]
            chance *= next_token(theta, np.bincount(kept, minlength=vocab_size), sequence[-1])[token]
            sequence.append(token)
        law[path] = chance
    return law
