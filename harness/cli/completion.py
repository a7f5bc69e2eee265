"""What shells complete: names of configs, of runs and of metrics."""

from __future__ import annotations

from pathlib import Path


def complete_config(incomplete: str) -> list[str]:
    """Names of shipped configs, then YAML files and folders, that start with what was typed."""
    from harness.config.load import config_names

    typed = Path(incomplete)
    above = typed if incomplete.endswith("/") else typed.parent
    files = [f"{path}/" if path.is_dir() else str(path) for path in above.glob("*") if path.suffix in {".yaml", ""}]
    files = [name for name in files if name.endswith(("/", ".yaml"))] if incomplete else []
    return [name for name in [*config_names(), *sorted(files)] if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Runs under results/, and runs and folders anywhere, that start with what was typed, for shells to complete."""
    from harness.runs.directory import find_runs

    names = {str(path) for root in (Path("results"), Path("results/reference")) for path in find_runs(root)}
    if incomplete:
        typed = Path(incomplete)
        above = typed if incomplete.endswith("/") else typed.parent
        for path in above.glob("*/"):
            names.add(str(path) if (path / "manifest.json").is_file() else f"{path}/")
    return sorted(name for name in names if name.startswith(incomplete))


def complete_metric(incomplete: str) -> list[tuple[str, str]]:
    """Metrics that start with what was typed, with a line about each."""
    from harness.core.registry import measures

    return [(name, one.about) for name, one in measures().items() if name.startswith(incomplete) and "{" not in name]


def complete_effect(incomplete: str) -> list[tuple[str, str]]:
    """Metrics that start with what was typed, up to the size that follows."""
    return [(f"{name}=", about) for name, about in complete_metric(incomplete)]
