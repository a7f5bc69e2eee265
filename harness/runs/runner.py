"""From a config to a run: resolve and check everything, plan the units, execute them, put the rows together."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from harness.config.decoding import HEAD_CHAINS, CountAblation, GenerationExperiment
from harness.config.experiments import Heads, OneLayer
from harness.config.load import Config, LoadedConfig, canonical_hash, load_config
from harness.config.paper import PAPER_KINDS, needs_model, reads_heads
from harness.core.errors import UnitsFailedError, UsageError
from harness.core.rows import COLUMNS, SCHEMA_VERSION
from harness.data.prompts import Prompt, load_prompts, read_given, read_prose
from harness.runs.directory import MANIFEST, RunDirectory, file_hash, find_runs, now
from harness.runs.execution import Progress, Watcher, execute
from harness.runs.units import Unit


@dataclass(frozen=True)
class Run:
    """One run on disk.

    Attributes:
        path: its directory.
        manifest: what it was: config, hashes, versions, machine, timings, state.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def state(self) -> str:
        """`running` (or killed), `partial` or `complete`."""
        return str(self.manifest["state"])

    @property
    def rows(self) -> pd.DataFrame:
        """All rows; of a run that is not complete, those of its finished units.

        Raises:
            UsageError: the tables cannot be read, or have lost columns.
        """
        found = RunDirectory(self.path).read("rows")
        if lacking := [name for name in COLUMNS if name not in found]:
            raise UsageError(f"{self.path}: its rows are without {', '.join(lacking)} (see: ccmc verify {self.path})")
        return found

    @property
    def trajectories(self) -> pd.DataFrame:
        """Continuations of the model and of the surrogates."""
        return RunDirectory(self.path).read("trajectories")

    def finished_units(self) -> tuple[int, int]:
        """How many units are stored, and how many the run has."""
        keys = [unit["key"] for unit in self.manifest["units"]]
        if self.state == "complete":
            return len(keys), len(keys)
        store = RunDirectory(self.path)
        return sum(store.finished(key) for key in keys), len(keys)

    def model_folder(self, name: str) -> Path | None:
        """Where the files of one of the run's models stand on this machine; None where they do not."""
        from harness.models import catalogue

        record: dict[str, Any] = next((m for m in self.manifest["models"] if m["name"] == name), {})
        return catalogue.on_disk(name, record.get("revision"), record.get("folder"))

    def tables(self) -> Any:
        """The summary tables; see `harness.experiments._shared.tables`."""
        from harness.experiments._shared.tables import summary_tables

        return summary_tables(self.rows)


def load_run(path: str | Path) -> Run:
    """Open a run directory.

    Args:
        path: the directory, or the name of a run under results/.

    Raises:
        UsageError: there is no run; names the nearest.
    """
    from harness.core.errors import nearest

    for place in (Path(path), Path("results") / path, Path("results/reference") / path):
        manifest = RunDirectory(place).read_manifest()
        if manifest is not None:
            return Run(place, manifest)
    known = [str(p) for p in find_runs(Path("results"))]
    hint = nearest(str(path), known) if known else "; start one with: ccmc run quickstart"
    raise UsageError(f"run {str(path)!r}: no {MANIFEST} there{hint}")


class SilentWatcher:
    """Shows nothing."""

    def started(self, unit: Unit) -> None: ...
    def moved(self, unit: Unit, share: float, what: str) -> None: ...
    def finished(self, unit: Unit, error: str | None) -> None: ...


def _resolve_models(config: Config, base: Path, prompts: list[Prompt], progress: Progress) -> list[Any]:
    """Fetch models and check everything about them that the run needs, before anything is written."""
    from harness.models import catalogue

    if not any(_needs_model(e) for e in config.experiments):
        return []
    for name in config.models:
        catalogue.check_name(name, base)
    files = [catalogue.resolve(name, progress, base) for name in config.models]
    from harness.attention import count_ablation, eager
    from harness.experiments._shared.continuations import Model
    from harness.models import loading

    models = []
    for found in files:
        progress(1.0, f"{found.name}: checking prompts")
        settings = loading.load_config(found.path)
        layers = int(settings.num_hidden_layers)
        for experiment in config.experiments:
            if isinstance(experiment, Heads) and experiment.layers != "all":
                for layer in experiment.layers:
                    if not 0 <= layer < layers:
                        raise UsageError(
                            f"experiments.heads.layers: {found.name!r} has layers 0 to {layers - 1}, not {layer}"
                        )
        texts = [(prompt.id, prompt.text, prompt.chat) for prompt in prompts]
        loading.check_prompts(found.name, found.path, texts, config.generation.max_new_tokens)
        weights = loading.load_model(found.path, loading.pick_device(config.device))
        if any(_reads_heads(e) for e in config.experiments):
            eager.check_capture(weights, found.name)
        for experiment in config.experiments:
            if isinstance(experiment, Heads):
                window = loading.context_window(settings) or experiment.max_length
                longest = min(experiment.max_length, window)
                eager.check_rotation(settings, found.name, longest)
                eager.check_masks(weights, found.name, longest)
        if any(isinstance(e, CountAblation) for e in config.experiments):
            count_ablation.check_reach(weights)
        models.append(Model(found.name, found.path, found.revision, found.weights_hash, layers))
    return models


def _needs_model(experiment: Any) -> bool:
    return isinstance(experiment, Heads | GenerationExperiment | CountAblation) or needs_model(experiment)


def _reads_heads(experiment: Any) -> bool:
    if isinstance(experiment, GenerationExperiment):
        return bool(set(HEAD_CHAINS) & set(experiment.surrogates))
    return isinstance(experiment, Heads | CountAblation) or reads_heads(experiment)


def _plan(
    config: Config, models: list[Any], prompts: list[Prompt], texts: list[Prompt], given: list[Prompt], device: str
) -> list[Unit]:
    """All units of a run; `texts` are for losses, `given` for heads.

    A unit that two experiments need stands once, before both.
    """
    from harness.experiments._shared import paper
    from harness.experiments.count_ablation import units as count_ablation
    from harness.experiments.generation import units as generation
    from harness.experiments.heads import units as heads
    from harness.experiments.one_layer import units as one_layer

    units: list[Unit] = []
    for experiment in config.experiments:
        if isinstance(experiment, OneLayer):
            units += one_layer.plan(config, experiment)
        elif experiment.kind in PAPER_KINDS:
            units += paper.plan(config, experiment, models, prompts, device)
        for model in models:
            if isinstance(experiment, Heads):
                units += heads.plan(config, experiment, model, prompts, device, given)
            elif isinstance(experiment, GenerationExperiment):
                units += generation.plan(config, experiment, model, prompts, device)
            elif isinstance(experiment, CountAblation):
                units += count_ablation.plan(config, experiment, model, prompts, texts, device)
    return list({unit.key: unit for unit in units}.values())


def _git_state() -> dict[str, Any]:
    folder = Path(__file__).resolve().parents[1]
    try:
        commit = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", str(folder.parent), "status", "--porcelain", "--", "ccmc", "harness", "configs"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed)}


def _machine(device: str) -> dict[str, Any]:
    about = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "device": device,
    }
    if device == "cuda":
        import torch

        about["gpu"] = torch.cuda.get_device_name()
    return about


_PACKAGES = ("ccmc-harness", "torch", "transformers", "datasets", "numpy", "scipy", "numba", "pandas", "pyarrow")


def _manifest(
    loaded: LoadedConfig, models: list[Any], prompts: list[Prompt], plan: list[Unit], device: str
) -> dict[str, Any]:
    config = loaded.config.model_dump(mode="json")
    prompt_hash = canonical_hash([prompt.as_dict() for prompt in prompts])
    from harness.models import catalogue

    weights = [
        {
            "name": m.name,
            "revision": m.revision,
            "weights_sha256": m.weights_hash,
            "layers": m.layers,
            "folder": str(m.path.resolve()) if catalogue.is_folder(m.name, loaded.base) else None,
        }
        for m in models
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "name": loaded.config.name,
        "state": "running",
        "config_hash": canonical_hash([config, prompt_hash, [m.weights_hash for m in models]]),
        "config": config,
        "config_as_given": loaded.given,
        "seed": loaded.config.seed,
        "prompts": {
            "train": sum(p.split == "train" for p in prompts),
            "held_out": sum(p.split == "held_out" for p in prompts),
            "sha256": prompt_hash,
        },
        "models": weights,
        "git": _git_state(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "machine": _machine(device),
        "created": now(),
        "units": [{"key": unit.key, "label": unit.label} for unit in plan],
        "failures": [],
    }


def run(
    config: str | Path | dict[str, Any] | Config,
    *,
    overrides: Iterable[str] = (),
    limit: int | None = None,
    out: str | Path | None = None,
    workers: int = 1,
    executor: str = "local",
    progress: Progress = lambda share, what: None,
    watcher: Watcher | None = None,
    on_plan: Any = lambda store, plan: None,
) -> Run:
    """Execute a config, or continue where an earlier run of it stopped.

    Args:
        config: YAML file, name of a shipped config such as "quickstart", mapping, or `Config`.
        overrides: texts such as "generation.seeds=3".
        limit: at most this many prompts per split and repetitions per cell: a smoke run.
        out: the run directory; default results/<name>-<first 8 of the config hash>.
        workers: units at once, in local processes. The rows do not depend on it.
        executor: "local" or "ray".
        progress: told what is done before the units start.
        watcher: told about the units.
        on_plan: called with the run directory and the units once they are known.

    Returns:
        The complete run.

    Raises:
        UsageError: wrong config, model, prompt or path; nothing has been written.
        UnitsFailedError: some units failed; the others are stored.
    """
    loaded = load_config(config, overrides, limit)
    RunDirectory(Path("results", loaded.config.name) if out is None else Path(out)).check_usable()
    prompts = load_prompts(loaded)
    texts = read_prose(loaded)
    given = read_given(loaded)
    progress(0.0, "checking models")
    models = _resolve_models(loaded.config, loaded.base, prompts, progress)
    device = "cpu"
    if models:
        from harness.models.loading import pick_device

        device = pick_device(loaded.config.device)
    plan = _plan(loaded.config, models, prompts, texts, given, device)
    manifest = _manifest(loaded, models, [*prompts, *given], plan, device)
    path = Path("results") / f"{loaded.config.name}-{manifest['config_hash'][:8]}" if out is None else Path(out)
    store = RunDirectory(path)
    manifest = store.open(manifest)
    on_plan(store, plan)
    if manifest["state"] == "complete":
        return Run(path, manifest)
    start = time.perf_counter()
    keys = [unit.key for unit in plan]
    try:
        failures = execute(store, plan, watcher or SilentWatcher(), workers, executor)
        _close(store, manifest, keys, "partial" if failures else "complete", failures, start)
    except BaseException:
        _close(store, manifest, keys, "partial", {}, start)
        raise
    finally:
        store.close()
    if failures:
        labels = {unit.key: unit.label for unit in plan}
        first = next(iter(failures))
        raise UnitsFailedError(
            f"{len(failures)} of {len(plan)} units failed, the first: {labels[first]}: {failures[first]}; "
            f"the rest is stored in {path}, tracebacks in {path / 'errors'}"
        )
    draw_pictures(Run(path, manifest))
    return Run(path, manifest)


def draw_pictures(done: Run) -> list[Path]:
    """Write the pictures of a complete run, whose rows are safe already, into its folder `plots`.

    Returns:
        The files, one per picture; none where no experiment of the run has one.
    """
    from harness.experiments._shared.plots import write_plots
    from harness.experiments.generation.figures import write_generation_plots  # matplotlib takes a second to import
    from harness.experiments.heads.figures import write_head_plots

    rows = done.rows
    written = write_plots(done.path, rows) + write_head_plots(done.path, rows)
    return written + write_generation_plots(done.path, rows, done.trajectories)


def _close(
    store: RunDirectory, manifest: dict[str, Any], keys: list[str], state: str, failures: dict[str, str], start: float
) -> None:
    """Write the manifest at the end of a session, and of a complete run its tables."""
    import json

    if state == "complete":
        manifest["tables"] = store.assemble(keys)
        for unit in manifest["units"]:
            unit["record_sha256"] = file_hash(store.unit(unit["key"]) / "unit.json")
    manifest["state"] = state
    manifest["finished"] = now()
    manifest["failures"] = [{"key": key, "error": message} for key, message in failures.items()]
    seconds = {}
    peak = 0
    for unit in manifest["units"]:
        about = store.unit(unit["key"]) / "unit.json"
        if about.is_file():
            record = json.loads(about.read_text(encoding="utf-8"))
            seconds[unit["key"]] = record["seconds"]
            peak = max(peak, record["peak_memory_bytes"])
    manifest["timings"] = {
        "units_seconds": seconds,
        "sum_of_units_seconds": round(sum(seconds.values()), 1),
        "last_session_seconds": round(time.perf_counter() - start, 1),
        "peak_memory_bytes": peak,
    }
    store.write_manifest(manifest)
