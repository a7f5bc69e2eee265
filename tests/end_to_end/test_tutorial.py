"""The tutorial runs as it stands, block by block, and what it says of its figures holds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
from harness.report.api_pages import write_api

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


def test_the_reference_of_public_names_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("pdoc")
    made = write_api(tmp_path)
    texts = {path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in made}
    assert 'id="CCMC"' in texts["ccmc.html"]
    for name in harness.__all__:
        assert f'id="{name}"' in texts["harness.html"]
    assert "From a chain to a running model" in texts["harness.html"]
    assert 'id="replace"' in texts["harness/attention.html"]


def test_a_name_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """In a process of its own: pdoc remembers what it has read."""
    pytest.importorskip("pdoc")
    code = (
        "import ccmc; ccmc.__all__ = [*ccmc.__all__, 'nowhere']\n"
        "from harness.core.errors import UsageError\n"
        "from harness.report.api_pages import write_api\n"
        "from pathlib import Path\n"
        f"try: write_api(Path({str(tmp_path)!r}))\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert "docs --api: pdoc warns: " in done.stdout, done.stderr
    assert "nowhere" in done.stdout
