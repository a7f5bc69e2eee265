"""Which process writes something, as a tag in the names of what is not finished, and whether that process is dead.

A tag holds host, start of the machine, process number and start of the process. A number alone is not enough: systems
give it to other processes later, and hosts that share a folder have the same numbers.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

State = Literal["alive", "dead", "elsewhere"]
_TAG = r"[0-9a-f]{8}-[0-9a-f]{6}-\d+-\d+"
_TEMPORARY = re.compile(rf"\..*\.tmp-({_TAG})-[^.]*")


def host() -> str:
    """The name of this machine, as its owner knows it."""
    return platform.node() or "unnamed"


def tag() -> str:
    """Of this process."""
    return _tag_of(os.getpid())  # looked up each time: a forked child is another process


@cache
def _tag_of(pid: int) -> str:
    return f"{_host_hash()}-{_boot_hash()}-{pid}-{started(pid) or 0}"


def temporary_prefix(name: str) -> str:
    """How the name of something begins that this process has not finished, and that will be called `name`."""
    return f".{name[:40]}.tmp-{tag()}-"


def tag_in(name: str) -> str | None:
    """The tag in the name of something unfinished; None where it has none."""
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


def state_of(text: str) -> State:
    """Is the process of a tag alive?

    Args:
        text: a tag.

    Returns:
        `elsewhere` where this machine cannot know: another host, or another container with numbers of its own.
    """
    host_hash, boot, pid, start = text.split("-")
    if host_hash != _host_hash():
        return "elsewhere"
    if boot != _boot_hash():
        return "dead"  # the machine was started again since
    if not _exists(int(pid)):
        return "dead"
    found = started(int(pid))
    return "dead" if found is not None and int(start) and found != int(start) else "alive"


def _short(text: str, length: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:length]


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


@cache
def _host_hash() -> str:
    """Host and space of process numbers: containers on one machine cannot see each other's processes."""
    space = ""
    with suppress(OSError):
        space = str(Path("/proc/self/ns/pid").readlink())
    return _short("\n".join([host(), _text_of("/etc/machine-id"), space]), 8)


@cache
def _boot_hash() -> str:
    return _short(_text_of("/proc/sys/kernel/random/boot_id"), 6)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name, which may hold anything; none where there is no such file."""
    return _text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()


def started(pid: int) -> int | None:
    """When a process was started, in a unit of the platform; None where that cannot be read.

    On Linux in ticks since the machine started, which does not change when the clock is set.
    """
    if fields := _stat(pid):
        return int(fields[19])
    try:
        import psutil

        return int(psutil.Process(pid).create_time() * 100)
    except (ImportError, OSError):
        return None
    except psutil.Error:
        return None


def _exists(pid: int) -> bool:
    """Is there a process of this number that still does something?"""
    if fields := _stat(pid):
        return fields[0] not in "ZX"  # ended, and only not yet collected by its parent
    import psutil  # asks every platform safely: on Windows os.kill(pid, 0) would end the process

    try:
        return bool(psutil.pid_exists(pid)) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True  # of another user
