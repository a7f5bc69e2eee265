"""The tutorial runs as it stands, block by block, and what it says of its figures holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "harness" / "docs" / "tutorial.md"


@pytest.mark.weights
def test_every_block_runs(smollm2: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    share = np.sort(names["share"])
    assert share[-2:].sum() > 0.5  # few tokens have most
    assert set(names["explained"]) >= {"pccmc-weights", "distance"}
    assert {"pccmc-weights", "distance"} <= set(names["by_layer"].columns)
    assert len(names["figure"].axes) >= 1
    measured = names["measured"]
    assert len(measured) == 3 * 9
    assert measured.loc[measured["layer"] == 0, "kl"].max() < 1e-3  # exact, in float32
    assert {layer for layer, _ in names["best"].index} == {0}
    assert 0 < float(names["lost"]) < 5
    assert names["written"].shape == (1, 40)
    assert "nats per token" in capsys.readouterr().out


def test_the_block_that_replaces_heads_is_short() -> None:
    """Fifteen lines, from the model that is at hand to what it writes."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (own,) = [block for block in blocks if "with replace(" in block]
    assert len([line for line in own.splitlines() if line.strip()]) <= 15
