"""Differences between two runs, by their consequence for a comparison of figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from harness.config.decoding import Generation
from harness.config.load import Config
from harness.config.strict import Strict
from harness.core import registry

PACKAGES = ("ccmc-harness", "torch", "transformers", "tokenizers", "numpy", "scipy", "numba")
MACHINE = ("architecture", "processor", "device", "gpu")
CONFIG = "config"  # the scope of a run's own settings
EFFECTS = {"amount": "changes how much is measured, not what", "rounding": "changes speed and rounding only"}

Kind = Literal[
    "setting",
    "amount",
    "rounding",
    "experiments",
    "only here",
    "prompts",
    "seed",
    "weights",
    "models",
    "package",
    "machine",
    "source",
    "uncommitted",
    "state",
    "same run",
]


@dataclass(frozen=True)
class Mismatch:
    """One thing that two runs differ in.

    Attributes:
        kind: of what; "setting" changes what figures mean, "amount" how much is measured, "rounding" the last digits;
            "only here" is an experiment that one run has, "experiments" that they have none in common.
        scope: the experiment whose setting it is, or `config`; empty for the settings of generation, and for all other
            kinds.
        name: the setting, model, package or part of the machine; "first" or "second" where it concerns one run.
        mine, theirs: the two values; only `mine` where it concerns one run.
    """

    kind: Kind
    scope: str = ""
    name: str = ""
    mine: Any = None
    theirs: Any = None

    @property
    def place(self) -> str:
        """A setting as configs write it, such as "heads.max_length"; else the whole text."""
        if self.kind not in {"setting", "amount", "rounding"}:
            return self.text
        return self.name if self.scope == CONFIG else f"{self.scope or 'generation'}.{self.name}"

    @property
    def text(self) -> str:
        """The difference in words."""
        pair = f"{self.mine} and {self.theirs}"
        match self.kind:
            case "setting":
                return f"{self.place} is {pair}"
            case "amount" | "rounding":
                return f"{self.place} {_values(self.mine, self.theirs)} ({EFFECTS[self.kind]})"
            case "experiments":
                return f"no experiment in common: {pair}"
            case "only here":
                return f"only in the {self.name} run: {self.mine}"
            case "prompts":
                return "other prompts: what was measured on them is compared as two samples, not pair by pair"
            case "seed":
                return f"seeds {pair}: repetitions are compared as two samples, not pair by pair"
            case "weights":
                return f"{self.name} has other weights on each side (revision {pair})"
            case "models":
                return f"other models: {pair}"
            case "source":
                return f"source at {str(self.mine)[:8]} and {str(self.theirs)[:8]}"
            case "uncommitted":
                return f"the {self.name} run's source had changes that were not committed"
            case "state":
                return f"the {self.name} run is {self.mine}: only its finished units are compared"
            case "same run":
                return "both sides are one and the same run"
            case _:
                return f"{self.name} {pair}"


@dataclass(frozen=True)
class Comparability:
    """How far two runs can be compared.

    Attributes:
        refusals: why figures of the same name do not mean the same.
        warnings: other differences, which may explain a difference of figures.
        same_prompts: prompts of the same name have the same text on both sides.
        same_repetitions: repetition i drew the same data on both sides.
    """

    refusals: tuple[Mismatch, ...]
    warnings: tuple[Mismatch, ...]
    same_prompts: bool
    same_repetitions: bool

    def paired(self, of_language_model: bool) -> bool:
        """Can units of the same name be paired?"""
        return self.same_prompts if of_language_model else self.same_repetitions

    def settings_of(self, experiment: str) -> list[Mismatch]:
        """The settings that differ and that figures of an experiment depend on."""
        scopes = {experiment, "", CONFIG} if _model(experiment).continues else {experiment, CONFIG}
        return [one for one in self.refusals if one.kind == "setting" and one.scope in scopes]


def _settings(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {experiment["kind"]: experiment for experiment in manifest["config"]["experiments"]}


def _model(kind: str) -> type[Strict]:
    """The settings model of an experiment; one that says nothing where its package is not installed."""
    return registry.experiment(kind).Settings if kind in registry.experiments() else Strict


def _values(mine: Any, theirs: Any) -> str:
    """How two values differ; of two lists what only one of them has."""
    if not (isinstance(mine, list) and isinstance(theirs, list)):
        return f"is {mine} and {theirs}"
    pairs = (("first", mine, theirs), ("second", theirs, mine))
    only = [(side, ", ".join(_word(x) for x in one if x not in other)) for side, one, other in pairs]
    said = [f"only the {side} has {names}" for side, names in only if names]
    return f"differs: {'; '.join(said)}" if said else "is in another order"


def _word(value: Any) -> str:
    return ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _default(model: type[Strict], name: str) -> Any:
    """What a setting is where a run does not record it: later ones are written only where they are set."""
    field = model.model_fields.get(name)
    default = None if field is None or field.is_required() else field.get_default(call_default_factory=True)
    return list(default) if isinstance(default, tuple) else default


def _differences(a: dict[str, Any], b: dict[str, Any], scope: str, model: type[Strict]) -> list[Mismatch]:
    """The settings that two runs differ in, each with what it changes as its settings class declares."""
    found = []
    for key in sorted((a.keys() | b.keys()) - {"kind"}):
        effect, default = model.effect(key), _default(model, key)
        mine, theirs = a.get(key, default), b.get(key, default)
        if effect != "apart" and mine != theirs:
            found.append(Mismatch("setting" if effect == "meaning" else effect, scope, key, mine, theirs))
    return found


def _options_of_models(config: dict[str, Any]) -> dict[str, Any]:
    """How models are loaded, where `models` is a mapping: its entries that are switches, not names."""
    models = config.get("models")
    return {f"models.{k}": v for k, v in models.items() if isinstance(v, bool)} if isinstance(models, dict) else {}


def compare_manifests(a: dict[str, Any], b: dict[str, Any]) -> Comparability:
    """Find the differences between two runs.

    Args:
        a, b: manifests of two runs.

    Returns:
        Refusals and warnings, each naming the setting and both values, and what can be paired.
    """
    mine, theirs = _settings(a), _settings(b)
    common = sorted(mine.keys() & theirs.keys())
    refusals: list[Mismatch] = []
    if not common:
        refusals.append(Mismatch("experiments", mine=", ".join(mine), theirs=", ".join(theirs)))
    settings = _differences(a["config"], b["config"], CONFIG, Config)
    for kind in common:
        settings += _differences(mine[kind], theirs[kind], kind, _model(kind))
    if any(_model(kind).continues for kind in common):
        settings += _differences(a["config"]["generation"], b["config"]["generation"], "", Generation)
        one, other = (_options_of_models(manifest["config"]) for manifest in (a, b))
        settings += [
            Mismatch("setting", CONFIG, name, one.get(name, False), other.get(name, False))
            for name in sorted(one.keys() | other.keys())
            if one.get(name, False) != other.get(name, False)
        ]
    data = [one for one in settings if one.kind == "setting"]
    refusals += data
    warnings = [one for one in settings if one.kind != "setting"]
    warnings += [
        Mismatch("state", name=name, mine=manifest["state"])
        for name, manifest in (("first", a), ("second", b))
        if manifest["state"] != "complete"
    ]
    for name, only in (("first", mine.keys() - theirs.keys()), ("second", theirs.keys() - mine.keys())):
        if only:
            warnings.append(Mismatch("only here", name=name, mine=", ".join(sorted(only))))
    same_prompts = a["prompts"]["sha256"] == b["prompts"]["sha256"]
    same_seed = a["config"]["seed"] == b["config"]["seed"]
    if not same_prompts:
        warnings.append(Mismatch("prompts", mine=a["prompts"]["sha256"], theirs=b["prompts"]["sha256"]))
    if not same_seed:
        warnings.append(Mismatch("seed", mine=a["config"]["seed"], theirs=b["config"]["seed"]))
    warnings += _weights(a, b)
    warnings += _surroundings(a, b)
    return Comparability(tuple(refusals), tuple(warnings), same_prompts, same_seed and not data)


def refusal(found: Comparability) -> str | None:
    """Why figures of the same name do not mean the same, in one line; None where they do."""
    if not found.refusals:
        return None
    more = f" (and {len(found.refusals) - 1} more)" if len(found.refusals) > 1 else ""
    return f"{found.refusals[0].text}{more}"


def nothing_shared(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    """Why no figure of two runs' language models has a partner: other models, or other strategies; else None.

    Args:
        a, b: manifests of two runs that a gate compares by the names of figures.
    """
    mine, theirs = ([model["name"] for model in manifest["models"]] for manifest in (a, b))
    if mine and theirs and not set(mine) & set(theirs):
        return f"no model in common: {', '.join(mine)} and {', '.join(theirs)}"
    if any(_model(kind).continues for kind in _settings(a).keys() & _settings(b).keys()):
        one, other = ([_word(s) for s in m["config"]["generation"].get("strategies", ())] for m in (a, b))
        if one and other and not set(one) & set(other):
            return f"no decoding strategy in common: {'; '.join(one)} and {'; '.join(other)}"
    return None


def _weights(a: dict[str, Any], b: dict[str, Any]) -> list[Mismatch]:
    mine = {model["name"]: model for model in a["models"]}
    theirs = {model["name"]: model for model in b["models"]}
    found = [
        Mismatch("weights", name=name, mine=mine[name]["revision"], theirs=theirs[name]["revision"])
        for name in mine
        if name in theirs and mine[name]["weights_sha256"] != theirs[name]["weights_sha256"]
    ]
    if mine.keys() != theirs.keys():
        found.append(Mismatch("models", mine=", ".join(mine) or "none", theirs=", ".join(theirs) or "none"))
    return found


def _surroundings(a: dict[str, Any], b: dict[str, Any]) -> list[Mismatch]:
    found = [*_unequal("package", PACKAGES, a["packages"], b["packages"])]
    found += _unequal("machine", MACHINE, a["machine"], b["machine"])
    if a["git"]["commit"] != b["git"]["commit"]:
        found.append(Mismatch("source", mine=a["git"]["commit"], theirs=b["git"]["commit"]))
    for name, manifest in (("first", a), ("second", b)):
        if manifest["git"]["dirty"]:
            found.append(Mismatch("uncommitted", name=name, mine=True))
    return found


def _unequal(kind: Kind, names: Iterable[str], a: dict[str, Any], b: dict[str, Any]) -> list[Mismatch]:
    return [
        Mismatch(kind, name=name, mine=a.get(name), theirs=b.get(name))
        for name in names
        if a.get(name) != b.get(name) and (kind == "machine" or None not in (a.get(name), b.get(name)))
    ]
