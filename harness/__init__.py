"""The benchmark: fits CCMC surrogates to attention models and measures how closely they match them.

`harness.run(config)` executes a config and returns a `Run`; `harness.load_run(path)` opens a finished one;
`harness.fit_heads(model, texts)` fits a surrogate to the heads of a model that is at hand; `harness.register` declares
surrogates, measures, experiments and model sources. Rooms import downwards only; see README.md in this folder.

.. include:: docs/tutorial.md
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# MKL's sums may depend on where arrays lie in memory, which follows from all that a process did before; this mode rules
# it out. It is read when MKL first computes. "Conditional numerical reproducibility" in the oneMKL developer guide.
os.environ.setdefault("MKL_CBWR", "AUTO")

if TYPE_CHECKING:
    from harness.core.registry import register
    from harness.experiments.fit_heads import fit_heads
    from harness.experiments.run import run
    from harness.runs.run import Run, load_run

__all__ = ["Run", "fit_heads", "load_run", "register", "run"]
_HOMES = {
    "Run": "runs.run",
    "fit_heads": "experiments.fit_heads",
    "load_run": "runs.run",
    "register": "core.registry",
    "run": "experiments.run",
}


def __getattr__(name: str) -> Any:
    # on demand: `ccmc --help` must not wait for pandas and torch
    if name in _HOMES:
        from importlib import import_module

        found = globals()[name] = getattr(import_module(f"harness.{_HOMES[name]}"), name)
        return found
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
