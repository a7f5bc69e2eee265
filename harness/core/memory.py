"""How much memory this process has taken, and whether an error is one of memory: then less at once may do."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Where Linux says how large a process has been, and is told to forget it."""


def forget_peak() -> None:
    """Count the largest resident size from now on, where the platform can."""
    with suppress(OSError):
        RESET.write_text("5", encoding="ascii")


def peak_memory() -> int | None:
    """The largest resident size of this process, in bytes; None where the platform does not say.

    On Linux since `forget_peak`. What `getrusage` gives there begins with the size of the process that started this
    one.
    """
    try:
        import resource
    except ImportError:  # Windows
        return _peak_elsewhere()
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def _peak_elsewhere() -> int | None:
    import psutil

    peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
    return None if peak is None else int(peak)


def out_of_memory(error: BaseException) -> bool:
    """Did a computation fail for lack of memory, of the machine or of a GPU?"""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch on the CPU
