"""A disk that takes no figure costs a complete run its pictures, and the command says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.app import invoke
from harness.core.errors import StorageError

TINY = """
name: tiny
experiments:
  - {kind: equivalence, vocab_size: 4, dimensions: [4], repetitions: 1}
"""


def test_a_full_disk_at_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")

    def refuse(path: Path, data: bytes) -> None:
        raise StorageError(f"{path}: no space is left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr("harness.runs.reading.write_atomic", refuse)
        assert invoke(["run", "tiny.yaml", "--out", "run"]) == 3
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("ccmc: ")]
    assert "no space is left on the disk" in line
    assert line.endswith("(the run is complete; its figures are drawn by: ccmc plot run)")
    assert invoke(["verify", "run"]) == 0
    assert invoke(["plot", "run"]) == 0
    assert list(Path("run", "plots").glob("*.svg"))
