"""Attention of real models: capture, blocks of queries, parity with eager, packing, static inputs, ablations.

Nothing here depends on a surrogate. Start with `capture.py`, then `blocks.py`. `replace` puts what was fitted elsewhere
in the place of heads of a running model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from harness.attention.capture import FloatArray, IntArray
    from harness.attention.loop_rows import SinkRule
    from harness.attention.loop_running import Replacement, Running

Heads: TypeAlias = "Mapping[int, Sequence[int] | None] | Iterable[tuple[int, int]] | None"
"""Layer -> heads, None for all of it; or (layer, head) pairs; or None for all that were fitted."""


class FittedChains(Protocol):
    """What can take the place of heads, such as `harness.fit_heads` gives it."""

    @property
    def vocabulary(self) -> IntArray: ...

    @property
    def levels(self) -> Mapping[int, FloatArray]: ...

    def replacements(self, heads: Heads) -> list[Replacement]: ...


def replace(
    model: Any, heads: Heads, surrogate: FittedChains, *, first_position: SinkRule = "own"
) -> AbstractContextManager[Running]:
    """Within this block chosen heads of a model attend as a surrogate does; values and all that follows are its own.

    The same in a pass over padded texts and in `generate` with a cache. Beam search is not supported.

    Args:
        model: a causal language model of transformers, of a family that the capture supports.
        heads: which.
        surrogate: fitted, by `harness.fit_heads`.
        first_position: "own", what the surrogate says about it and the mean of its training texts where it says
            nothing; "levels", that mean for all; "real", what the running head gives it, a control.

    Yields:
        what is running; `seen` counts the tokens outside the vocabulary that was fitted.

    Raises:
        UsageError: a model whose heads cannot be replaced, or heads that were not fitted.
    """
    from harness.attention.replacing import replace as within

    return within(
        model, surrogate.replacements(heads), surrogate.vocabulary, sink=first_position, levels=surrogate.levels
    )
