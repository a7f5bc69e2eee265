"""Kernels that read a growing context token by token and give its whole law, over all tokens of the vocabulary."""

from __future__ import annotations

import numpy as np

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.state import forget
from ccmc._logit.walk_arrays import After, BaseArrays, LawArrays, State
from ccmc._logit.walk_kernels import base_of_types, grown, new_state, number, utilities


@kernel
def opened(vocab: int, size: int, depth: int, width: int) -> tuple[State, After]:
    """An empty context of up to `size` tokens, and room for what followed its end."""
    after = After(
        np.zeros((depth, size)), np.zeros(depth + 1), np.zeros(size, np.int64), np.full(depth, -1, np.int64),
        np.zeros(size, np.int64),
    )  # fmt: skip
    return new_state(vocab, size, depth, width), after


@kernel
def read(
    tokens: IntArray, before: int, many: int, state: State, after: After, law: LawArrays, base: BaseArrays,
    first: int, u: FloatArray, inside: FloatArray, whole: FloatArray,
) -> int:  # fmt: skip
    """Read tokens; of the contexts from `first` tokens on, utilities of the types and log of the sum of all weights.

    Args:
        tokens: [n] that come next.
        before, many: tokens and types of the context so far.
        state, after: of the context.
        law, base: as they say.
        first: the number of tokens of the first context whose law is wanted.
        u: [size] scratch.
        inside: [rows, size] utilities of types by number, one row a wanted context.
        whole: [rows] log of the sum of weights, those of tokens outside the context included; -inf: of nothing.

    Returns:
        How many types the context has then.
    """
    row = 0
    for place in range(len(tokens)):
        token, n = tokens[place], before + place + 1
        many = number(token, many, state, base)
        count = grown(state.place[token], n, state, after, law, base.log_unigram)
        if n >= first:
            base_of_types(token, many, law.base, state, base)
            top = utilities(n, many, count, state, after, law, u)
            stored = base.row[token]
            every, within = law.sums[stored if stored >= 0 else len(law.sums) - 1], state.within[state.place[token]]
            rest = 0.0 if law.closed == 1 or every - within <= 1e-14 * every else every - within
            if rest > 0.0:
                top = max(top, np.log(rest))
            total = rest * np.exp(-top) if rest > 0.0 else 0.0
            for c in range(many):
                inside[row, c] = u[c]
                total += np.exp(u[c] - top)
            whole[row] = top + np.log(total)
            row += 1
        forget(after.touched, count, after.followed, after.longest)
    return many
