"""Units: stored whole or not at all, skipped when they are there, and the same wherever they run."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.config.load import load_config
from harness.core.errors import UsageError
from harness.core.rows import Rows
from harness.runs import telling
from harness.runs.directory import RunDirectory
from harness.runs.execution import Place, execute
from harness.runs.units import Unit, Work


def square(work: Work) -> pd.DataFrame:
    """Settings {x}: x squared, plus what the needed units found."""
    value = work.settings["x"] ** 2 + sum(
        float(pd.read_parquet(f / "rows.parquet")["value"].iloc[0]) for f in work.inputs
    )
    (work.folder / "extra.txt").write_text(str(value))
    work.progress(0.5, "squaring")
    rows = Rows(experiment="test")
    rows.add("square", value)
    return rows.frame()


def walk(work: Work) -> pd.DataFrame:
    """Two steps, each long enough to be seen."""
    for step in (1, 2):
        work.progress(step / 2 - 0.25, f"step {step} of {work.settings['x']}")
        time.sleep(4 * telling.PERIOD)
    return square(work)


def fail(work: Work) -> pd.DataFrame:
    (work.folder / "half.txt").write_text("half")
    raise RuntimeError("out\nof luck")


def refuse(work: Work) -> pd.DataFrame:
    raise UsageError("this layer cannot be read")


def die(work: Work) -> pd.DataFrame:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def too_large(work: Work) -> pd.DataFrame:
    raise MemoryError("Unable to allocate 7.28 TiB\nfor an array")


def count_threads(work: Work) -> pd.DataFrame:
    import torch

    rows = Rows(experiment="test")
    rows.add("threads", float(torch.get_num_threads()))
    return rows.frame()


def unit(task: str, x: int = 0, needs: tuple[Unit, ...] = ()) -> Unit:
    return Unit(f"test_execution:{task}", f"{task} {x}", {"x": x}, needs)


class Log:
    def __init__(self) -> None:
        self.lines: list[Any] = []

    def started(self, unit: Unit) -> None:
        self.lines.append(("started", unit.label))

    def moved(self, unit: Unit, share: float, what: str) -> None:
        self.lines.append(("moved", unit.label, share, what))

    def finished(self, unit: Unit, error: str | None) -> None:
        self.lines.append(("finished", unit.label, error))


def value(store: RunDirectory, of: Unit) -> float:
    return float(pd.read_parquet(store.unit(of.key) / "rows.parquet")["value"].iloc[0])


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    # spawned workers import this module by its name
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "run" / "units").mkdir(parents=True)
    return RunDirectory(tmp_path / "run")


def test_units_get_what_they_need_and_are_done_once(store: RunDirectory) -> None:
    first, second = unit("square", 3), unit("square", 4)
    third = unit("square", 1, (first, second))
    log = Log()
    assert execute(store, [first, second, third], log) == {}
    assert value(store, third) == 1 + 9 + 16
    assert ("moved", "square 3", 0.5, "squaring") in log.lines
    assert (store.unit(first.key) / "extra.txt").read_text() == "9"
    again = Log()
    assert execute(store, [first, second, third], again) == {}
    assert again.lines == []


def test_progress_inside_a_unit_is_shown_from_other_processes_too(store: RunDirectory) -> None:
    log = Log()
    units = [unit("walk", 1), unit("walk", 2)]
    assert execute(store, units, log, Place(workers=2)) == {}
    for one in units:
        moved = [line[2:] for line in log.lines if line[:2] == ("moved", one.label)]
        assert moved[0] == (0.25, f"step 1 of {one.settings['x']}")
        assert (0.75, f"step 2 of {one.settings['x']}") in moved
        assert log.lines.index(("started", one.label)) < log.lines.index(("moved", one.label, *moved[0]))
        assert log.lines[-1][0] == "finished"
    assert [path.name for path in store.path.iterdir()] == ["units"]


def test_what_a_worker_says_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    place = telling.place_of(tmp_path, unit("square"))
    assert telling.told(place) is None
    tell = telling.teller(place)
    tell(0.5, "ü")
    tell(0.6, "too soon")
    assert telling.told(place) == (0.5, "ü")
    for torn in (b"", b'[0.5, "', b"[0.5]", b"null", b'{"a": 1}', b"\xff"):
        place.write_bytes(torn)
        assert telling.told(place) is None
    telling.teller(tmp_path / "no" / "such" / "folder")(0.5, "lost")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_stops_only_what_needs_it(store: RunDirectory, workers: int) -> None:
    bad, good = unit("fail"), unit("square", 2)
    above = unit("square", 5, (bad,))
    log = Log()
    failures = execute(store, [bad, above, good], log, Place(workers=workers))
    assert failures == {bad.key: "out of luck", above.key: "needs 'fail 0', which failed"}
    assert value(store, good) == 4
    assert "RuntimeError" in (store.path / "errors" / f"{bad.key}.txt").read_text()
    assert sorted(p.name for p in (store.path / "units").iterdir()) == [good.key]  # nothing half-written
    assert ("finished", "square 5", failures[above.key]) in log.lines


@pytest.mark.parametrize("workers", [1, 2])
def test_wrong_use_found_in_a_unit_ends_the_run(store: RunDirectory, workers: int) -> None:
    with pytest.raises(UsageError, match="this layer cannot be read"):
        execute(store, [unit("refuse"), unit("square", 2)], Log(), Place(workers=workers))


def test_a_killed_worker_is_a_failure_and_the_rest_goes_on(store: RunDirectory) -> None:
    bad, good = unit("die"), unit("square", 2)
    after = unit("square", 3, (good,))
    failures = execute(store, [bad, good, after], Log(), Place(workers=2))
    assert list(failures) == [bad.key]  # no unit beside it
    assert "was killed" in failures[bad.key]
    assert "fewer --workers" in failures[bad.key]
    assert "\n" not in failures[bad.key]
    assert value(store, after) == 13


def test_keys_cover_settings_needs_and_source() -> None:
    plain = unit("square", 1)
    keys = {plain.key, unit("square", 2).key, unit("fail", 1).key, unit("square", 1, (unit("square", 2),)).key}
    assert len(keys) == 4
    assert unit("square", 1).key == plain.key
    assert Unit(plain.task, "another label", plain.settings, local={"path": "elsewhere"}).key == plain.key
    assert Unit(plain.task, plain.label, plain.settings, threads=2).key != plain.key  # sums differ in their last bits
    assert Unit(plain.task, plain.label, plain.settings, threads=1).key == plain.key


def test_the_default_number_of_threads_is_no_part_of_a_config_s_hash() -> None:
    experiment = {"kind": "one-layer"}
    assert "threads" not in load_config({"name": "x", "experiments": [experiment]}).config.model_dump()
    more = load_config({"name": "x", "experiments": [experiment]}, ["threads=2"]).config
    assert more.model_dump()["threads"] == 2


def test_a_unit_computes_with_its_own_number_of_threads(store: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = torch.get_num_threads()
    plan = [Unit("test_execution:count_threads", str(n), {"x": n}, threads=n) for n in (1, 2)]
    for place in (Place(), Place("processes", 2)):
        for one in plan:
            shutil.rmtree(store.unit(one.key), ignore_errors=True)
        assert execute(store, plan, Log(), place) == {}
        assert [value(store, one) for one in plan] == [1, 2]
    assert torch.get_num_threads() == before
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_a_lack_of_memory_is_one_line_that_says_what_to_do(store: RunDirectory) -> None:
    bad, good = unit("too_large"), unit("square", 2)
    for place in (Place(), Place(workers=2)):
        failures = execute(store, [bad, good], Log(), place)
        assert list(failures) == [bad.key]
        assert failures[bad.key].startswith("out of memory (Unable to allocate")
        assert "smaller generation.batch_size" in failures[bad.key]
        assert value(store, good) == 4
