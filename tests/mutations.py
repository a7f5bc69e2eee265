"""Documents changed at random: for tests of what reads configs and manifests."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any


def places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value of a document of mappings and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


def changed(document: Any, dice: random.Random, values: Sequence[Any]) -> Any:
    """A copy of a document with one value replaced, renamed, removed or added.

    Args:
        document: of mappings and lists; stays as it is.
        dice: decides.
        values: what is put in.
    """
    made = copy.deepcopy(document)
    *way, last = dice.choice(list(places(made)))
    node = made
    for key in way:
        node = node[key]
    how = dice.randrange(5)
    if how == 0:
        del node[last]
    elif how == 1 and isinstance(node, dict):
        node[dice.choice(["extra", "", "kind", "\x00", f"{last}s"])] = dice.choice(values)
    elif how == 2 and isinstance(node, dict):
        node[last[:-1] + dice.choice("xyz")] = node.pop(last)
    else:
        node[last] = dice.choice(values)
    return made
