"""How far a unit in another process is: its worker writes that into a small file, which the driver reads now and then.

Nothing depends on these files. They are of the driver: what a killed one leaves is removed when the run is opened.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness.runs.units import Unit
from harness.runs.writer import temporary_prefix

PERIOD = 0.3
"""Seconds between two words of a worker, and between two looks of the driver."""


def place_of(directory: Path, unit: Unit) -> Path:
    """Where the worker of a unit tells this process how far it is.

    Args:
        directory: of the run.
        unit: that is going to be done.
    """
    return directory / f"{temporary_prefix('progress')}{unit.key}"


def teller(place: Path) -> Callable[[float, str], None]:
    """For a worker: a function of the share done and the current step, which keeps silent if called too often."""
    last = -PERIOD

    def tell(share: float, what: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PERIOD:
            last = now
            with suppress(OSError):  # a full disk is found where it matters
                place.write_text(json.dumps([share, what]), encoding="utf-8")

    return tell


def told(place: Path) -> tuple[float, str] | None:
    """For the driver: what a worker said last; None where it has said nothing, or is about to."""
    try:
        share, what = json.loads(place.read_text(encoding="utf-8"))
        return float(share), str(what)
    except (OSError, ValueError, TypeError):
        return None
