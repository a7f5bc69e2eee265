"""What a notebook shows of a run: what it is, and its pictures as images that cannot run scripts."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

import harness
from harness.runs.run import PICTURES, Run

REFERENCE = Path(harness.__file__).resolve().parents[1] / "results" / "reference"


def test_a_run_shows_its_state_and_pictures() -> None:
    run = harness.load_run(REFERENCE / "generation" / "context-logit")
    shown = run._repr_html_()
    units = len(run.manifest["units"])
    assert f"context-logit: complete, {units} of {units} units" in shown
    assert "smollm2-135m" in shown
    images = [b64decode(text) for text in re.findall(r"base64,([^\"]+)", shown)]
    files = sorted((run.path / "plots").glob("*.svg"))[:PICTURES]
    assert files
    assert images == [file.read_bytes() for file in files]
    assert "<svg" not in shown


def test_names_are_escaped() -> None:
    run = harness.load_run(REFERENCE / "smoke")
    hostile = Run(run.path, {**run.manifest, "name": "<script>x</script>"})
    assert "<script>" not in hostile._repr_html_()
