"""The documents keep their word: commands parse, links lead somewhere, code runs, and figures are those of the runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.cli import app as cli
from harness.cli import docs
from harness.report import config_page, results_page
from harness.runs.run import load_run

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "harness/README.md", "ccmc/README.md", "configs/README.md", "results/README.md")
READY = ("ccmc docs", "ccmc doctor", "ccmc list", "ccmc ls")
"""Verbs that need no argument."""
README = (ROOT / "README.md").read_text(encoding="utf-8")
HOUSE = (ROOT / "harness" / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "results" / "README.md").read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """Every `ccmc ...` of a page: in code between backticks and in shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    inline = re.findall(r"`(ccmc [a-z][^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [line for line in [*lines, *inline] if line.startswith("ccmc ")]


def parse(command: str) -> None:
    """Parse a command line without running it; raises where the verb, an option or a value is wrong."""
    words = shlex.split(command.partition(" | ")[0], comments=True)[1:]
    found: Any = typer.main.get_command(cli.app)
    context = found.make_context("ccmc", words, resilient_parsing=True)
    while hasattr(found, "commands"):
        found = found.get_command(context, words[0])
        assert found is not None, f"{command}: no verb {words[0]!r}"
        words = words[1:]
    if words or command in READY:  # a verb alone is its name
        found.make_context(command, words)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES)
def test_every_command_parses(page: str) -> None:
    found = list(dict.fromkeys(commands((ROOT / page).read_text(encoding="utf-8"))))
    assert found or page == "ccmc/README.md"
    for command in found:
        parse(command)


def test_a_wrong_command_does_not_parse() -> None:
    assert len(commands(README)) >= 15
    for wrong in ("ccmc rum quickstart", "ccmc run quickstart --limt 2", "ccmc run quickstart --limit none"):
        with pytest.raises((AssertionError, *cli._CLICK_USAGE_ERROR.__mro__[:1])):
            parse(wrong)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page: str) -> None:
    folder = (ROOT / page).parent
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    headings = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}
    for link in links:
        if link.startswith("#"):
            assert link[1:] in headings, link
        else:
            assert (folder / link.partition("#")[0]).exists(), link


def test_every_formula_has_its_file() -> None:
    index = HOUSE[HOUSE.index("## From formula to file") : HOUSE.index("## Decisions")]
    rows = re.findall(r"^\| \*\*(\d)\*\* .* \| (.+) \|$", index, re.MULTILINE)
    assert {section for section, _ in rows} == set("123456789")
    for _, where in rows:
        for path in re.findall(r"`([^`]+)`", where):
            assert (ROOT / path).exists(), path
    named = set(
        re.findall(r"`((?:core|runs|stats|config|attention|surrogates|models|experiments|tests)/[^`*]+)`", HOUSE)
    )
    assert len(named) >= 10
    for path in named:
        assert (ROOT / "harness" / path).exists() or (ROOT / path).exists(), path


@pytest.mark.parametrize("page", ["README.md", "harness/README.md"])
def test_every_python_block_runs(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    if "found" in names:
        assert names["fit"].converged
        assert set(names["found"].tokens) <= set(range(8))
        assert str(names["found"].tokens) in capsys.readouterr().out


def test_findings_are_figures_of_the_runs_that_they_name() -> None:
    table = README[README.index("## Findings") : README.index("![")]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 5
    sections = dict(re.findall(r"^## (\S+)$\n(.*?)(?=^## |\Z)", RESULTS, re.MULTILINE | re.DOTALL))
    for _, answer, runs in rows:
        figures = re.findall(r"[-+]?[\d.]+(?: %)? \[[^\]]+\]", answer)
        said = " ".join(sections[name] for name in runs.strip(" |").split(", "))
        assert figures or "3.2e-15" in answer
        assert all(figure in said for figure in [*figures, *re.findall(r"\d\.\de-\d+", answer)]), answer


def test_the_readme_shows_what_the_reference_run_says() -> None:
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    section = RESULTS[RESULTS.index("\n## quickstart\n") : RESULTS.index("\n## smoke\n")]
    answers = re.findall(r"^- (.*(?:\n  .*)*)", shown[1], re.MULTILINE)
    assert len(answers) >= 5
    for answer in answers:
        assert " ".join(answer.split()) in section, answer


def test_the_page_of_configs_is_current() -> None:
    made = config_page.config_page()
    assert made == config_page.config_page()
    assert made == (ROOT / "configs" / "README.md").read_text(encoding="utf-8"), "write it again: ccmc docs"


def test_every_setting_is_described() -> None:
    rows = re.findall(r"^\| `\w+` \|.*\| (.*) \|$", config_page.config_page(), re.MULTILINE)
    assert len(rows) > 100
    assert all(rows)


def test_a_run_has_one_page() -> None:
    root = ROOT / "results"
    run = load_run(root / "reference" / "smoke")
    made = results_page.run_section(run, "smoke", root)
    assert made == results_page.run_section(run, "smoke", root)
    assert made in RESULTS, "write it again: ccmc docs"


def test_stale_pages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results" / "reference").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    page = tmp_path / "configs" / "README.md"
    monkeypatch.setattr("harness.config.load.shipped_configs", lambda: tmp_path / "configs")
    monkeypatch.setattr(docs, "pages", lambda root: {page: "new\n"})
    assert cli.invoke(["docs", "--check"]) == 1
    assert "configs/README.md: stale" in capsys.readouterr().out
    assert not page.exists()
    assert cli.invoke(["docs"]) == 0
    assert page.read_text() == "new\n"
    assert cli.invoke(["docs", "--check"]) == 0
