"""Trajectories: a chain's own tokens are appended to its context, and the next one is drawn.

This is a vertex-reinforced random walk: what occurred often is drawn more often. Paths have the exact law of the
chain.

Source: Ildiz et al. 2024, for the model on its own output.
"""

from __future__ import annotations

import numpy as np

from ccmc._data.arrays import Sequences, as_width, flatten
from ccmc._data.types import IntArray
from ccmc.chain import CCMC, AttentionCCMC, Chain


def simulate(chain: Chain, prompts: Sequences, steps: int, seed: int, window: int | None = None) -> IntArray:
    """Continue every prompt by `steps` tokens.

    Args:
        chain: CCMC or AttentionCCMC.
        prompts: int array [n, L] or a list of n sequences of any lengths >= 1.
        steps: tokens to add to each prompt.
        seed: non-negative. With the tokens of a prompt it decides the path, whatever other prompts there are, their
            order and the number of threads; equal prompts have paths of their own, the first, second, ... of that
            prompt.
        window: the context is the last `window` tokens, or None for all.

    Returns:
        int64 [n, steps], the continuations without the prompts.

    Raises:
        ValueError: a prompt is empty or holds a token outside the vocabulary; steps, seed or window are out of range.

    Source: Ildiz et al. 2024.
    """
    tokens, offsets = flatten(prompts, chain.vocab_size)
    if (np.diff(offsets) == 0).any():
        raise ValueError(f"prompt {int(np.argmin(np.diff(offsets)))} is empty: a path needs a first token")
    if int(steps) != steps or steps < 0:
        raise ValueError(f"steps must be a non-negative integer, got {steps}")
    if int(seed) != seed or seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed}")
    width = as_width(window)
    table, logits, keys, queries = None, *([np.empty((0, 0))] * 3)
    if isinstance(chain, CCMC):
        # Always by the table: draws by logits take other paths, and which is faster depends on the other prompts.
        logits, table = chain.logits, chain.transition
        highest = np.log(np.maximum(table.max(axis=1), np.finfo(np.float64).tiny))
    elif isinstance(chain, AttentionCCMC):
        keys, queries = chain.keys, chain.queries
        # No product exceeds the product of the norms, and a little more for rounding.
        norms = np.linalg.norm(chain.queries, axis=1) * np.linalg.norm(chain.keys, axis=1).max()
        highest = norms * (1 + 1e-12) + 1e-300
    else:
        raise ValueError(f"cannot simulate a {type(chain).__name__}")

    from ccmc._data.compiled import run_tasks
    from ccmc._sim.random import name_paths
    from ccmc._sim.walk import walk

    key = np.random.SeedSequence(int(seed)).generate_state(4, np.uint64).astype(np.uint64)
    out = np.empty((len(offsets) - 1, int(steps)), np.int64)
    called = np.empty((len(out), 3), np.uint64)
    name_paths(tokens, offsets, called)

    def work(paths: IntArray) -> None:
        walk(paths, tokens, offsets, width, key, called, table, logits, keys, queries, highest, out)

    run_tasks(work, np.diff(offsets) + float(steps))
    return out
