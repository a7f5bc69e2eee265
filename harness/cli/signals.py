"""Ctrl-C and its relatives: the first one stops the command, the others change nothing, and nothing outlives it.

A signal raises `Stop` in the main thread, so that everything is put away in order. Where that takes too long, for
example inside a long call of compiled code that never returns to Python, a thread beside it ends the process.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""Signals that stop a command, where the platform has them: Ctrl-C, `kill`, a closed terminal, Ctrl-Break."""
GRACE = 3.0
"""Seconds in which a command puts everything away before it is ended."""

_received: int | None = None
_raising = False


class Stop(BaseException):
    """A signal asked the command to stop. No `except Exception` of a library keeps it."""


def received() -> int | None:
    """The number of the first signal that came, or None."""
    return _received


def exit_code(number: int) -> int:
    """What a command that a signal stopped ends with, as shells expect it: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + number


def message(number: int) -> str:
    """One line about a command that was stopped."""
    how = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    return f"{how}; finished units are stored, the same command goes on from there"


def install() -> None:
    """From here on a signal stops the command. One that the shell set to be ignored, as `nohup` does, stays so."""
    global _raising
    _raising = True
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, writer), daemon=True, name="signals").start()
    atexit.register(_ignore)  # the first that is registered runs last
    for name in NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def _ignore() -> None:
    """Nothing is left to stop: Python would give signals back to the system, which ends the process by them."""
    for name in NAMES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def over() -> None:
    """The command is done: a signal no longer raises. It still ends a process that does not come to its end."""
    global _raising
    _raising = False


def leave() -> NoReturn:
    """End the process after a signal: say so in one line, and let libraries put their own things away.

    A plain exit would do more: it waits for threads, and after an interrupt inside `exec`, as imports of dataclasses
    make it, it kills the process by the signal.
    """
    number = _received or signal.SIGINT
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        sys.stderr.write(f"ccmc: {message(number)}\n")
        sys.stderr.flush()
    with suppress(Exception):
        atexit._run_exitfuncs()
    os._exit(exit_code(number))


def _handle(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is not None or not _raising:
        return
    _received = number
    # What is torn down half-way may complain from places that no `except` reaches.
    sys.unraisablehook = _nothing
    threading.excepthook = _nothing
    raise Stop


def _nothing(*_: Any) -> None: ...


def _watch(reader: socket.socket, writer: socket.socket) -> None:
    """Wait for a signal; if the process is still there some seconds later, end it. `writer` must stay open."""
    stopping = {int(getattr(signal, name)) for name in NAMES if hasattr(signal, name)}
    while True:
        number = next((byte for byte in reader.recv(64) if byte in stopping), None)
        if number is not None:
            time.sleep(GRACE)
            _end(_received or number)


def _end(number: int) -> NoReturn:
    """End the process from a thread, whatever its main thread is doing."""
    from harness.core.leaving import clear, descendants, kill

    try:
        kill(descendants())
        clear()
        with suppress(OSError):
            shown = "\x1b[?25h" if os.isatty(2) else ""  # progress bars hide the cursor
            os.write(2, f"{shown}ccmc: {message(number)}\n".encode())
    finally:
        os._exit(exit_code(number))
