"""Every shipped config runs as it is, and the README shows what the committed reference run holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.config import load_config, shipped_configs

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    path.relative_to(shipped_configs()).as_posix()
    for path in shipped_configs().rglob("*.yaml")
    if path.relative_to(shipped_configs()).parts[0] not in {"parts", "prompts"}
)


def test_there_are_configs() -> None:
    assert "quickstart.yaml" in CONFIGS


@pytest.mark.weights
@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_runs_with_a_limit(name: str, smollm2: Any, tmp_path: Path) -> None:
    run = harness.run(name, limit=1, out=tmp_path / "run")
    assert run.state == "complete"
    kinds = {experiment.kind for experiment in load_config(name).config.experiments}
    assert kinds <= set(run.rows["experiment"])
    tables = run.tables()
    assert len(tables) >= len(kinds)
    assert all(table.rows for table in tables)
    if "heads" in kinds:
        rows = run.rows
        exact = rows[(rows["metric"] == "kl") & (rows["layer"] == 0) & (rows["surrogate"] == "pccmc-weights")]["value"]
        assert len(exact) > 0
        assert exact.max() <= 1e-5


def test_the_readme_shows_the_tables_of_the_reference_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = harness.load_run(ROOT / "results" / "reference" / "quickstart").tables()
    assert len(tables) >= 5
    for table in tables:
        assert table.markdown().strip() in readme, f"out of date: {table.title}"


def test_the_reference_run_is_that_of_the_shipped_config() -> None:
    manifest = harness.load_run(ROOT / "results" / "reference" / "quickstart").manifest
    assert manifest["state"] == "complete"
    assert manifest["git"]["dirty"] is False
    assert manifest["config"] == load_config("quickstart").config.model_dump(mode="json")


def test_ci_calls_the_test_command_of_the_readme() -> None:
    commands = re.findall(
        r"^pip install .*&& pytest.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_readme_goes_from_counts_to_winners(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if "from ccmc import" in block), names)
    assert names["fit"].converged
    assert set(names["found"].tokens) <= set(range(8))
    assert abs(names["found"].frequencies.sum() - 1) < 1e-6
    assert str(names["found"].tokens) in capsys.readouterr().out
