"""What units of fits left behind, as replacements for a running model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.attention.capture import FloatArray, IntArray, LayerCall, listen
from harness.attention.loop_running import Replacement
from harness.attention.loop_store import read_arrays, static_of, terms_of, wants_sides
from harness.attention.loop_terms import LoopTerms, MeanOutput, TokenRows, uniform
from harness.attention.replacing import replace
from harness.experiments._shared.loop_rules import LEADER, MEAN_OUTPUT, MEAN_ROW, UNIFORM
from harness.experiments._shared.mean_rows import mean_row_terms

Head = tuple[int, int]
ALONE = "alone.json"


def read_heads(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Every head of all units of fits, by layer and number: its KL by surrogate, and its kind."""
    found: list[dict[str, Any]] = []
    for folder in folders:
        if (folder / "heads.json").exists():
            found += json.loads((folder / "heads.json").read_text(encoding="utf-8"))
    return sorted(found, key=lambda one: (one["layer"], one["head"]))


def read_alone(folders: Sequence[Path], order: str) -> dict[Head, float]:
    """How much the next token changes when a head alone is replaced, in nats on choosing texts; mean over strategies.

    Args:
        folders: of units; those that replaced no head alone are passed over.
        order: the surrogate that takes its place.
    """
    found: dict[Head, float] = {}
    for folder in folders:
        if (folder / ALONE).exists():
            kept = json.loads((folder / ALONE).read_text(encoding="utf-8"))
            if kept["order"] == order:
                found |= {(one["layer"], one["head"]): one["kl"] for one in kept["heads"]}
    return found


@dataclass
class Arm:
    """One arm, ready to take the place of any heads.

    Attributes:
        model: which runs.
        vocabulary: [K] of the training texts, in the model's ids.
        terms: by layer.
        levels: by layer, [H] log odds of the first position.
        first: by layer, the terms that have the word about the first position in the sets of another surrogate.
        tables: what static heads make of tokens; filled as texts pass.
    """

    model: Any
    vocabulary: IntArray
    terms: dict[int, LoopTerms | MeanOutput]
    levels: dict[int, FloatArray]
    first: dict[int, LoopTerms] = field(default_factory=dict)
    tables: dict[int, TokenRows] = field(default_factory=dict)

    def replacements(self, heads: Iterable[Head], rule: str) -> list[Replacement]:
        """One for each layer of some heads; rule: for the first position."""
        of_layer: dict[int, list[int]] = {}
        for layer, head in sorted(heads):
            of_layer.setdefault(layer, []).append(head)
        first = self.first if rule == LEADER else {}
        return [Replacement(layer, self.terms[layer], numbers, first.get(layer)) for layer, numbers in of_layer.items()]

    def replacing(self, heads: Iterable[Head], rule: str) -> Any:
        """A block in which these heads attend as the arm does; rule: leader, levels or real, for the first position."""
        kind: Any = "own" if rule == LEADER else rule
        made = self.replacements(heads, rule)
        return replace(self.model, made, self.vocabulary, sink=kind, levels=self.levels, tables=self.tables)


def read_arm(model: Any, folders: Sequence[Path], name: str, longest: int, leader: str | None = None) -> Arm:
    """Read an arm.

    Args:
        model: which runs.
        folders: of the units of fits; others are passed over.
        name: a surrogate of heads, or one of the controls.
        longest: tokens of the longest text.
        leader: the surrogate that has the word about the first position, where it is another one.
    """
    own = {number: folder for folder in folders for number in _layers_of(folder)}
    if not own:
        raise ValueError("no unit of fits among the inputs")
    ids = read_arrays(next(iter(own.values())) / "vocabulary.npz")["ids"]
    templates: dict[int, LayerCall] = {}
    other = leader if leader not in {None, name} else None
    if other or name not in {MEAN_ROW, UNIFORM, MEAN_OUTPUT}:
        listen(
            model, np.zeros(longest, dtype=np.int64), sorted(own), lambda c: templates.__setitem__(c.layer, c.bare())
        )
    arm = Arm(model, ids, {}, {})
    for layer, folder in sorted(own.items()):
        arrays = read_arrays(folder / f"layer-{layer:02}.npz")
        arm.levels[layer] = arrays["levels"]
        arm.terms[layer] = _terms(model, folder, name, layer, arrays, templates, ids)
        if other and not isinstance(arm.terms[layer], MeanOutput):
            first = _terms(model, folder, other, layer, arrays, templates, ids)
            assert isinstance(first, LoopTerms)
            arm.first[layer] = first
    return arm


def _layers_of(folder: Path) -> list[int]:
    return sorted(int(file.stem.rpartition("-")[2]) for file in folder.glob("layer-*.npz"))


def _terms(
    model: Any,
    folder: Path,
    name: str,
    layer: int,
    arrays: Mapping[str, Any],
    templates: Mapping[int, LayerCall],
    ids: IntArray,
) -> LoopTerms | MeanOutput:
    if name == MEAN_OUTPUT:
        return MeanOutput(arrays["output"])
    if name == MEAN_ROW:
        return mean_row_terms(arrays["mean_rows"])
    if name == UNIFORM:
        return uniform(len(arrays["levels"]))
    kept = read_arrays(folder / f"{name}-{layer:02}.npz")
    static = None
    if bool(kept["static"]):
        static = static_of(model, templates[layer], ids, dict(arrays), wants_sides(kept))
    return terms_of(kept, static)
