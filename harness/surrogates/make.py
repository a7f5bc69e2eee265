"""One door to make a surrogate, built in or of a plugin, from its declaration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from harness.core import registry
from harness.surrogates.base import Ingredients


def make(name: str, of: Literal["heads", "next-token"], given: Ingredients) -> Any:
    """A surrogate, not yet fitted: a `HeadSurrogate` or a `NextTokenSurrogate`.

    Args:
        name: as declared.
        of: what it stands in for.
        given: what it may be made of.

    Raises:
        UsageError: no such surrogate; names the nearest.
        ValueError: something that it needs is not given.
    """
    return registry.surrogate(name, of).make(given)


def needed(names: Iterable[str], of: Literal["heads", "next-token"]) -> frozenset[str]:
    """What some surrogates need beside a seed, all together."""
    known = registry.surrogates(of)
    return frozenset(need for name in names if name in known for need in known[name].needs)


def priors_of(names: Iterable[str]) -> tuple[str, ...]:
    """The surrogates of heads that the fits among some surrogates are shrunk to, as declared, each once."""
    known = registry.surrogates("heads")
    return tuple(dict.fromkeys(known[name].prior for name in names if name in known and known[name].prior))
