"""Every verb that prints, on a terminal of 40, 80, 100 and 160 columns: no line is wider, and figures stay whole.

One process does all of them: it sets the width of its own terminal, so that the imports are paid once.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from rich.cells import cell_len

from harness.core.hashing import file_hash
from harness.runs.directory import RunDirectory
from harness.runs.writing import write_parquet

pty = pytest.importorskip("pty")

ROOT = Path(__file__).resolve().parents[3]
SMOKE = ROOT / "results/reference/smoke"
COVERAGE = ROOT / "results/reference/paper/coverage"
WIDTHS = (40, 80, 100, 160)
TABLES = {  # verbs whose tables hold figures with intervals
    "show": ["show", "results/smoke", "--all"],
    "show claims": ["show", "results/coverage", "--all"],
    "run": ["run", "tiny.yaml", "--out", "results/tiny"],
    "table": ["table", "results/smoke"],
    "table across runs": ["table", "results/smoke", "results/worse", "--columns", "run"],
    "compare": ["compare", "results/smoke", "results/worse"],
    "compare with a baseline": ["compare", "results/worse", "--baseline", "results/smoke", "--metric", "kl"],
    "gate": ["gate", "results/worse", "--baseline", "results/smoke"],
    "heads": ["heads", "results/smoke"],
    "leaderboard": ["leaderboard", "results", "--all"],
    "verdicts": ["verdicts", "results/coverage"],
}
OTHERS = {
    "help": ["--help"],
    **{f"help {verb}": [verb, "--help"] for verb in ("run", "compare", "table", "gate")},
    "gate that passes": ["gate", "results/smoke", "--baseline", "results/smoke"],
    "ls": ["ls", "results"],
    "list": ["list"],
    **{f"list {kind}": ["list", kind] for kind in ("surrogates", "measures", "experiments", "models")},
    "verify": ["verify", "results/coverage"],
    "power": ["power", "results/smoke", "--effect", "seq_rep_4=.05"],
    "models": ["models", "ls"],
}
SLOW = {  # whose lines do not depend on the width but for their folding
    "report": ["report", "results/coverage", "-o", "page.html"],
    "plot": ["plot", "results/coverage"],
    "doctor": ["doctor"],
}
COMMANDS = {width: TABLES | OTHERS | (SLOW if width == 40 else {}) for width in WIDTHS}
TINY = """
name: tiny
seed: 0
experiments:
  - {kind: equivalence, vocab_size: 4, dimensions: [4], repetitions: 1}
"""
PROGRAM = """
import fcntl, json, struct, sys, termios
sys.path.insert(0, sys.argv[1])
from harness.cli import app, streams
from harness.runs import reading
made, read = {}, reading.read
def read_once(rows):
    if len(rows) not in made:
        made[len(rows)] = read(rows)
    return made[len(rows)]
reading.read = read_once
streams.settle()
codes = {}
for width, commands in json.loads(sys.argv[2]).items():
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 50, int(width), 0, 0))
    for name, command in commands.items():
        print(f"@@ {width} {name}")
        codes[f"{width} {name}"] = app.flushed(app.invoke(command))
        sys.stdout.flush()
print("@@ codes\\n" + json.dumps(codes))
"""
NUMBER = r"[+-]?\d[\d.,]*(?:e-?\d+)?"
INTERVAL = re.compile(rf"{NUMBER} \[{NUMBER}, {NUMBER}\]")
BROKEN = re.compile(rf"\d \[{NUMBER}$|\d \[{NUMBER},( {NUMBER})?$|^ *{NUMBER}\]")


class Shown(NamedTuple):
    """What one process wrote on its terminal: lines and exit code by "WIDTH VERB", and its standard error."""

    lines: dict[str, list[str]]
    codes: dict[str, int]
    errors: str


def copy(source: Path, target: Path, factor: float = 1.0) -> None:
    """A copy of a run without its one-layer models and most heads, whose distances are multiplied by a factor."""
    manifest = RunDirectory(source).read_manifest()
    assert manifest is not None
    rows = pd.read_parquet(source / "rows.parquet")
    rows = rows[(rows["head"].isna() | (rows["head"] < 2)) & (rows["experiment"] != "one-layer")]
    far = rows["metric"].str.startswith("kl")
    rows.loc[far, "value"] = rows.loc[far, "value"] * factor
    target.mkdir(parents=True)
    write_parquet(rows, target / "rows.parquet")
    tables = {"rows.parquet": file_hash(target / "rows.parquet")}
    RunDirectory(target).write_manifest({**manifest, "tables": tables})


def on_a_terminal(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[str, str, int]:
    """What a command writes on a terminal, without its styles, and to standard error; its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    parts: list[bytes] = []

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # its last writer is gone
                return
            if not part:
                return
            parts.append(part)

    with (folder / "errors.txt").open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=errors, start_new_session=True
        )
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(timeout=300)
    reader.join(timeout=30)
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(parts).decode()).replace("\r", "")
    return plain, (folder / "errors.txt").read_text(encoding="utf-8"), code


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("widths")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    copy(SMOKE, folder / "results" / "smoke")
    copy(SMOKE, folder / "results" / "worse", 1.7)
    copy(COVERAGE, folder / "results" / "coverage")
    environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "NO_COLOR"}}
    command = [sys.executable, "-c", PROGRAM, str(ROOT), json.dumps(COMMANDS)]
    text, errors, code = on_a_terminal(command, folder, {**environment, "TERM": "xterm", "HF_HUB_OFFLINE": "1"})
    assert code == 0, errors
    text, _, codes = text.partition("@@ codes\n")
    found: dict[str, list[str]] = {}
    for part in text.split("@@ ")[1:]:
        name, *lines = part.splitlines()
        found[name] = lines
    return Shown(found, json.loads(codes), errors)


def intervals(lines: list[str]) -> set[str]:
    return set(INTERVAL.findall("\n".join(lines)))


def stacked(lines: list[str]) -> str | None:
    """Four letters one below the other, with nothing beside them: a column of one sign."""
    for above, *below in zip(lines, lines[1:], lines[2:], lines[3:], strict=False):
        for place, sign in enumerate(above):
            if sign.isalpha() and all(alone(line, place) for line in (above, *below)):
                return above
    return None


def alone(line: str, place: int) -> bool:
    around = f"  {line}  "[place : place + 5]
    return around[2:3].isalpha() and around.split() == [around[2]]


def test_stacked_letters_are_found() -> None:
    assert stacked(["a  e  1", "b  x  2", "c  p  3", "d  l  4"]) is not None
    assert stacked(["in a  1", "is a  2", "of a  3", "at a  4"]) is None


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_and_none_breaks_a_figure(shown: Shown, width: int) -> None:
    for name in COMMANDS[width]:
        lines = shown.lines[f"{width} {name}"]
        assert lines, name
        for line in lines:
            fixed = line.startswith("  ccmc ") or " " not in line.strip()  # to be copied in one piece: commands, paths
            assert fixed or cell_len(line) <= width, (name, line)
            assert not BROKEN.search(line), (name, line)
        assert stacked(lines) is None, (name, stacked(lines))


@pytest.mark.parametrize("width", WIDTHS)
def test_every_table_shows_its_figures(shown: Shown, width: int) -> None:
    for name in TABLES:
        here, most = (intervals(shown.lines[f"{w} {name}"]) for w in (width, 160))
        assert here <= most, (name, here - most)
        assert len(here) >= len(most) / 8, name  # a narrow terminal leaves columns out
        assert bool(here) == bool(most), name
        assert any(re.search(r"\d\.\d", line) for line in shown.lines[f"{width} {name}"]), name


def test_verbs_end_as_they_should(shown: Shown) -> None:
    assert "Traceback" not in shown.errors
    for name, code in shown.codes.items():
        assert code == (1 if name.endswith(" gate") and "help" not in name else 0) or "doctor" in name, name
