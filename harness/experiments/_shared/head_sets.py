"""Sets of heads: shares by KL of rows or by harm done alone, random ones of the same size, kinds, layers, greedy ones.

Every set is made twice: without layer 0, whose heads surrogates read off the weights replace exactly, and with it. A
share is of all heads that may be replaced; without layer 0 as many are taken from the other layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.core.seeds import derive_seed

Head = tuple[int, int]
KINDS = ("previous-token", "induction", "duplicate-token", "sink", "other")


@dataclass(frozen=True)
class HeadSet:
    """Some heads.

    Attributes:
        heads: (layer, head), in the order in which they were taken.
        condition: what set it is, as rows say it.
    """

    heads: tuple[Head, ...]
    condition: dict[str, Any]

    def layers(self) -> dict[int, int]:
        """Layer -> how many of its heads."""
        return dict(sorted(Counter(layer for layer, _ in self.heads).items()))


def ordered(heads: Sequence[dict[str, Any]], leader: str) -> list[Head]:
    """All heads, those first whose rows a surrogate is closest to on choosing texts."""
    order = sorted(heads, key=lambda one: (one["kl"][leader], one["layer"], one["head"]))
    return [(one["layer"], one["head"]) for one in order]


def ordered_alone(heads: Iterable[Head], alone: Mapping[Head, float]) -> list[Head]:
    """The heads that were replaced alone, those first that changed the next token least."""
    return sorted((head for head in heads if head in alone), key=lambda head: (alone[head], head))


def number_of(share: float, heads: int) -> int:
    """How many heads a share of all is; at least one."""
    return max(1, round(share * heads))


def make_sets(
    heads: Sequence[dict[str, Any]],
    leader: str,
    families: Iterable[str],
    settings: dict[str, Any],
    selected: dict[bool, list[Head]] | None = None,
    alone: Mapping[Head, float] | None = None,
) -> list[HeadSet]:
    """All sets of some families, those without layer 0 first; sets without a head and repeated ones are left out.

    Args:
        heads: every head, as units of fits describe them.
        leader: the surrogate whose KL orders them.
        families: of `settings.FAMILIES`.
        settings: shares, random_draws, layer_0 (which sides to make: False without, True with) and seed.
        selected: by side, heads in the order in which greedy selection took them.
        alone: how much the next token changes when a head alone is replaced, nats.
    """
    found: list[HeadSet] = []
    for inside in settings["layer_0"]:
        kept = [one for one in heads if inside or one["layer"] > 0]
        order = ordered(kept, leader)
        made: list[tuple[dict[str, Any], Sequence[Head]]] = []
        for family in families:
            if family == "alone":
                by_harm = ordered_alone(order, alone or {})
                made += _shares(family, by_harm, len(heads), settings)
                continue
            made += _family(family, kept, order, len(heads), settings, (selected or {}).get(inside, []))
        for where, chosen in made:
            about = {"order": leader, "heads": len(chosen), "layer_0": "in" if inside else "out", **where}
            if chosen and all(about != one.condition for one in found):
                found.append(HeadSet(tuple(chosen), about))
    return found


def _shares(
    family: str, order: Sequence[Head], total: int, settings: dict[str, Any]
) -> list[tuple[dict[str, Any], Sequence[Head]]]:
    return [({"set": family, "share": x}, order[: number_of(x, total)]) for x in settings["shares"]]


def _family(
    family: str,
    kept: Sequence[dict[str, Any]],
    order: list[Head],
    total: int,
    settings: dict[str, Any],
    selected: list[Head],
) -> list[tuple[dict[str, Any], Sequence[Head]]]:
    if family == "share":
        return _shares(family, order, total, settings)
    if family == "random":
        made: list[tuple[dict[str, Any], Sequence[Head]]] = []
        for draw in range(settings["random_draws"]):
            rng = np.random.default_rng(derive_seed(settings["seed"], "random heads", draw))
            places = sorted(order)
            drawn = [places[int(index)] for index in rng.permutation(len(places))]
            made += [
                ({"set": family, "share": x, "draw": draw}, drawn[: number_of(x, total)])
                for x in settings["shares"]
                if number_of(x, total) < len(order)
            ]
        return made
    if family == "kind":
        of_kind = {kind: [(o["layer"], o["head"]) for o in kept if o["kind"] == kind] for kind in KINDS}
        return [({"set": family, "kind": kind}, chosen) for kind, chosen in of_kind.items()]
    if family == "layer":
        layers = sorted({layer for layer, _ in order})
        return [({"set": family, "layer": n}, [one for one in sorted(order) if one[0] == n]) for n in layers]
    sizes = [n for n in (number_of(x, total) for x in settings["shares"]) if n <= len(selected)]
    sizes = sizes or ([len(selected)] if selected else [])
    return [({"set": family}, selected[:n]) for n in sizes]
