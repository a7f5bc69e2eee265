"""What a run would take, before it is run: the plan, what is stored of it, and estimates of time and memory.

Each experiment says in its module `cost` what its units cost, as tokens decoded, tokens read and other work. How fast
the machine is with the model is measured, in as many processes at once as there would be workers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module, util
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from harness.core.records import Cell, Column, Table
from harness.experiments.run import Prepared, prepare
from harness.runs.costs import Cost, Speed, makespan
from harness.runs.directory import RunDirectory
from harness.runs.execution import Place, Progress
from harness.runs.executors.room import room_of
from harness.runs.units import Unit

CORE = 0.147
"""Seconds of `_core_work` on one core of the machine that costs were measured on."""
ROUNDS = 3
LOADING = ("path", "device", "allow_mismatch", "dtype", "device_map")
"""What a unit says about where its model is and how it is loaded."""


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        prepared: the run, resolved and checked.
        stored: keys of units that are there already.
        seconds: key -> seconds of each other unit by estimate; None where its experiment says nothing about it.
        measured: model -> its speed; "" -> that of work without a model.
        batches: model -> how many texts were decoded together when its speed was measured.
        workers: units at once.
    """

    prepared: Prepared
    stored: frozenset[str]
    seconds: dict[str, float | None]
    measured: dict[str, Speed]
    batches: dict[str, int]
    workers: int

    @property
    def speeds(self) -> dict[str, Speed]:
        """Model -> what was measured of it."""
        return {name: speed for name, speed in self.measured.items() if name}

    @property
    def unknown(self) -> int:
        """How many units have no estimate."""
        return sum(value is None for value in self.seconds.values())

    @property
    def total(self) -> float:
        """Seconds of all units that are not stored, with the workers."""
        return makespan(self.prepared.plan, {key: value or 0.0 for key, value in self.seconds.items()}, self.workers)

    @property
    def memory(self) -> int:
        """Bytes of the worker that needs most, by estimate."""
        return max((room_of(unit).memory for unit in self.prepared.plan), default=0)

    def table(self) -> Table:
        """Steps in the order of the plan, units of like work together."""
        steps: dict[str, list[Unit]] = {}
        for unit in self.prepared.plan:
            steps.setdefault(step_of(unit), []).append(unit)
        rows: list[list[Cell]] = []
        for step, units in steps.items():
            stored = sum(unit.key in self.stored for unit in units)
            known = [self.seconds[unit.key] for unit in units if unit.key in self.seconds]
            whole = None if None in known else round(sum(value or 0.0 for value in known) / 60, 1)
            rows.append([step, len(units), stored, whole])
        columns = [
            Column("step", left=True), Column("units"), Column("stored"), Column("one worker", unit="minutes"),
        ]  # fmt: skip
        return Table("plan", "What would be done", columns, rows)


def step_of(unit: Unit) -> str:
    """What a unit does, without the numbers in which it differs from others of its kind."""
    text = re.sub(r", repetition \d+ of \d+|, seed \d+|, fold \d+", "", unit.label)
    text = re.sub(r" of fold \d+", " of a fold", text)
    return re.sub(r" of layers \d+(, \d+)*", " of some layers", text)


def cost_of(unit: Unit) -> Cost | None:
    """What a unit costs by its experiment; None where that says nothing."""
    package = unit.task.partition(":")[0].rpartition(".")[0]
    name = f"{package}.costs" if package.endswith("_shared") else f"{package}.cost"
    try:
        found = util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        return None
    said: Cost | None = import_module(name).cost(unit)
    return said


def estimate(
    config: Any,
    *,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = lambda share, what: None,
) -> Estimate:
    """Resolve and check a config, plan its units and say what they would take; nothing is written but downloads.

    Args:
        config, overrides, limit, out, workers, progress: as `harness.run` has them.

    Raises:
        UsageError: wrong config, model, prompt or path.
    """
    Place(workers=workers)  # refuses a number that cannot be
    made = prepare(config, list(overrides), limit, out, progress)
    stored, todo = _todo(made)
    width = _width(todo, workers)
    measured = _speeds(made, todo, width, progress)
    batches = {name: _batch(made, name) for name in measured if name}
    return Estimate(made, stored, _seconds_of(todo, measured), measured, batches, width)


def largest_that_fits(
    configs: Sequence[Any],
    seconds: float,
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = lambda share, what: None,
) -> tuple[int, Estimate]:
    """The largest of several configs whose estimate fits a time; the smallest where none does.

    Speeds are measured once, with the smallest config. Resolving a config takes seconds, since its model is loaded and
    checked; so the others are searched by halving, and of seven configs no more than four are resolved.

    Args:
        configs: of the same models, from small to large: each is taken to last longer than the one before.
        seconds: that the units may take, with the workers.
        out, workers, progress: as `harness.run` has them.

    Returns:
        The index of the config, and its estimate.

    Raises:
        UsageError: wrong config, model, prompt or path.
    """
    found = estimate(configs[0], out=out, workers=workers, progress=progress)
    fits, too_large = 0, len(configs) if found.total <= seconds else 1
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        made = prepare(configs[middle], [], None, out, progress)
        stored, todo = _todo(made)
        times = _seconds_of(todo, found.measured)
        tried = replace(found, prepared=made, stored=stored, seconds=times, workers=_width(todo, workers))
        if tried.total <= seconds:
            fits, found = middle, tried
        else:
            too_large = middle
    return fits, found


def _todo(made: Prepared) -> tuple[frozenset[str], list[Unit]]:
    """Keys of the units that are stored, and the other units."""
    store = RunDirectory(made.path)
    stored = frozenset(unit.key for unit in made.plan if store.finished(unit.key))
    return stored, [unit for unit in made.plan if unit.key not in stored]


def _width(todo: Sequence[Unit], workers: int | None) -> int:
    """How many workers have something to do."""
    return min(workers or 1, max(1, len(todo)))


def _seconds_of(todo: Sequence[Unit], measured: dict[str, Speed]) -> dict[str, float | None]:
    """Key -> seconds of a unit by its cost and the speed of its model."""
    found: dict[str, float | None] = {}
    for unit in todo:
        cost = cost_of(unit)
        speed = measured.get(str(unit.settings.get("model", "")), measured[""])
        found[unit.key] = None if cost is None else speed.seconds(cost)
    return found


def _speeds(made: Prepared, todo: Sequence[Unit], workers: int, progress: Progress) -> dict[str, Speed]:
    """Model -> its speed in so many processes at once; "" -> that of work without a model."""
    config = made.loaded.config
    new = config.generation.max_new_tokens
    found: dict[str, Speed] = {}
    loading = {str(unit.settings.get("model")): unit.local for unit in todo if unit.local}
    wanted: list[tuple[str, dict[str, Any], int, int]] = [("", {}, 1, 1)]
    for model in made.models:
        if model.name in loading:  # units that read what others stored load no model
            lengths = [len(ids) for ids in model.tokens.values()] or [16]
            batch = _batch(made, model.name)
            context = int(median(lengths)) + (new if config.limit is None else min(new, 32 * config.limit)) // 2
            local = loading[model.name]
            wanted.append((model.name, {key: local[key] for key in LOADING if key in local}, batch, context))
    for index, (name, where, batch, context) in enumerate(wanted):
        progress(index / len(wanted), f"measuring the speed of {name or 'this machine'}")
        jobs = [(where, batch, context, config.threads)] * workers
        if workers == 1:
            measured = [measure(*jobs[0])]
        else:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                measured = list(pool.map(measure, *zip(*jobs, strict=True)))
        parts = zip(*((m.step, m.decoding, m.reading, m.core) for m in measured), strict=True)
        found[name] = Speed(*(float(np.mean(part)) for part in parts))
    return found


def _batch(made: Prepared, name: str) -> int:
    """How many texts of a model are decoded together, at most."""
    prompts = max(len(model.tokens) for model in made.models if model.name == name)
    return max(1, min(made.loaded.config.generation.batch_size, prompts))


def _core_work() -> float:
    """Some sorting, summing and multiplying, as fits do it."""
    rng = np.random.default_rng(0)
    total = 0.0
    for _ in range(60):
        x = rng.random(200_000)
        total += float(np.exp(-np.sort(x)).sum())
        y = x[:40_000].reshape(200, 200)
        total += float((y @ y).sum())
    return total


def _seconds(work: Any, rounds: int = ROUNDS) -> float:
    spent = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)
    return median(spent)


def measure(local: dict[str, Any], batch: int, context: int, threads: int) -> Speed:
    """How fast this machine is: alone, or with a model.

    Args:
        local: how units find and load the model; empty: none.
        batch: texts that are decoded at once.
        context: tokens that stand before those that are decoded.
        threads: of torch.
    """
    core = _seconds(_core_work) / CORE
    if not local:
        return Speed(core=core)
    import torch

    from harness.models import loading, tokenizers
    from harness.models.language_model import generate

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, tokenizer = loading.model_of(local), tokenizers.load_tokenizer(Path(local["path"]))
        settings = model.config.get_text_config()
        window = int(getattr(settings, "max_position_embeddings", None) or 256)
        new = max(1, min(8, window // 4))
        length = max(1, min(context, window - new - 1))
        ids = np.random.default_rng(0).integers(0, int(settings.vocab_size), (max(batch, 2), length))

        def write(count: int, tokens: int) -> float:
            prompts = ids[:count].tolist()
            return _seconds(
                lambda: generate(
                    model, tokenizer, prompts, temperature=1.0, max_new_tokens=tokens, seed=0, ignore_eos=True,
                    batch_size=count,
                )
            )  # fmt: skip

        few = max(1, batch // 4)
        per_step = [(write(count, 1 + new) - write(count, 1)) / new for count in (few, batch)]
        text = torch.as_tensor(ids.ravel()[: min(192, window)], device=model.device)[None]
        with torch.inference_mode():
            reading = _seconds(lambda: model(text, use_cache=False)) / text.shape[1]
    finally:
        torch.set_num_threads(before)
    one, all_ = max(per_step[0], 1e-6), max(per_step[1], 1e-6)
    each = max(0.0, (all_ - one) / (batch - few)) if batch > few else 0.0
    return Speed(max(0.0, all_ - batch * each), each, reading, core)
