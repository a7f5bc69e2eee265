"""What two runs differ in, told apart by what it means for a comparison of their figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.config.decoding import Generation
from harness.config.strict import Strict
from harness.core import registry

PACKAGES = ("ccmc-harness", "torch", "transformers", "numpy", "scipy", "numba")
MACHINE = ("architecture", "device", "gpu")


@dataclass(frozen=True)
class Comparability:
    """How far two runs can be compared.

    Attributes:
        refusals: why figures of the same name do not mean the same.
        warnings: what differs and may explain a difference.
        same_prompts: a prompt's name stands for the same text on both sides.
        same_repetitions: repetition i drew the same data on both sides.
    """

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    same_prompts: bool
    same_repetitions: bool

    def paired(self, of_language_model: bool) -> bool:
        """Can units of the same name be paired?"""
        return self.same_prompts if of_language_model else self.same_repetitions


def _settings(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {experiment["kind"]: experiment for experiment in manifest["config"]["experiments"]}


def _model(kind: str) -> type[Strict]:
    """The settings model of an experiment; one that says nothing where its package is not installed."""
    return registry.experiment(kind).Settings if kind in registry.experiments() else Strict


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str, model: type[Strict]) -> list[str]:
    keys = sorted((a.keys() | b.keys()) - model.harmless - {"kind"})
    return [f"{prefix}.{key} is {a.get(key)} and {b.get(key)}" for key in keys if a.get(key) != b.get(key)]


def compare_manifests(a: dict[str, Any], b: dict[str, Any]) -> Comparability:
    """Tell what differs between two runs.

    Args:
        a, b: manifests of two runs.

    Returns:
        Refusals and warnings, each naming the setting and both values, and what can be paired.
    """
    mine, theirs = _settings(a), _settings(b)
    common = sorted(mine.keys() & theirs.keys())
    refusals: list[str] = []
    if not common:
        refusals.append(f"no experiment in common: {', '.join(mine)} and {', '.join(theirs)}")
    data: list[str] = []
    for kind in common:
        data += _differences(mine[kind], theirs[kind], kind, _model(kind))
    if any(_model(kind).continues for kind in common):
        data += _differences(a["config"]["generation"], b["config"]["generation"], "generation", Generation)
    refusals += data
    warnings: list[str] = []
    for name, manifest in (("first", a), ("second", b)):
        if manifest["state"] != "complete":
            warnings.append(f"the {name} run is {manifest['state']}: only its finished units are compared")
    warnings += _experiments_on_one_side(mine, theirs)
    same_prompts = a["prompts"]["sha256"] == b["prompts"]["sha256"]
    same_seed = a["config"]["seed"] == b["config"]["seed"]
    if not same_prompts:
        warnings.append("other prompts: what was measured on them is compared as two samples, not pair by pair")
    if not same_seed:
        seeds = f"{a['config']['seed']} and {b['config']['seed']}"
        warnings.append(f"seeds {seeds}: repetitions are compared as two samples, not pair by pair")
    warnings += _weights(a, b)
    warnings += _surroundings(a, b)
    return Comparability(tuple(refusals), tuple(warnings), same_prompts, same_seed and not data)


def _experiments_on_one_side(mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    found = []
    for name, only in (("first", mine.keys() - theirs.keys()), ("second", theirs.keys() - mine.keys())):
        if only:
            found.append(f"only in the {name} run: {', '.join(sorted(only))}")
    return found


def _weights(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    mine = {model["name"]: model for model in a["models"]}
    theirs = {model["name"]: model for model in b["models"]}
    found = []
    for name in mine.keys() & theirs.keys():
        if mine[name]["weights_sha256"] != theirs[name]["weights_sha256"]:
            revisions = f"revision {mine[name]['revision']} and {theirs[name]['revision']}"
            found.append(f"{name} has other weights on each side ({revisions})")
    if mine.keys() != theirs.keys():
        found.append(f"models are {', '.join(mine) or 'none'} and {', '.join(theirs) or 'none'}")
    return found


def _surroundings(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    found = []
    for name in PACKAGES:
        one, other = a["packages"].get(name), b["packages"].get(name)
        if one != other:
            found.append(f"{name} {one} and {other}")
    for name in MACHINE:
        one, other = a["machine"].get(name), b["machine"].get(name)
        if one != other:
            found.append(f"{name} {one} and {other}")
    if a["git"]["commit"] != b["git"]["commit"]:
        found.append(f"source at {str(a['git']['commit'])[:8]} and {str(b['git']['commit'])[:8]}")
    for name, manifest in (("first", a), ("second", b)):
        if manifest["git"]["dirty"]:
            found.append(f"the {name} run's source had changes that were not committed")
    return found
