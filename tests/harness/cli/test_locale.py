"""Under every encoding of the output each verb ends as it does under UTF-8, and its text stays readable."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import write_run

from harness.report.signs import FALLBACK, readable, spelled

ROOT = Path(__file__).resolve().parents[3]
SMOKE = str(ROOT / "results/reference/smoke")
COVERAGE = str(ROOT / "results/reference/paper/coverage")
C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
UTF8 = {"PYTHONUTF8": "1"}

SHORT = [
    ["run", "tiny.yaml", "--out", "results/new"],
    ["show", "results/made-up"],
    ["show", "results/made-up", "--format", "json"],
    ["models", "ls"],
]
EVERYTHING = [
    *SHORT,
    *(["show", "results/made-up", "--format", form] for form in ("markdown", "csv", "latex")),
    ["show", SMOKE, "heads"],
    ["show", "results/new", "--all"],
    *(["table", COVERAGE, "--format", form] for form in ("rich", "html", "csv")),
    ["compare", COVERAGE, COVERAGE],
    ["gate", COVERAGE, "--baseline", COVERAGE, "--junit", "gate.xml", "--markdown", "gate.md"],
    ["leaderboard", "results"],
    ["ls", "results"],
    ["list"],
    ["list", "surrogates"],
    ["heads", SMOKE],
    ["verify", COVERAGE],
    ["verdicts", COVERAGE],
    ["report", "results/new", "-o", "page.html"],
    ["plot", "results/made-up"],
    ["--help"],
    ["run", "--help"],
    ["doctor"],
    ["show", "no-such-rün"],
    ["run", "no-such-cönfig"],
]
TINY = """
name: tiny
seed: 0
experiments:
  - {kind: equivalence, vocab_size: 4, dimensions: [4], repetitions: 1}
"""
PROGRAM = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from harness.cli import app, streams
streams.settle()
codes = []
for command in json.loads(sys.argv[1]):
    print("@@", ascii(command))
    codes.append(app.flushed(app.invoke(command)))
    sys.stdout.flush()
print(json.dumps(codes), end="")
"""


def outcome(
    folder: Path, commands: list[list[str]], settings: dict[str, str], encoding: str
) -> tuple[list[int], str, str]:
    """Exit codes, standard output and standard error of command lines in one process of some encoding."""
    folder.mkdir()
    write_run(folder / "results" / "made-up", ("talks",))
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUTF8"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        cwd=folder,
        env={**plain, "HF_HUB_OFFLINE": "1", "PIP_INDEX_URL": "http://127.0.0.1:9/", **settings},
        capture_output=True,
        timeout=600,
        check=False,
    )
    out, errors = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert done.returncode == 0, errors
    text, _, codes = out.rpartition("\n")
    return json.loads(codes), text, errors


@pytest.fixture(scope="module")
def under_utf8(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[int], str, str]:
    return outcome(tmp_path_factory.mktemp("utf8") / "here", EVERYTHING, UTF8, "utf-8")


def test_every_verb_in_the_c_locale(tmp_path: Path, under_utf8: tuple[list[int], str, str]) -> None:
    codes, out, errors = outcome(tmp_path / "here", EVERYTHING, C, "ascii")
    wanted, text, _ = under_utf8
    assert codes == wanted
    assert wanted[: len(SHORT)] == [0] * len(SHORT)
    assert wanted[-2:] == [2, 2]
    assert "Traceback" not in errors + out
    assert any(not sign.isascii() for sign in text)
    assert out.count("?") == text.count("?")  # no sign of ours is lost
    page = (tmp_path / "here" / "page.html").read_text(encoding="utf-8")
    assert "–" in page or "×" in page


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])  # ASCII is the encoding of the C locale
def test_other_encodings(encoding: str, tmp_path: Path, under_utf8: tuple[list[int], str, str]) -> None:
    codes, out, errors = outcome(tmp_path / "here", SHORT, {"PYTHONIOENCODING": encoding}, encoding)
    assert codes == [0] * len(SHORT)
    assert "Traceback" not in errors + out
    assert "?" not in out.split("@@")[1]
    data, same = (json.loads(text.split("@@")[3].partition("\n")[2]) for text in (out, under_utf8[1]))
    assert data == same  # in every locale


@pytest.mark.parametrize(
    ("text", "ascii_"),
    [
        ("1–2 × 3 ± 0.1", "1-2 x 3 +- 0.1"),
        ("│─┼═", "|-+="),
        ("α → Ω ≤ ς", "alpha -> Omega <= sigma"),
        ("naïve Łódź ½ x²", "naive Lodz 1/2 x^2"),
        ("表🙂\udcff", "???"),
        ("⠋ ▇", "* #"),
        ("“quoted”… ﬁn", '"quoted"... fin'),
    ],
)
def test_signs_are_spelled(text: str, ascii_: str) -> None:
    assert readable(text, "ascii") == ascii_
    assert text.encode("ascii", FALLBACK).decode() == ascii_


@given(st.text())
def test_every_text_can_be_written(text: str) -> None:
    assert readable(text, "ascii").isascii()
    readable(text, "cp1252").encode("cp1252")  # raises where it cannot
    assert all(spelled(sign).isascii() for sign in text)


def _unnamed(tree: ast.AST) -> list[int]:
    """Lines with a call that reads or writes text in the encoding of the locale."""
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and _of_the_locale(node)]


def _of_the_locale(node: ast.Call) -> bool:
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    given_ = {keyword.arg: keyword.value for keyword in node.keywords}
    if "encoding" in given_:
        return False
    if name in {"read_text", "write_text"}:
        return len(node.args) < {"read_text": 1, "write_text": 2}[name]
    if name in {"open", "fdopen"}:
        modes = [*node.args[:2], *([given_["mode"]] if "mode" in given_ else [])]
        texts = [one.value for one in modes if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        module = getattr(getattr(node.func, "value", None), "id", "")
        return not (name == "open" and module == "os") and _is_text(node, texts, name)
    return name in {"run", "Popen", "check_output"} and bool({"text", "universal_newlines"} & set(given_))


def _is_text(node: ast.Call, texts: list[str], name: str) -> bool:
    """Is this a call that opens a file as text? Archives and stores have methods of the same name."""
    if any(set(text) <= set("rwxabt+") and "b" in text for text in texts):
        return False
    builtin = isinstance(node.func, ast.Name) or name == "fdopen"
    return builtin or any(set(text) <= set("rwxat+") for text in texts)


@pytest.mark.parametrize("package", ["harness", "ccmc"])
def test_files_have_an_encoding_of_their_own(package: str) -> None:
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        found += [f"{path.relative_to(ROOT)}:{line}" for line in _unnamed(ast.parse(path.read_text(encoding="utf-8")))]
    assert found == []


def test_the_check_of_encodings_finds_what_it_should() -> None:
    bad = "open(x); p.read_text(); p.write_text(t); p.open('w'); os.fdopen(d, 'w'); run(c, text=True)"
    good = (
        "p.open('rb'); p.read_text('utf-8'); os.open(x, 1); z.open(m); p.write_text(t, encoding='utf-8'); open(x, 'wb')"
    )
    assert len(_unnamed(ast.parse(bad))) == 6
    assert _unnamed(ast.parse(good)) == []
