"""Units for tests of what happens when a run is stopped or a worker lost; `stoppable.py` runs them."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd

from harness.core.rows import Rows
from harness.runs.units import Unit, Work


def _rows(work: Work) -> pd.DataFrame:
    rows = Rows(experiment="test")
    rows.add("number", float(work.settings["x"]))
    return rows.frame()


def _leave_pid(work: Work) -> None:
    """Tell the test that the unit has begun, and in which process."""
    Path(work.local["folder"], f"begun-{work.settings['x']}").write_text(str(os.getpid()))


def short(work: Work) -> pd.DataFrame:
    _leave_pid(work)
    time.sleep(0.2)
    return _rows(work)


def sleeping(work: Work) -> pd.DataFrame:
    """Python that waits: a signal gets through at once."""
    _leave_pid(work)
    time.sleep(600)
    return _rows(work)


def stuck(work: Work) -> pd.DataFrame:
    """One long call of compiled code, without the interpreter lock: no signal handler runs before it returns."""
    _leave_pid(work)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 2**31 - 1)
    return _rows(work)


def starving(work: Work) -> pd.DataFrame:
    """A machine that has no memory left kills the process; unit 0 only."""
    _leave_pid(work)
    if work.settings["x"] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return _rows(work)


def too_large(work: Work) -> pd.DataFrame:
    """An allocation that fails; unit 0 only."""
    if work.settings["x"] == 0:
        raise MemoryError("Unable to allocate 7.28 TiB for an array with shape (1000000, 1000000)")
    return _rows(work)


def hungry(work: Work) -> pd.DataFrame:
    """Memory that the process may not have; unit 0 only."""
    if work.settings["x"] == 0:
        import resource

        before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
        try:
            held = [np.ones(2**22) for _ in range(1000)]  # 32 MB each
            assert not held
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    return _rows(work)


def large(work: Work) -> pd.DataFrame:
    """Unit 1 writes more than its process may, as on a full disk, for as long as the file `full` is there."""
    if work.settings["x"] == 1 and Path(work.local["folder"], "full").exists():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    (work.folder / "large.bin").write_bytes(bytes(10_000))
    return _rows(work)


def starving_once(work: Work) -> pd.DataFrame:
    """The process is killed the first time."""
    mark = Path(work.local["folder"], "starved")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _rows(work)


def total(work: Work) -> pd.DataFrame:
    """The sum of what the needed units found."""
    rows = Rows(experiment="test")
    rows.add("number", sum(float(pd.read_parquet(f / "rows.parquet")["value"].iloc[0]) for f in work.inputs))
    return rows.frame()


def size_of_weights(work: Work) -> pd.DataFrame:
    rows = Rows(experiment="test")
    rows.add("number", float(sum(file.stat().st_size for file in Path(work.local["path"]).rglob("*.safetensors"))))
    return rows.frame()


def units(task: str, count: int, folder: Path) -> list[Unit]:
    local = {"folder": str(folder)}
    return [Unit(f"stoppable_units:{task}", f"{task} {x}", {"x": x}, local=local) for x in range(count)]
