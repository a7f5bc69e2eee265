"""Measures of a plugin: found through an entry point, applied by name, and in the rows of a run."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import harness
from harness.core import registry
from harness.core.errors import UsageError
from harness.experiments._shared.settings import known_measures
from harness.measures.extra import measure_continuation, measure_distributions
from harness.measures.measurement import Measurement
from harness.runs import identity
from harness.stats.pooling import Observed

PLUGIN = """
import numpy as np
from harness.core.registry import register
from harness.measures.measurement import Measurement

@register.measure("odd_tokens", unit="share", better="lower", sees="continuation", about="share of odd tokens")
def odd_tokens(continuation):
    return np.mean(continuation % 2) if len(continuation) else None

@register.measure("third_token", unit="tokens", sees="continuation")
def third_token(continuation):
    if len(continuation) < 3:
        raise ValueError("fewer than 3 tokens")
    return Measurement(float(continuation[2]))

@register.measure("hellinger", unit="distance", better="lower", sees="distributions", label="Hellinger")
def hellinger(truth, predicted):
    return np.sqrt(0.5 * ((np.sqrt(truth) - np.sqrt(predicted)) ** 2).sum(axis=1))

@register.measure("nothing", unit="tokens", sees="continuation")
def nothing(continuation):
    return float("nan")

@register.measure("a_word", unit="tokens", sees="continuation")
def a_word(continuation):
    return "many"

@register.measure("one_number", unit="nats", sees="distributions")
def one_number(truth, predicted):
    return 1.0

@register.measure("kl", unit="nats", sees="distributions")
def kl(truth, predicted):
    return truth

@register.measure("writes", unit="tokens", sees="continuation")
def writes(continuation):
    continuation[0] = 7
    return 0.0
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of measures that an entry point names."""
    (tmp_path / "made_up_plugin.py").write_text(PLUGIN)
    real = importlib.metadata.entry_points

    def entry_points(**wanted: Any) -> Any:
        if wanted.get("group") == "ccmc.measures":
            return [importlib.metadata.EntryPoint("made-up", "made_up_plugin", "ccmc.measures")]
        return real(**wanted)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.forget()
    yield tmp_path / "made_up_plugin.py"
    sys.modules.pop("made_up_plugin", None)
    monkeypatch.undo()
    registry.forget()


def test_continuations(plugin: Path) -> None:
    found = measure_continuation(["odd_tokens", "third_token", "hellinger", "nothing"], [1, 3, 4, 5])
    assert found == {
        "odd_tokens": Measurement(0.75),
        "third_token": Measurement(4.0),
        "nothing": Measurement(None, "undefined"),
    }
    short = measure_continuation(["odd_tokens", "third_token"], [])
    assert short == {
        "odd_tokens": Measurement(None, "undefined"),
        "third_token": Measurement(None, "fewer than 3 tokens"),
    }
    with pytest.raises(UsageError, match="measure 'a_word' of made_up_plugin returns str, not a number"):
        measure_continuation(["a_word"], [1])


def test_distributions(plugin: Path) -> None:
    truth, predicted = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]])
    found = measure_distributions(["odd_tokens", "hellinger"], truth, predicted)
    assert found == {"hellinger": Measurement(0.5)}
    with pytest.raises(UsageError, match=r"'one_number' of made_up_plugin returns shape \(\) for 2 contexts"):
        measure_distributions(["one_number"], truth, predicted)


def test_a_measure_cannot_change_what_it_is_given(plugin: Path) -> None:
    tokens = np.array([1, 2, 3])
    assert measure_continuation(["writes"], tokens)["writes"].missing == "assignment destination is read-only"
    assert list(tokens) == [1, 2, 3]


def test_a_name_that_exists_is_left_to_its_owner(plugin: Path) -> None:
    assert registry.measures()["kl"].module == "harness.measures.fidelity"
    assert any("measure 'kl' exists already" in line for line in registry.problems())


def test_names_in_a_config_are_checked(plugin: Path) -> None:
    known_measures(["odd_tokens", "hellinger"])
    for names, said in (
        (["odd_token"], "unknown measure 'odd_token'; did you mean 'odd_tokens'"),
        (["kl"], "measure 'kl' is computed wherever it can be"),
        (["winner_jaccard_at_3"], "is computed wherever it can be"),
        (["hellinger", "hellinger"], "listed twice"),
    ):
        with pytest.raises(ValueError, match=said):
            known_measures(names)


def test_a_run_has_the_measures_of_a_plugin(plugin: Path, small_config: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(small_config.read_text())
    own = {"kind": "generation", "surrogates": ["counts"], "rollout_seeds": 1, "measures": ["odd_tokens", "hellinger"]}
    config["experiments"] = [own]
    small_config.write_text(yaml.safe_dump(config))
    run = harness.run(small_config, out=tmp_path / "run")
    rows = run.rows
    odd = rows[rows["metric"] == "odd_tokens"]
    assert set(odd["surrogate"]) == {"model", "model-reseeded", "model-shuffled", "counts"}
    made = pd.read_parquet(tmp_path / "run" / "trajectories.parquet")
    made = made[(made["source"] == "counts") & (made["strategy"] == "greedy")].set_index("prompt")["continuation"]
    of_counts = odd[(odd["surrogate"] == "counts") & (odd["strategy"] == "greedy")].set_index("prompt")
    for prompt, value in of_counts["value"].items():
        assert value == np.mean(np.asarray(made[prompt])[: of_counts.loc[prompt, "n"]] % 2)
    apart = rows[rows["metric"] == "hellinger"]
    assert set(apart["surrogate"]) == {"counts"}
    assert (apart["value"].between(0, 1)).all()
    assert len(apart) == len(rows[(rows["metric"] == "kl") & (rows["surrogate"] == "counts")])
    assert registry.sign("odd_tokens") == registry.sign("hellinger") == -1
    figure = Observed(rows).figure(metric="hellinger", surrogate="counts", strategy="greedy")
    assert figure.value == pytest.approx(apart[apart["strategy"] == "greedy"]["value"].mean())
    plugin.write_text(PLUGIN.replace("continuation % 2", "continuation % 3"))
    identity._read.cache_clear()
    again = harness.run(small_config, out=tmp_path / "again")
    mine, other = ({unit.name for unit in (one.path / "units").iterdir()} for one in (run, again))
    assert len(mine & other) == len(mine) - 2  # the texts of both strategies stay, what is measured on them does not
