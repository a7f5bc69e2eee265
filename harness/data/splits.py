"""Which prompts surrogates are fitted to, and which they are judged on: held-out ones, or folds; fewer for a smoke run.

Prompts of a group are never separated. Everything depends on the seed and on the prompts' ids, kinds and groups alone,
not on their order.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text to be continued. `split` is `train` or `held_out`, never both.

    Prompts that share a subject have the same `group`; a prompt without one is a group of its own, named by its id.
    `fold` is the number of the fold in which a held-out prompt is judged, by surrogates that were fitted to the prompts
    of all other folds and to training prompts; training prompts have none. Where every prompt is judged once, all of
    them are held out, each in its fold; else all held-out prompts are in fold 0.
    """

    id: str
    kind: str
    text: str
    split: str = "train"
    chat: bool = False
    group: str = ""
    fold: int | None = None

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.id)
        held = self.split == "held_out"
        if held == (self.fold is None):
            object.__setattr__(self, "fold", 0 if held else None)

    def as_dict(self) -> dict[str, Any]:
        """The prompt as a JSON-able mapping; `chat`, `group` and a `fold` above 0 are written only where they are."""
        written = asdict(self)
        for name, quiet in (("chat", not self.chat), ("group", self.group == self.id), ("fold", not self.fold)):
            if quiet:
                del written[name]
        return written


@dataclass(frozen=True, slots=True)
class Fold:
    """Prompts to judge, and those to fit to before.

    Attributes:
        number: of the fold, as `Prompt.fold`.
        train: prompts that surrogates are fitted to; none shares its group with one of `judged`.
        judged: prompts that they are judged on.
    """

    number: int
    train: list[Prompt]
    judged: list[Prompt]


def folds_of(prompts: Sequence[Prompt]) -> list[Fold]:
    """The folds of prompts, in their order: one where a config has `held_out`, K where it has `folds: K`.

    Args:
        prompts: as a run has them, split and limited.
    """
    numbers = sorted({prompt.fold for prompt in prompts if prompt.fold is not None})
    return [
        Fold(number, [p for p in prompts if p.fold != number], [p for p in prompts if p.fold == number])
        for number in numbers
    ]


@dataclass(frozen=True, slots=True)
class _Group:
    """Prompts that stay together, and the kind that most of them have."""

    kind: str
    prompts: list[Prompt]


def _rank(seed: int, prompt: Prompt) -> str:
    """A position in a shuffle that depends on the seed and the prompt alone, not on its neighbours."""
    return hashlib.sha256(f"{seed}/{prompt.kind}/{prompt.id}".encode()).hexdigest()


def _groups(prompts: Sequence[Prompt], seed: int) -> list[_Group]:
    """The groups of prompts in the order of a shuffle; of a group, the prompt whose id comes first is shuffled."""
    found: dict[str, list[Prompt]] = {}
    for prompt in sorted(prompts, key=lambda p: p.id):
        found.setdefault(prompt.group, []).append(prompt)
    groups = []
    for members in found.values():
        kinds = Counter(prompt.kind for prompt in members)
        groups.append(_Group(min(kinds, key=lambda kind: (-kinds[kind], kind)), members))
    return sorted(groups, key=lambda group: _rank(seed, group.prompts[0]))


def split(prompts: list[Prompt], held_out: float, seed: int) -> list[Prompt]:
    """Assign each prompt to training or held-out data, by group, stratified by kind.

    Each kind gives its share, rounded down; the places still missing to round(held_out * all) go to the kinds
    with the largest remainders. A kind of two groups or more occurs in both splits. Where groups of several prompts
    cannot fill the places of a kind exactly, they come as close as the order of the shuffle lets them.
    """
    kinds: dict[str, list[_Group]] = {}
    for group in _groups(prompts, seed):
        kinds.setdefault(group.kind, []).append(group)
    sizes = {kind: sum(len(group.prompts) for group in groups) for kind, groups in kinds.items()}
    exact = {kind: held_out * size for kind, size in sizes.items()}
    take = {kind: int(share) for kind, share in exact.items()}
    missing = round(held_out * len(prompts)) - sum(take.values())
    for kind in sorted(kinds, key=lambda k: (take[k] - exact[k], k))[: max(missing, 0)]:
        take[kind] += 1
    held: set[str] = set()
    for kind, groups in kinds.items():
        number = min(max(take[kind], 1), sizes[kind] - 1) if len(groups) > 1 else take[kind]
        held |= {prompt.id for group in _held(groups, number) for prompt in group.prompts}
    return [replace(p, split="held_out" if p.id in held else "train", fold=None) for p in prompts]


def spread(prompts: Sequence[Prompt], number: int, seed: int) -> list[Prompt]:
    """At most `number` prompts, of the kinds in turn and of as many groups as there are: groups are what counts.

    Args:
        prompts: to choose from.
        number: how many.
        seed: of the shuffle; with the same seed fewer prompts are the first of more.
    """
    turns: Counter[str] = Counter()
    ranked: list[tuple[int, int, str, Prompt]] = []
    for group in _groups(prompts, seed):
        turns[group.kind] += 1
        ranked += [(place, turns[group.kind], group.kind, prompt) for place, prompt in enumerate(group.prompts)]
    return [prompt for *_, prompt in sorted(ranked, key=lambda entry: entry[:3])[:number]]


def _held(groups: list[_Group], number: int) -> list[_Group]:
    """Groups of one kind with about `number` prompts; of several groups at least one is taken and one is left."""
    taken: list[_Group] = []
    count = 0
    for group in groups:
        size = len(group.prompts)
        left = len(groups) - len(taken)
        if abs(count + size - number) < abs(count - number) and (left > 1 or len(groups) == 1):
            taken.append(group)
            count += size
    if not taken and len(groups) > 1:
        return [min(groups, key=lambda group: len(group.prompts))]
    return taken


def folded(prompts: list[Prompt], folds: int, seed: int) -> list[Prompt]:
    """Assign each prompt to one of `folds` folds, in which it is held out, by group, stratified by kind.

    Kind by kind, large groups first, each group goes to the fold that has the fewest prompts of its kind, and of these
    to the smallest. With every prompt a group of its own, folds differ by at most one prompt, in all and in each kind.
    With as many groups as folds, no fold is empty.
    """
    members: list[list[_Group]] = [[] for _ in range(folds)]
    sizes = [0] * folds
    of_kind: list[Counter[str]] = [Counter() for _ in range(folds)]
    for group in sorted(_groups(prompts, seed), key=lambda group: (group.kind, -len(group.prompts))):
        own = Counter(prompt.kind for prompt in group.prompts)
        crowded = [sum(number * there[kind] for kind, number in own.items()) for there in of_kind]
        chosen = min(range(folds), key=lambda fold: (crowded[fold], sizes[fold]))
        members[chosen].append(group)
        sizes[chosen] += len(group.prompts)
        of_kind[chosen].update(own)
    _even(members)
    where = {p.id: fold for fold, groups in enumerate(members) for group in groups for p in group.prompts}
    return [replace(prompt, split="held_out", fold=where[prompt.id]) for prompt in prompts]


def _even(members: list[list[_Group]]) -> None:
    """Move single prompts from the largest fold to the smallest while kinds stay as even as they are."""

    def kinds(groups: list[_Group]) -> Counter[str]:
        return Counter(prompt.kind for group in groups for prompt in group.prompts)

    while True:
        by_size = sorted(members, key=lambda groups: kinds(groups).total())
        small, large = by_size[0], by_size[-1]
        few, many = kinds(small), kinds(large)
        movable = [group for group in large if len(group.prompts) == 1 and many[group.kind] > few[group.kind]]
        if many.total() - few.total() < 2 or not movable:
            return
        large.remove(movable[-1])
        small.append(movable[-1])


def limited(prompts: list[Prompt], limit: int | None, seed: int) -> list[Prompt]:
    """At most `limit` prompts of each split and fold, taken from the kinds in turn, whole groups where they fit."""
    if limit is None:
        return prompts
    keep: set[str] = set()
    for part in {(prompt.split, prompt.fold) for prompt in prompts}:
        turns: Counter[str] = Counter()
        ranked: list[tuple[int, str, list[Prompt]]] = []
        for group in _groups([p for p in prompts if (p.split, p.fold) == part], seed):
            turns[group.kind] += 1
            ranked.append((turns[group.kind], group.kind, group.prompts))
        ranked.sort(key=lambda entry: entry[:2])
        kept: list[Prompt] = []
        for _, _, members in ranked:
            if len(kept) + len(members) <= limit:
                kept += members
        keep |= {prompt.id for prompt in kept or ranked[0][2][:limit]}
    return [prompt for prompt in prompts if prompt.id in keep]
