"""How far two float32 computations of one number may lie apart, on any processor; and how to do without float32.

Processors add in other orders, fuse products with sums and bring kernels of their own. Two right results then differ by
rounding, and a tolerance that was tried out on one machine fails on the next. There are two rules here, in this order:

1. Where a test is about an algorithm (padding, packing, a cache, which token is chosen), run it `in_float64()`, on a
   model in double precision, and compare to `FLOAT64`. Rounding is then nine digits below what a mistake would do.
2. Where float32 itself is under test (compiled kernels, what a run stores), take `tolerance(scale, operations)`.

The rule. With u = 2^-24 every float32 operation returns (a op b)(1 + d), |d| <= u. A result that n roundings reach one
after the other is wrong by at most gamma_n = n u / (1 - n u) times `scale`, the sum of the magnitudes of what is added:
|x|.|y| for a dot product, whatever the order and with or without fused operations (Higham 2002, Accuracy and Stability
of Numerical Algorithms, 2nd ed., lemma 3.1, equation 3.5 and section 4.2). Rounding errors have either sign, so that
they grow like a random walk: the error stays below L sqrt(n) u times `scale` with a probability of at least
1 - 2 exp(-L^2 / 2) for each result (Higham and Mary 2019, A New Approach to Probabilistic Rounding Error Analysis, SIAM
J. Sci. Comput. 41(5), theorem 2.4). L = 8 leaves 3e-14, less than one in a million suites of a million numbers each.
`growth(n)` is the smaller of the two: up to 64 roundings nothing is left to chance; beyond, n would forgive errors that
do not happen. Both sides of a comparison round, hence 2 u, the spacing of float32 at 1.

How to count. `operations` are the roundings on the longest path from the inputs to the result: n for a sum of n or a
dot product of length n, `FUNCTION` for an exponential or a logarithm. Errors of parts add up, each with its own scale:
`tolerance(a, m) + tolerance(b, n)`. An error e of a score is a relative error e of exp(score), and a relative error e
of every weight of a row changes an average over the row by e times the largest magnitude that is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

EPS = float(np.finfo(np.float32).eps)  # 2 u = 2^-23
WALK = 8.0  # L of the random walk
FUNCTION = 4  # roundings that an exponential, logarithm or tangent counts for: kernels are off by a few last places
FLOAT64 = 1e-10  # absolute, of float64 numbers up to 100 after some thousand operations: n u is 1e-12 there


def growth(operations: float) -> float:
    """How many units of rounding error so many roundings in a row may leave."""
    return min(float(operations), WALK * math.sqrt(operations))


def tolerance(scale: Any, operations: float) -> Any:
    """How far two float32 results of the same inputs may lie apart.

    Args:
        scale: sum of the magnitudes of what is added up on the path to each result, a number or an array.
        operations: roundings on the longest path from the inputs to a result.

    Returns:
        the absolute difference that rounding may make, of the shape of `scale`.
    """
    return EPS * growth(operations) * abs(scale)


def kl_tolerance(keys: int) -> float:
    """The KL divergence that float32 kernels may find between two rows that are the same.

    A row is the softmax of float32 scores. Errors e of the scores enter squared, as e^2 / 2 (Hoeffding's lemma), which
    is nothing. What counts is the sum log(normaliser) - entropy - cross-entropy, whose parts are sums of `keys` terms
    and at most 1 + log(keys) each.

    Args:
        keys: length of the longest row; kernels add up to 64 terms in float32, and such sums in float64.
    """
    return float(tolerance(3 * (1 + np.log(keys)), min(keys, 64) + 2 * FUNCTION))


def row_operations(config: Any, keys: int, layer: int) -> int:
    """Roundings between the embeddings of a Llama model and the scores of a layer, along the longest path.

    Errors of a layer's input are relative to that input, which the norms keep at one size: they enter the scores with
    the scale of the scores.

    Args:
        config: of the model.
        keys: length of the text.
        layer: whose scores, from 0.
    """
    width, hidden = int(config.hidden_size), int(config.intermediate_size)
    channels = width // int(config.num_attention_heads)
    scored = (width + FUNCTION) + width + 2 + channels + 1  # norm, projection, rotation, product, scaling
    mixed = (keys + FUNCTION + 2) + keys + width + 1  # softmax, values, output, residual
    through = (width + FUNCTION) + width + FUNCTION + 1 + hidden + 1  # norm, gate, activation, product, back, residual
    return layer * (scored + mixed + through) + scored


def assert_within(found: Any, expected: Any, allowed: Any, what: str = "") -> None:
    """Every difference is at most `allowed`, a sum of tolerances; infinities and NaN must be the same on both sides."""
    left, right = (np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, dtype=float) for x in (found, expected))
    left, right, bound = np.broadcast_arrays(left, right, np.asarray(allowed, dtype=float))
    finite = np.isfinite(left) & np.isfinite(right)
    np.testing.assert_array_equal(left[~finite], right[~finite], err_msg=what)
    beyond = np.abs(left[finite] - right[finite]) > bound[finite]
    if beyond.any():
        worst = int(np.argmax(np.abs(left[finite] - right[finite]) / np.maximum(bound[finite], 1e-300)))
        pair = left[finite][worst], right[finite][worst]
        raise AssertionError(
            f"{what or 'values'}: {pair[0]!r} and {pair[1]!r} differ by {abs(pair[0] - pair[1]):.2e}, "
            f"{bound[finite][worst]:.2e} allowed; {beyond.sum()} of {left.size} differ by too much"
        )


def assert_close32(found: Any, expected: Any, *, operations: float, scale: Any = 1.0, what: str = "") -> None:
    """Two results differ by no more than float32 rounding makes of one path: see the rule above.

    Args:
        found: numbers, an array or a tensor.
        expected: the same, broadcast.
        operations: roundings on the longest path to a result.
        scale: sum of the magnitudes on that path, a number or an array.
        what: is compared, for the message.
    """
    assert_within(found, expected, tolerance(scale, operations), what)


class _Float64(TorchFunctionMode):
    """Replaces float32 by float64 wherever it is requested by name, as norms and softmaxes of transformers do."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(torch.float64 if value is torch.float32 else value for value in args)
        named = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return func(*args, **named)


@contextmanager
def in_float64() -> Iterator[None]:
    """Everything that torch computes here from doubles is computed in doubles; give models as `model.double()`."""
    with _Float64():
        yield
