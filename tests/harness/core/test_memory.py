"""What is said about the memory of a process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from harness.core import memory

PEAK = "from harness.core.memory import peak_memory; print(peak_memory())"
LINUX = pytest.mark.skipif(not memory.RESET.exists(), reason="only Linux forgets")


@LINUX
def test_a_peak_is_of_what_came_since_it_was_forgotten() -> None:
    before = memory.peak_memory() or 0
    held = np.ones(50_000_000)
    grown = memory.peak_memory() or 0
    assert grown >= before and grown >= held.nbytes
    del held
    memory.forget_peak()
    assert (memory.peak_memory() or 0) < grown - 300_000_000


@LINUX
def test_a_peak_is_not_that_of_the_process_before() -> None:
    held = np.ones(100_000_000)  # 800 MB, where a Python that has imported little takes some tens
    found = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True)
    assert 0 < int(found.stdout) < held.nbytes / 2


def test_other_platforms_say_what_they_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STATUS", memory.STATUS / "nowhere")
    monkeypatch.setattr(memory, "RESET", memory.RESET / "nowhere")
    memory.forget_peak()
    assert (memory.peak_memory() or 0) > 1_000_000
    monkeypatch.setattr(memory, "_peak_elsewhere", lambda: None)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory.peak_memory() is None
