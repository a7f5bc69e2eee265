"""Units on a Ray cluster of this machine: the same files, also through a storage, and lost workers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import stoppable_units

from harness.core.errors import UsageError
from harness.runs.directory import RunDirectory
from harness.runs.execution import Place, execute
from harness.runs.executors import cluster
from harness.runs.executors.room import PER_TOKEN_TYPE, PROCESS, room_of
from harness.runs.identity import identity
from harness.runs.session import SilentWatcher
from harness.runs.storage import Storage, unit_name
from harness.runs.units import Room, Unit

needs_ray = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("ray") is None, reason="ray is not installed: pip install '.[ray]'"
)


@pytest.fixture
def store(tmp_path: Path) -> RunDirectory:
    (tmp_path / "run" / "units").mkdir(parents=True)
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nodes import the units of the tests."""
    tests = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")]))
    yield
    import ray

    ray.shutdown()


def value(store: RunDirectory, unit: Unit) -> float:
    return float(pd.read_parquet(store.unit(unit.key) / "rows.parquet")["value"].iloc[0])


@needs_ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # ray leaves its log files to the garbage collector
def test_units_are_done_and_a_lost_worker_is_tried_again(store: RunDirectory, tmp_path: Path, ours: None) -> None:
    plan = stoppable_units.units("starving", 3, tmp_path)
    failures = execute(store, plan, SilentWatcher(), Place("ray", 2))
    assert list(failures) == [plan[0].key]
    assert "lost 3 times" in failures[plan[0].key]
    assert "\n" not in failures[plan[0].key]
    assert [value(store, unit) for unit in plan[1:]] == [1, 2]
    once = stoppable_units.units("starving_once", 1, tmp_path)
    assert execute(store, once, SilentWatcher(), Place("ray")) == {}


@needs_ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_units_come_back_through_a_storage(store: RunDirectory, tmp_path: Path, ours: None) -> None:
    url = (tmp_path / "shared").as_uri()
    first, second = stoppable_units.units("short", 2, tmp_path)
    above = Unit("stoppable_units:total", "total", {}, (first, second))
    assert execute(store, [first], SilentWatcher(), Place()) == {}
    assert execute(store, [first, second, above], SilentWatcher(), Place("ray", storage=url)) == {}
    assert value(store, above) == 1
    assert all(Storage(url).has(unit_name(unit.key)) for unit in (first, second, above))
    assert sorted(p.name for p in (store.path / "units").iterdir()) == sorted(u.key for u in (first, second, above))


def test_a_unit_on_a_node_fetches_its_weights_and_is_refused_by_other_versions(tmp_path: Path) -> None:
    storage = Storage((tmp_path / "shared").as_uri())
    (tmp_path / "model" / "part").mkdir(parents=True)
    (tmp_path / "model" / "part" / "weights.safetensors").write_bytes(b"12345")
    name = f"weights/{tmp_path.name}"
    storage.put(tmp_path / "model", name)
    settings, local = {"weights": tmp_path.name}, {"path": str(tmp_path / "not-on-this-node"), "device": "cpu"}
    unit = Unit("stoppable_units:size_of_weights", "size", settings, local=local)
    assert cluster.on_node(None, (tmp_path / "shared").as_uri(), unit, identity(unit.task, unit.uses)) is None
    storage.get(unit_name(unit.key), tmp_path / "back")
    assert pd.read_parquet(tmp_path / "back" / "rows.parquet")["value"].tolist() == [5]
    refused = cluster.on_node(None, (tmp_path / "shared").as_uri(), unit, "0" * 64)
    assert refused is not None
    assert "other versions" in refused.message
    unseen = cluster.on_node(str(tmp_path / "nowhere"), None, unit, identity(unit.task, unit.uses))
    assert unseen is not None
    assert "--storage" in unseen.message


def test_a_damaged_or_hostile_storage_is_refused(tmp_path: Path) -> None:
    storage = Storage((tmp_path / "shared").as_uri())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rows.parquet").write_bytes(b"rows")
    storage.put(tmp_path / "a", "units/a")
    (tmp_path / "shared" / "units" / "a" / "rows.parquet").write_bytes(b"rowz")
    with pytest.raises(UsageError, match="is damaged"):
        storage.get("units/a", tmp_path / "b")
    (tmp_path / "shared" / "units" / "a" / "files.json").write_text('{"../../evil": "0"}')
    with pytest.raises(UsageError, match="outside of the folder"):
        storage.get("units/a", tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "shared"]


@pytest.mark.parametrize(
    ("url", "says"),
    [("memory://x", "lives in one process"), ("nosuch://x/y", "nosuch")],
)
def test_a_storage_that_cannot_be(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        Storage(url)
    assert "\n" not in str(caught.value)


@needs_ray
@pytest.mark.parametrize("address", ["nohost", "localhost:port", "ray://", "127.0.0.1:{free}"])
def test_a_cluster_that_does_not_answer(address: str, store: RunDirectory, tmp_path: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        free = one.getsockname()[1]
    plan = stoppable_units.units("short", 1, tmp_path)
    with pytest.raises(UsageError, match="--address") as caught:
        execute(store, plan, SilentWatcher(), Place("ray", address=address.format(free=free)))
    assert "\n" not in str(caught.value)


def test_room_is_estimated_by_threads_device_weights_and_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    unit = Unit("stoppable_units:short", "one", {}, local={"path": str(tmp_path), "device": "cuda:0"}, threads=3)
    assert room_of(unit) == Room(3, 1, PROCESS + 3000)
    for config in ('{"vocab_size": 50}', '{"text_config": {"vocab_size": 50}}'):
        (tmp_path / "config.json").write_text(config)
        assert room_of(unit) == Room(3, 1, PROCESS + 3000 + 50 * PER_TOKEN_TYPE)
    for damaged in ("{}", "[]", "{", '{"text_config": null}'):
        (tmp_path / "config.json").write_text(damaged)
        assert room_of(unit) == Room(3, 1, PROCESS + 3000)
    declared = Unit("stoppable_units:short", "one", {}, room=Room(1, 0, 5))
    assert room_of(declared) == Room(1, 0, 5)
    assert declared.key == Unit("stoppable_units:short", "one", {}).key
