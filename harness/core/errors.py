"""The errors that users meet, and the exit code that each one ends the command with."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class HarnessError(Exception):
    """An error that is shown to the user in one line. `exit_code` is what the command ends with."""

    exit_code = 4


class UsageError(HarnessError):
    """Wrong use: a config, a path, a name or a model that cannot work. Says what, where and what to do."""

    exit_code = 2


class OutputError(HarnessError):
    """What was to be printed cannot be written: a full device, a closed standard output."""

    exit_code = 2


class UnitsFailedError(HarnessError):
    """Some units failed; the others are stored."""

    exit_code = 3


class StorageError(HarnessError):
    """The disk cannot be written to: full, read-only, broken or gone. What was finished before is stored."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as "; did you mean 'layers'?", or the known names where none is near."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


def one_line(error: BaseException) -> str:
    """The message of any exception on a single line."""
    return " ".join(str(error).split()) or type(error).__name__
