"""A command line for tests of what happens when a run is stopped: it is `ccmc run` but for the plan.

    python stoppable.py FOLDER TASK COUNT [options of `ccmc run`]

does COUNT units of a TASK of `stoppable_units` in the run directory FOLDER/run.
"""

from __future__ import annotations

import signal
import sys
import types
from pathlib import Path
from typing import Any


def main(folder: str, task: str, count: str, *options: str) -> None:
    for name in ("SIGINT", "SIGHUP"):  # a test run that was started behind `&` or by nohup ignores them
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
            default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(getattr(signal, name), default)

    def run(config: str, **how: Any) -> Any:
        sys.path.append(str(Path(__file__).parent / "harness" / "runs"))
        import stoppable_units
        from stores import manifest

        from harness.runs.directory import RunDirectory
        from harness.runs.execution import Place
        from harness.runs.opening import begin
        from harness.runs.session import carry_out

        store = RunDirectory(Path(folder, "run"))
        plan = stoppable_units.units(task, int(count), Path(folder))
        found, chosen = begin(store, manifest(plan), plan)
        how["on_plan"](store, chosen)
        place = Place(how["executor"], how["workers"], how["address"], how["storage"])
        if found["state"] != "complete":
            carry_out(store, found, chosen, how["watcher"], place)
        sys.exit(0)

    # The command imports it when it needs it, as every other heavy module: none may be loaded before it begins.
    stub = types.ModuleType("harness.experiments.run")
    stub.run = run  # type: ignore[attr-defined]
    sys.modules[stub.__name__] = stub
    sys.argv = ["ccmc", "run", "made-up", *options]
    from harness.cli import main as command

    command()


if __name__ == "__main__":
    main(*sys.argv[1:])
