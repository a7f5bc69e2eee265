"""`ccmc list` and `ccmc doctor`: what is declared, and what would be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cli import doctor
from harness.cli.app import invoke
from harness.cli.doctor import Finding
from harness.core import registry
from harness.core.declarations import MeasureDeclaration

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def record(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert invoke([*arguments, "--format", "json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)
    return dict(table)


def test_the_kinds_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    counts = dict(record(capsys, "list")["rows"])
    assert list(counts) == ["surrogates", "measures", "experiments", "models"]
    assert counts["measures"] == len(registry.measures())
    assert counts["surrogates"] == len(registry.surrogates("heads")) + len(registry.surrogates("next-token"))


@pytest.mark.parametrize(
    ("kind", "columns", "name"),
    [
        ("surrogates", ["name", "of", "sees", "parameters", "rollout"], "ccmc-fit"),
        ("measures", ["name", "unit", "better", "pooled"], "explained"),
        ("experiments", ["name", "question"], "heads"),
        ("models", ["name", "form", "licence"], "smollm2-135m"),
    ],
)
def test_every_kind_is_a_table(kind: str, columns: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = record(capsys, "list", kind)
    names = [column["name"] for column in table["columns"]]
    assert [one for one in names if one in columns] == columns
    assert "package" not in names
    assert name in [row[0] for row in table["rows"]]
    assert invoke(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith(name) for line in lines)


def test_plugins_are_named_and_their_problems_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"mine": MeasureDeclaration("mine", about="of a plugin", unit="nats", package="my-plugin", version="1.0")}
    known = {**registry.measures(), **more}
    monkeypatch.setattr(registry, "measures", lambda: known)
    monkeypatch.setattr(registry, "problems", lambda: ("plugin broken: no such module; it is left out",))
    assert invoke(["list", "measures", "--format", "json"]) == 0
    captured = capsys.readouterr()
    (table,) = json.loads(captured.out)
    assert table["columns"][-1]["name"] == "package"
    assert {row[0]: row[-1] for row in table["rows"]}["mine"] == "my-plugin"
    assert captured.err == "warning: plugin broken: no such module; it is left out\n"


def test_an_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["list", "surogates"]) == 2
    assert "list 'surogates'; did you mean 'surrogates'" in capsys.readouterr().err


def test_lists_load_nothing_heavy() -> None:
    program = (
        "import sys\nfrom harness.cli.app import invoke\n"
        "code = invoke(['list', 'surrogates']) or invoke(['list', 'measures']) or invoke(['list'])\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numba', 'scipy', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def found(check: Any) -> dict[str, Finding]:
    return {finding.what: finding for finding in doctor._of(check)}


def test_the_doctor_looks_at_everything(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "reached", lambda urls: ["no route"] * len(urls))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert invoke(["doctor"]) == 0
    out = capsys.readouterr().out
    for what in ("python", "packages", "device", "cache", "model smollm2-135m", "hub", "plugins", "encoding", "source"):
        assert any(line[9:].startswith(f"{what}: ") for line in out.splitlines()), what
    assert "cannot be reached (no route)" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 100
    table = record(capsys, "doctor")
    assert {row[0] for row in table["rows"]} <= {"ok", "warning"}


def test_a_problem_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("CCMC_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(doctor, "CHECKS", (doctor.cache,))
    assert invoke(["doctor"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("problem  cache: CCMC_CACHE")
    assert "set CCMC_CACHE to a folder" in " ".join(out.split())


def test_a_check_that_fails_is_a_finding() -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("ok", "first", "fine")
        raise RuntimeError("a bug\nof two lines")

    first, second = doctor._of(broken)
    assert first.level == "ok"
    assert (second.level, second.found) == ("warning", "cannot be checked: RuntimeError: a bug of two lines")


def test_offline_is_said_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def reached(urls: list[str]) -> list[str]:
        asked.extend(urls)
        return [""] * len(urls)

    monkeypatch.setattr(doctor, "reached", reached)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@index.example:8080/simple")
    findings = found(doctor.models)
    assert "switched off by HF_HUB_OFFLINE" in findings["hub"].found
    assert findings["package index"] == Finding("ok", "package index", "https://index.example:8080 can be reached")
    assert asked == ["https://me:secret@index.example:8080/simple"]


def test_places_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 2.0)
    nowhere, odd = doctor.reached(["http://127.0.0.1:9", "no address"])
    assert "refused" in nowhere
    assert "unknown url type" in odd


def test_little_space_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE", float("inf"))
    finding = found(doctor.results)["space of results"]
    assert finding.level == "warning"
    assert "free some or choose another folder" in finding.found


def test_a_plugin_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"mine": MeasureDeclaration("mine", package="my-plugin", version="1.0")}
    monkeypatch.setattr(registry, "measures", lambda: more)
    monkeypatch.setattr(registry, "problems", lambda: ("plugin broken: cannot be read",))
    findings = list(doctor.plugins())
    assert findings[0] == Finding("ok", "plugin", "my-plugin 1.0: mine")
    assert findings[1] == Finding("warning", "plugin", "plugin broken: cannot be read")
