"""A worker ends with the process that started it, however that one ends: an orphan must not go on writing units."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any, NoReturn

from harness.core.leaving import clear

PERIOD = 0.5  # seconds between two looks at the parent


def begin(parent: int) -> None:
    """Called first in a worker: leave Ctrl-C to the parent, end when it says so, and as soon as it is gone.

    Args:
        parent: id of the process that started this one.
    """
    for name in ("SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.platform == "win32":
        threading.Thread(target=_wait_on_windows, args=(parent,), daemon=True, name="lifeline").start()
        return
    _end_on_request()
    if sys.platform == "linux":
        _end_with_parent()
    threading.Thread(target=_look, args=(parent,), daemon=True, name="lifeline").start()


def _leave(code: int) -> NoReturn:
    clear()
    os._exit(code)


def _end_on_request() -> None:
    """End at SIGTERM, without what is half made, also inside a long call of compiled code: a thread waits for it."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.signal(signal.SIGTERM, _nothing)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_wait_for_request, args=(reader, writer), daemon=True, name="request").start()


def _nothing(*_: Any) -> None: ...


def _wait_for_request(reader: socket.socket, writer: socket.socket) -> None:
    """Wait for SIGTERM. `writer` must stay open."""
    while signal.SIGTERM not in reader.recv(64):
        pass
    _leave(128 + signal.SIGTERM)


def _end_with_parent() -> None:
    """Let the kernel kill this process at the moment its parent ends, even inside a call that keeps Python waiting."""
    import ctypes

    set_parent_death_signal = 1  # PR_SET_PDEATHSIG
    with suppress(OSError, AttributeError):  # a libc without it
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _look(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PERIOD)
    _leave(1)


def _wait_on_windows(parent: int) -> None:
    import ctypes

    synchronize, forever = 0x00100000, 0xFFFFFFFF
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    handle = kernel.OpenProcess(synchronize, False, parent)
    if handle:
        kernel.WaitForSingleObject(handle, forever)
    _leave(1)
