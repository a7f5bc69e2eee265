"""What `ccmc show` prints: answers first, one small table per experiment, nothing wider than the terminal."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from made_up import declare, write_run
from rich.cells import cell_len

from harness.cli.app import invoke

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    declare(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    write_run(tmp_path / "run")
    return "run"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert invoke(["show", *arguments]) == 0
    return capsys.readouterr().out


def test_the_answers_come_first(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, run).splitlines()
    assert lines[0] == "made-up: m; 18 prompts to fit on, 6 held out; computed in 3 min 12 s"
    assert lines[2] == "- fit explains 5 of everything, 0.512 [0.431, 0.563]."
    assert lines[3] == "- Not answered: Is there a difference? There are too few prompts to say."
    assert lines[5] == "What is explained"
    table = lines[6 : lines.index("", 6)]
    assert sum("0.512 [0.431, 0.563]" in line for line in table) == 12
    assert "The first 12 of 22 rows." in " ".join(table)
    assert "more: ccmc show run NAME, or --all; tables: talks.by-layer, talks.other" in lines
    assert lines[-1] == "run directory: run (complete, 1 of 1 units)"
    assert max(map(cell_len, lines)) <= 100


def test_notes_of_a_run_are_shown_and_escaped(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Path(run) / "manifest.json"
    record = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**record, "notes": ["field a was\x1b[31m set aside"]}), encoding="utf-8")
    lines = printed(capsys, run).splitlines()
    assert "note: field a was\\x1b[31m set aside" in lines
    assert invoke(["show", run, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["notes"] == ["field a was\x1b[31m set aside"]
    assert not any(line.startswith("note:") for line in printed_without_notes(run, manifest, record, capsys))


def printed_without_notes(run: str, path: Path, record: object, capsys: pytest.CaptureFixture[str]) -> list[str]:
    path.write_text(json.dumps(record), encoding="utf-8")
    return printed(capsys, run).splitlines()


def test_a_broken_experiment_costs_one_line_a_part(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["show", run]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: fails: its answers cannot be made of these rows: KeyError: 'no such metric'",
        "warning: fails: its tables cannot be made of these rows: ZeroDivisionError: nothing to divide by",
    ]


def test_an_experiment_that_is_not_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    assert invoke(["show", str(tmp_path / "run")]) == 0
    assert "warning: experiment 'talks' is not installed here: its rows have no tables" in capsys.readouterr().err


def test_named_tables_and_all(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, run, "talks.other").splitlines()[0] == "Other"
    both = printed(capsys, run, "talks.other", "talks.by-layer")
    assert both.index("Other") < both.index("By layer")
    assert "fit explains" not in both
    everything = printed(capsys, run, "--all")
    assert all(title in everything for title in ("What is explained", "By layer", "Other", "fit explains"))
    assert everything.count("s19") == 3
    assert "more:" not in everything
    assert printed(capsys, run, "talks").count("Intervals: 95 %.") == 1  # all tables of one experiment
    assert invoke(["show", run, "talks.by-lair"]) == 2
    assert "did you mean 'talks.by-layer'" in capsys.readouterr().err


def test_other_formats_hold_everything(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(printed(capsys, run, "--format", "json"))
    assert record["run"]["name"] == "made-up"
    assert [answer["answered"] for answer in record["answers"]] == [True, False]
    assert [table["name"] for table in record["tables"]] == ["talks.small", "talks.by-layer", "talks.other"]
    assert len(record["tables"][0]["rows"]) == 22
    lines = list(csv.DictReader(io.StringIO(printed(capsys, run, "--format", "csv"))))
    assert {line["table"] for line in lines} == {"answers", "talks.small", "talks.by-layer", "talks.other"}
    for format_, start in (("markdown", "- fit explains"), ("latex", r"\begin{itemize}")):
        text = printed(capsys, run, "--format", format_)
        assert text.startswith(start)
        assert text.count("s19") == 3
    only = json.loads(printed(capsys, run, "talks.other", "--format", "json"))
    assert (len(only["answers"]), len(only["tables"])) == (0, 1)


PROGRAM = """
import sys
sys.path[:0] = {path!r}
from made_up import declare
declare(setattr)
from harness.cli.app import invoke
sys.exit(invoke(sys.argv[1:]))
"""


def on_a_terminal(columns: int, folder: Path, *arguments: str) -> list[str]:
    """The lines that a command writes on a terminal of some width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
    program = PROGRAM.format(path=[str(ROOT / "tests"), str(ROOT)])
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(
        command, cwd=folder, env={**environment, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE
    ) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
        assert process.wait() == 0
    os.close(ours)
    raw = b"".join(parts).decode()
    assert "\x1b[1m" in raw  # bold
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw).replace("\r", "").splitlines()


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal(run: str, tmp_path: Path, columns: int) -> None:
    lines = on_a_terminal(columns, tmp_path, "show", run, "--all")
    assert max(map(cell_len, lines)) <= columns
    text = "\n".join(lines)
    whole = text.count("0.512 [0.431, 0.563]")
    assert whole == text.count("0.512")  # no interval is cut
    assert whole == 1 + 3 * 22 * {80: 2, 100: 3, 160: 6}[columns]  # one answer, three tables, columns that fit
    assert ("not shown: " in text) == (columns < 160)


@pytest.mark.parametrize(("given", "widest"), [("80", 80), ("160", 160), ("", 100), ("x", 100), ("3", 40)])
def test_a_pipe_has_a_hundred_columns_or_what_is_given(
    run: str, given: str, widest: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", given)
    lines = printed(capsys, run, "--all").splitlines()
    assert widest - 30 < max(map(cell_len, lines)) <= widest
    assert not any("\x1b" in line for line in lines)
