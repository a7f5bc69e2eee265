"""From a config to a run: resolve and check everything, plan the units, carry them out, draw the figures.

Each experiment states its own needs, refusals and plan; see `experiment.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.load import Config, LoadedConfig, load_config
from harness.config.models import allows_mismatch
from harness.core import registry
from harness.core.errors import StorageError
from harness.core.hashing import canonical_hash
from harness.core.rows import SCHEMA_VERSION
from harness.data.prompts import CHAT, load_prompts
from harness.data.splits import Prompt
from harness.experiments._shared.continuations import Model
from harness.experiments.experiment import Needs, Request
from harness.runs import provenance, reading
from harness.runs.directory import RunDirectory
from harness.runs.execution import Place, Progress, Watcher
from harness.runs.opening import begin
from harness.runs.run import Run
from harness.runs.session import carry_out
from harness.runs.units import Unit
from harness.runs.writing import now


def run(  # twelve: the options of `ccmc run`, all but the first by name
    config: str | Path | dict[str, Any] | Config,
    *,
    overrides: Iterable[str] = (),
    limit: int | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    executor: str = "local",
    address: str | None = None,
    storage: str | None = None,
    keep_old_units: bool = False,
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
        workers: units at once; default one, and on a Ray cluster as many as it has room for.
        executor: "serial", "processes", "ray", or "local": serial for one worker, processes for more. The rows do
            not depend on it, nor on the workers.
        address: of a Ray cluster; default: one on this machine.
        storage: URL of a folder that all nodes of the cluster reach, where they do not share the run directory.
        keep_old_units: stored units that differ from planned ones by the versions of packages only are used, and said
            to be, in the place of computing them again.
        progress: is called with the share done and the current step, before the units start.
        watcher: is informed about each unit.
        on_plan: called with the run directory and the units once they are known; the notes are in the manifest then.

    Returns:
        The complete run.

    Raises:
        UsageError: wrong config, model, prompt or path; nothing has been written.
        UnitsFailedError: some units failed; the others are stored.
        StorageError: the disk is full, read-only or gone; finished units are stored.
    """
    place = Place(executor, workers, address, storage)
    made = prepare(config, list(overrides), limit, out, progress)
    store = RunDirectory(made.path)
    manifest, plan = begin(store, made.manifest, made.plan, keep_old_units)
    try:
        on_plan(store, plan)
        if manifest["state"] == "complete":
            return Run(made.path, manifest)
        carry_out(store, manifest, plan, watcher, place)
        _draw_first(Run(made.path, manifest))
    finally:
        store.close()
    return Run(made.path, manifest)


@dataclass(frozen=True)
class Prepared:
    """A config that was resolved and checked, before anything is written.

    Attributes:
        loaded: the config; its notes say what was decided.
        models: resolved.
        plan: all units, each after those that it needs.
        manifest: of the run, as if it were new.
        path: of the run directory.
    """

    loaded: LoadedConfig
    models: list[Model]
    plan: list[Unit]
    manifest: dict[str, Any]
    path: Path


def prepare(
    config: str | Path | dict[str, Any] | Config,
    overrides: list[str],
    limit: int | None,
    out: str | Path | None,
    progress: Progress,
) -> Prepared:
    """Resolve and check everything that a run needs, and plan its units; nothing is written but downloads.

    Args:
        config, overrides, limit, out, progress: as `run` has them.

    Raises:
        UsageError: wrong config, model, prompt or path.
    """
    loaded = load_config(config, overrides, limit)
    RunDirectory(Path("results", loaded.config.name) if out is None else Path(out)).check_usable()
    prompts = load_prompts(loaded)
    progress(0.0, "checking models")
    if mute := without_template(loaded, prompts, progress):
        count = sum(prompt.chat for prompt in prompts)
        loaded = load_config(config, overrides, limit)
        prompts = load_prompts(loaded, [CHAT])
        loaded.notes.add(f"{mute} has no chat template: {count} prompts that are turns of a chat are left out")
    documents = [registry.experiment(e.kind).documents(e, loaded) for e in loaded.config.experiments]
    models = resolve_models(loaded, prompts, progress)
    device = _device(loaded.config, models)
    plan = plan_units(loaded.config, models, prompts, documents, device)
    own = zip(needs_of(loaded.config), documents, strict=True)
    read = [*prompts, *(text for needs, texts in own if needs.prompts_or for text in texts)]
    manifest = _manifest(loaded, models, read, plan, device)
    path = Path("results") / f"{loaded.config.name}-{manifest['config_hash'][:8]}" if out is None else Path(out)
    return Prepared(loaded, models, plan, manifest, path)


def draw_figures(done: Run) -> list[Path]:
    """Write the figures of a complete run, whose rows are safe already, into its folder `plots`.

    Returns:
        The files, one per figure; none where no experiment of the run has one.

    Raises:
        StorageError: the disk is full, read-only or broken.
    """
    return reading.write_figures(done.path, done.figures())


def _draw_first(done: Run) -> None:
    """Draw the figures of a run that has just been completed.

    Raises:
        StorageError: the disk takes no figure; says that the rows are stored and how to draw them later.
    """
    try:
        draw_figures(done)
    except StorageError as error:
        raise StorageError(f"{error} (the run is complete; its figures are drawn by: ccmc plot {done.path})") from error


def needs_of(config: Config) -> list[Needs]:
    """What each experiment of a config needs."""
    return [registry.experiment(experiment.kind).needs(experiment) for experiment in config.experiments]


def plan_units(
    config: Config,
    models: list[Model],
    prompts: list[Prompt],
    documents: list[list[Prompt]],
    device: str,
) -> list[Unit]:
    """All units of a run. A unit that two experiments need is in the plan once, before both.

    Args:
        config: of the run.
        models: resolved.
        prompts: split and limited.
        documents: texts of each experiment's own.
        device: of the models.
    """
    units: list[Unit] = []
    for settings, own in zip(config.experiments, documents, strict=True):
        request = Request(config, settings, models, prompts, own, device)
        units += registry.experiment(settings.kind).plan(request)
    return list({unit.key: unit for unit in units}.values())


def without_template(loaded: LoadedConfig, prompts: list[Prompt], progress: Progress) -> str | None:
    """The first model that has no chat template, where some of the prompts, but not all by config, are turns of a chat.

    All models are compared on the same prompts: what one cannot read is left out for every one.

    Args:
        loaded: the config of the run.
        prompts: as the config says.
        progress: called with the share done and the current step.

    Raises:
        UsageError: a model that cannot be found, or has no usable tokenizer.
    """
    config = loaded.config
    asked = any(prompt.chat for prompt in prompts) and not config.generation.chat
    if not asked or not any(need.models for need in needs_of(config)):
        return None
    from harness.models import catalogue, tokenizers

    for name in config.models:
        catalogue.check_name(name, loaded.base)
    for name in config.models:
        found = catalogue.resolve(name, progress, loaded.base)
        if not getattr(tokenizers.load_tokenizer(found.path), "chat_template", None):
            return found.name
    return None


def resolve_models(loaded: LoadedConfig, prompts: list[Prompt], progress: Progress) -> list[Model]:
    """Fetch models and check everything about them that the run needs, before anything is written.

    Args:
        loaded: the config of the run; its `notes` get what was decided about the models.
        prompts: that the models will read.
        progress: called with the share done and the current step.

    Raises:
        UsageError: a model that cannot be found, loaded or captured, or prompts that it cannot take.
    """
    from harness.models import catalogue

    config, base = loaded.config, loaded.base
    needs = needs_of(config)
    if not any(need.models for need in needs):
        return []
    for name in config.models:
        catalogue.check_name(name, base)
    files = [catalogue.resolve(name, progress, base) for name in config.models]
    from harness.attention import eager
    from harness.models import loading, tokenizers
    from harness.models.folder_decoding import read_decoding
    from harness.models.model_defaults import take

    models = []
    for found in files:
        progress(1.0, f"{found.name}: checking prompts")
        settings = loading.load_config(found.path)
        allowed = allows_mismatch(config.models)
        said = read_decoding(found.path, settings.vocab_size)
        defaults: dict[str, Any] = {}
        lines = said.set_aside(found.name)
        if config.generation.use_model_defaults:
            defaults, lines = take(said, found.path, found.name, settings.vocab_size)
        for line in lines:
            loaded.notes.add(line)
        texts = [(prompt.id, prompt.text, prompt.chat) for prompt in prompts]
        reader = tokenizers.make_reader(found.path, found.name, config.generation, loaded.notes)
        longest = config.generation.max_new_tokens
        tokens = tokenizers.read_prompts(reader, found.path, texts, longest)
        layers = int(settings.num_hidden_layers)
        model = Model(
            found.name, found.path, found.revision, found.weights_hash, layers, tokens, allowed, config.dtype, defaults,
            reader,
        )  # fmt: skip
        for experiment in config.experiments:  # checks without weights come first, as they are fast
            registry.experiment(experiment.kind).check_config(experiment, model)
        place = loading.pick_device(config.device, config.device_map)
        weights = loading.load_model(found.path, place, allowed, config.dtype)
        for note in loading.notes_on(found.path, place, allowed, config.dtype):
            loaded.notes.add(note)
        if any(need.heads for need in needs):
            eager.check_capture(weights, found.name)
        loading.check_output(weights, next(iter(tokens.values()), ()), found.name)
        for experiment in config.experiments:
            registry.experiment(experiment.kind).check(experiment, model, weights)
        models.append(model)
    return models


def _device(config: Config, models: list[Model]) -> str:
    if not models:
        return "cpu"
    from harness.models.loading import pick_device

    return pick_device(config.device, config.device_map)


def _manifest(
    loaded: LoadedConfig, models: list[Model], prompts: list[Prompt], plan: list[Unit], device: str
) -> dict[str, Any]:
    from harness.models import catalogue

    config = loaded.config.model_dump(mode="json")
    prompt_hash = canonical_hash([prompt.as_dict() for prompt in prompts])
    weights = [
        {
            "name": m.name,
            "revision": m.revision,
            "weights_sha256": m.weights_hash,
            "layers": m.layers,
            **({"tokens_sha256": m.tokens_hash()} if m.tokens else {}),
            **({"texts_sha256": m.texts_hash()} if m.read else {}),
            **({"generation_config": dict(m.defaults)} if m.defaults else {}),
            "folder": str(m.path.resolve()) if catalogue.is_folder(m.name, loaded.base) else None,
        }
        for m in models
    ]
    defaults = [dict(m.defaults) for m in models]  # with none, hashes stay as they were
    return {
        "schema_version": SCHEMA_VERSION,
        "name": loaded.config.name,
        "state": "running",
        "config_hash": canonical_hash(
            [config, prompt_hash, [m.weights_hash for m in models], *([defaults] if any(defaults) else [])]
        ),
        "config": config,
        "config_as_given": loaded.given,
        "seed": loaded.config.seed,
        "prompts": {
            "train": sum(p.split == "train" for p in prompts),
            "held_out": sum(p.split == "held_out" for p in prompts),
            "sha256": prompt_hash,
            **loaded.left_out,
        },
        "models": weights,
        "git": provenance.git_state(),
        "packages": provenance.packages(),
        "installed": provenance.installed(),
        "machine": provenance.machine(device),
        "created": now(),
        "units": [{"key": unit.key, "label": unit.label} for unit in plan],
        "failures": [],
        **({"notes": list(loaded.notes)} if len(loaded.notes) else {}),
    }
