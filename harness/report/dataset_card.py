"""A run as a dataset for the hub: its tables, its manifest, and a card that says what they are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.core.errors import UsageError
from harness.core.records import Interval
from harness.core.rows import COLUMNS
from harness.runs.run import Run

ROWS, TEXTS, MANIFEST, CARD = "rows.parquet", "trajectories.parquet", "manifest.json", "README.md"


def prepare(run: Run, folder: Path, texts: bool = True, license_: str | None = None) -> dict[str, int]:
    """Put what is pushed into a folder.

    Args:
        run: a complete one.
        folder: empty; it gets rows, continuations, manifest and card.
        texts: with the continuations of the model and of surrogates.
        license_: of the card's metadata, such as apache-2.0; continuations are under the terms of their models.

    Returns:
        Name of each file -> bytes.

    Raises:
        UsageError: the run is not complete.
    """
    if run.state != "complete":
        done, total = run.finished_units()
        raise UsageError(f"{run.path}: {done} of {total} units are done; finish the run, then push it")
    names = [ROWS, MANIFEST, *([TEXTS] if texts and (run.path / TEXTS).is_file() else [])]
    for name in names:
        shutil.copyfile(run.path / name, folder / name)
    (folder / CARD).write_text(card(run, TEXTS in names, license_), encoding="utf-8")
    return {name: (folder / name).stat().st_size for name in [CARD, *names]}


def card(run: Run, texts: bool = True, license_: str | None = None) -> str:
    """The card of the dataset: metadata that the hub reads, answers in words, and how to read the rows."""
    configs = [{"config_name": "rows", "data_files": ROWS, "default": True}]
    configs += [{"config_name": "continuations", "data_files": TEXTS}] if texts else []
    about: dict[str, Any] = {
        "pretty_name": f"CCMC harness: {run.name}",
        "tags": ["ccmc-harness", "interpretability", "evaluation"],
        "configs": configs,
        "model-index": _results(run),
    }
    about |= {"license": license_} if license_ else {}
    manifest = run.manifest
    models = ", ".join(f"{model['name']} ({model['revision']})" for model in manifest["models"]) or "none"
    commit = manifest.get("git", {}).get("commit") or "unknown"
    lines = [
        "---", yaml.safe_dump(about, sort_keys=False, allow_unicode=True).strip(), "---", "",
        f"# {_plain(run.name)}", "",
        f"A run of the CCMC harness. Models: {_plain(models)}. Config {manifest['config_hash'][:8]}, seed "
        f"{manifest['seed']}, source {commit[:12]}. `manifest.json` has the whole config, versions and hashes.", "",
        "## What it found", "",
        *(f"- {_plain(answer.text)}" for answer in run.answers()), "",
        "## Read it", "",
        "```python",
        "from datasets import load_dataset",
        "",
        'rows = load_dataset("OWNER/NAME", "rows", split="train").to_pandas()',
        "```", "",
        f"One row is one figure; columns: {', '.join(COLUMNS)}. `missing` says why a value is missing.",
        *(["`continuations` holds what the model and the surrogates wrote, under the terms of the model."] if texts
          else []),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A text in which nothing is markup."""
    for sign in "\\`*_<>[]|#":
        text = text.replace(sign, f"\\{sign}")
    return text


def _results(run: Run) -> list[dict[str, Any]]:
    """Answers with a figure, as evaluation results of the run's models."""
    found = []
    for model in run.manifest["models"]:
        metrics = [_metric(a.question, a.estimate) for a in run.answers() if a.estimate is not None and a.answered
                   and model["name"] in a.text]  # fmt: skip
        if metrics:
            task = {"type": "text-generation"}
            data = {"name": run.name, "type": "ccmc-harness"}
            results = [{"task": task, "dataset": data, "metrics": metrics}]
            found.append({"name": model["name"], "results": results})
    return found


def _metric(question: str, interval: Interval) -> Mapping[str, Any]:
    value = None if interval.value is None else float(f"{interval.value:.6g}")
    made: dict[str, Any] = {"type": "ccmc-harness", "name": question, "value": value}
    if interval.low is not None and interval.high is not None:
        made["args"] = {"low": float(f"{interval.low:.6g}"), "high": float(f"{interval.high:.6g}"), "n": interval.n}
    return made
