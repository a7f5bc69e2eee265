"""What a process takes with it when it has to end at once: its child processes and its half-made folders."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HALF_MADE: set[Path] = set()


@contextmanager
def half_made(folder: Path) -> Iterator[None]:
    """While the block runs, `folder` is removed where the process has to end at once.

    Args:
        folder: of this process alone, worth nothing until it is finished.
    """
    _HALF_MADE.add(folder)
    try:
        yield
    finally:
        _HALF_MADE.discard(folder)


def descendants() -> list[int]:
    """The ids of all processes below this one, the deepest last.

    Python's own resource tracker is left out: it removes named semaphores once this process is gone, and ends.
    """
    import psutil

    found = []
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if not any("resource_tracker" in part for part in child.cmdline()):
                    found.append(child.pid)
    return found


def kill(pids: Iterable[int]) -> None:
    """End processes at once; those that have ended already are passed over.

    Args:
        pids: of processes that this one or its children started.
    """
    import psutil

    for pid in pids:
        with suppress(psutil.Error, OSError):
            psutil.Process(pid).kill()


def end(pids: Iterable[int], patience: float) -> None:
    """Ask processes to end, and kill those that do not.

    Args:
        pids: of processes that this one started.
        patience: seconds between the two.
    """
    import psutil

    found = []
    for pid in pids:
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            process.terminate()
            found.append(process)
    for process in psutil.wait_procs(found, timeout=patience)[1]:
        with suppress(psutil.Error, OSError):
            process.kill()


def clear() -> None:
    """Remove what is half made, while other threads may still write to it. For a process that ends right after."""
    for folder in list(_HALF_MADE):
        gone = folder.with_name(f"{folder.name}.gone")
        with suppress(OSError):  # it was finished and moved into place meanwhile
            folder.rename(gone)  # from here on nobody can move it into place with half of its files
            shutil.rmtree(gone, ignore_errors=True)
