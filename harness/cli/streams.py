"""Where the command line writes: streams that can write every sign, and what happens where they cannot write at all."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from harness.core.errors import OutputError
from harness.report.signs import ASCII, FALLBACK, is_ascii

PIPE_CLOSED = 141
"""Exit code where the reader of the output closed it."""


def _lost(error: OSError) -> OutputError:
    return OutputError(
        f"standard output cannot be written to: {error.strerror or error}; free its device, or write to another place"
    )


class Output(io.TextIOWrapper):
    """Standard output whose failures are errors for the user; a closed pipe stays what it is."""

    def write(self, text: str) -> int:
        """As `TextIOWrapper.write`."""
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _lost(error) from None

    def flush(self) -> None:
        """As `TextIOWrapper.flush`."""
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _lost(error) from None


class Closed(io.TextIOBase):
    """Standard output of a process that was started without one: nothing is lost in silence."""

    def write(self, _: str) -> int:
        """Refuse every text.

        Raises:
            OutputError: always.
        """
        raise _lost(OSError(errno.EBADF, "it is closed"))

    def fileno(self) -> int:
        """The number that it has in every process."""
        return 1


def _encoding(stream: io.TextIOWrapper) -> str:
    return ASCII if is_ascii(stream.encoding) else stream.encoding


def settle() -> None:
    """Make the streams of this process ones that write every sign, as ASCII where they lack it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with suppress(OSError):  # else the next file that is opened would get what is printed
                taken = os.open(os.devnull, os.O_RDWR)
                if taken != number:
                    os.dup2(taken, number)
                    os.close(taken)
    if sys.stdout is None:
        closed: Any = Closed()
        sys.stdout = closed
    elif type(sys.stdout) is io.TextIOWrapper:
        known = sys.stdout  # goes on to exist as `sys.__stdout__`, with the same buffer
        known.flush()
        sys.stdout = Output(known.buffer, _encoding(known), FALLBACK, line_buffering=known.line_buffering)
    if sys.stderr is None:
        sys.stderr = io.StringIO()
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding=_encoding(sys.stderr), errors=FALLBACK)


def drop(stream: TextIO) -> None:
    """Let nothing more be flushed into a stream that cannot be written to."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def flush() -> int:
    """Write out what is left of standard output.

    Returns:
        0, or 141 where its reader closed it.

    Raises:
        OutputError: it cannot be written to.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop(sys.stdout)
        return PIPE_CLOSED
    except OutputError:
        drop(sys.stdout)
        raise
    return 0
