"""Settings of a run: YAML, includes, overrides, and checks that name the nearest right key. Start with `load.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.config.load import Config

__all__ = ["Config"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from harness.config import load

        return getattr(load, name)
    raise AttributeError(f"module 'harness.config' has no attribute {name!r}")
