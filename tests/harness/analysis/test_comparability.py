"""What two runs differ in: every setting has a declared effect, and every difference is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.comparability import Mismatch, compare_manifests, nothing_shared
from harness.config.decoding import Generation
from harness.config.load import Config
from harness.core import registry

ROOT = Path(__file__).resolve().parents[3]
MANIFEST = ROOT / "results" / "reference" / "quickstart" / "manifest.json"


def changed(path: str, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest of the reference run, and a copy in which one entry is another (None: it is not there)."""
    first: dict[str, Any] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    second: Any = json.loads(MANIFEST.read_text(encoding="utf-8"))
    node = second
    *above, last = path.split(".")
    for key in above:
        node = node[int(key) if key.isdigit() else key]
    node[last] = value
    return first, second


def said(path: str, value: Any) -> tuple[list[str], list[str]]:
    found = compare_manifests(*changed(path, value))
    return [one.text for one in found.refusals], [one.text for one in found.warnings]


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("config.generation.batch_size", 4, "generation.batch_size is 25 and 4 (changes speed and rounding only)"),
        ("config.device", "cpu", "device is auto and cpu (changes speed and rounding only)"),
        (
            "config.experiments.1.layers_per_unit",
            2,
            "heads.layers_per_unit is 6 and 2 (changes speed and rounding only)",
        ),
        ("config.generation.seeds", 5, "generation.seeds is 1 and 5 (changes how much is measured, not what)"),
        ("config.limit", 2, "limit is None and 2 (changes how much is measured, not what)"),
        ("config.held_out", 0.5, "held_out is 0.3 and 0.5 (changes how much is measured, not what)"),
        (
            "config.generation.strategies",
            ["greedy", {"top_k": 3, "temperature": 1.0}],
            "generation.strategies differs: only the first has temperature=1.0; only the second has "
            "top_k=3,temperature=1.0 (changes how much is measured, not what)",
        ),
        (
            "config.generation.strategies",
            [{"temperature": 1.0}, "greedy"],
            "generation.strategies is in another order (changes how much is measured, not what)",
        ),
        ("packages.torch", "3.0", "torch 2.13.0+cpu and 3.0"),
        ("machine.device", "cuda", "device cpu and cuda"),
    ],
)
def test_settings_that_do_not_change_what_figures_mean_are_said(path: str, value: Any, line: str) -> None:
    assert said(path, value) == ([], [line])


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("config.generation.ignore_eos", True, "generation.ignore_eos is False and True"),
        ("config.generation.chat", True, "generation.chat is False and True"),  # written only where it is set
        ("config.generation.use_model_defaults", True, "generation.use_model_defaults is {default} and True"),
        ("config.generation.bos", "never", "generation.bos is {default} and never"),
        ("config.experiments.1.new", 3, "heads.new is None and 3"),
        ("config.unheard_of", 3, "unheard_of is None and 3"),
        (
            "config.models",
            {"names": ["smollm2-135m"], "allow_mismatch": True},
            "models.allow_mismatch is False and True",
        ),
    ],
)
def test_all_other_settings_are_refused(path: str, value: Any, line: str) -> None:
    field = Generation.model_fields.get(path.rpartition(".")[2])
    refusals, _ = said(path, value)
    assert refusals == [line.format(default=None if field is None else field.default)]


def test_every_declared_name_is_a_setting() -> None:
    known = [Config, Generation, *(registry.experiment(kind).Settings for kind in registry.experiments())]
    for model in known:
        declared = [*model.harmless, *model.rounding, *model.apart]
        if "harmless" in vars(model):  # an inherited one may name what not every heir has
            assert set(declared) <= set(model.model_fields), model
        assert len(set(declared)) == len(declared), model
        assert {model.effect(name) for name in model.model_fields} <= {"amount", "rounding", "meaning", "apart"}
    assert Generation.effect("batch_size") == "rounding"
    assert Generation.effect("a-setting-of-tomorrow") == "meaning"


def test_a_version_that_one_run_did_not_record_is_no_difference() -> None:
    first, second = changed("packages.tokenizers", "9.9")
    assert compare_manifests(first, second).warnings == ()


def test_nothing_shared() -> None:
    first, second = changed("config.generation.strategies", ["greedy"])
    assert nothing_shared(first, second) is None
    first, second = changed("config.generation.strategies", [{"beams": 4}])
    assert nothing_shared(first, second) == "no decoding strategy in common: greedy; temperature=1.0 and beams=4"
    first, second = changed("models.0.name", "other")
    assert nothing_shared(first, second) == "no model in common: smollm2-135m and other"


def test_a_mismatch_names_its_place() -> None:
    assert Mismatch("rounding", "", "batch_size", 1, 2).place == "generation.batch_size"
    assert Mismatch("amount", "config", "limit", 1, 2).place == "limit"
