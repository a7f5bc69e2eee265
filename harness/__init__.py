"""The benchmark: fits CCMC surrogates to attention models and measures how far they explain them.

`harness.run(config)` executes a config and returns a `Run`; `harness.load_run(path)` opens one that is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.runs.runner import Run, load_run, run

__all__ = ["Run", "load_run", "run"]


def __getattr__(name: str) -> Any:
    # on demand: `ccmc --help` must not wait for pandas and torch
    if name in __all__:
        from harness.runs import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
