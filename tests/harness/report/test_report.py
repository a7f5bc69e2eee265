"""Reports: one file, nothing in it that a token or a name could run, the same figures as the tables."""

from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import declare, write_run
from markupsafe import escape

import harness
from harness.cli.app import invoke
from harness.core.errors import UsageError
from harness.core.records import Interval, Table
from harness.core.style import INK
from harness.report.document import safe_json
from harness.report.page import render_report, write_report
from harness.report.page_data import head_table, viewer
from harness.report.pictures import curves_svg
from harness.runs.run import Run, load_run
from harness.runs.writing import write_parquet

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "results" / "reference" / "quickstart"
HOSTILE = "<script>window.hacked=1</script>\"><img src=x onerror='window.hacked=2'>$\\frac"


class Elements(HTMLParser):
    """Counts elements and collects what they refer to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "action", "srcset"}
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


@pytest.fixture
def hostile(finished: Any, small_model: Path, tmp_path: Path) -> Run:
    """The small run, with a model whose name, prompts and tokens try to break out."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0].path, folder, ignore=shutil.ignore_patterns("units"))
    model = tmp_path / "model"
    shutil.copytree(small_model, model)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {HOSTILE if word == "w0" else word: index for word, index in vocabulary.items()}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["models"][0]["name"] = str(model)
    manifest["config_as_given"]["name"] = HOSTILE
    manifest["config"]["experiments"][0]["kind"] = HOSTILE
    manifest["failures"] = [{"key": "k", "error": HOSTILE}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for name in ("rows", "trajectories"):
        frame = pd.read_parquet(folder / f"{name}.parquet")
        frame["model"] = frame["model"].replace(str(small_model), str(model))
        frame["prompt"] = frame["prompt"] + HOSTILE
        frame["strategy"] = frame["strategy"].replace("greedy", HOSTILE)
        if name == "rows":
            frame["surrogate"] = frame["surrogate"].replace("distance", HOSTILE)
        write_parquet(frame, folder / f"{name}.parquet")
    return load_run(folder)


@pytest.fixture(scope="module")
def reference_page() -> str:
    return render_report([load_run(REFERENCE)])


def test_tokens_and_names_stay_text(hostile: Run, reference_page: str) -> None:
    found = viewer(hostile)
    assert found is not None
    assert any("<script>window.hacked=1</script>" in piece for piece in found["pieces"])
    page = render_report([hostile])
    elements = Elements(page)
    plain = Elements(reference_page)
    assert elements.tags.count("script") <= plain.tags.count("script")
    assert "img" not in elements.tags
    assert elements.handlers == []
    assert "&lt;script&gt;window.hacked=1" in page
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    data = [json.loads(text) for text in scripts[:-1]]
    assert any(HOSTILE in piece for entry in data if "pieces" in entry for piece in entry["pieces"])


def test_a_report_refers_to_nothing_outside(reference_page: str) -> None:
    page = reference_page
    elements = Elements(page)
    assert all(link.startswith(("#", "data:")) for link in elements.links)
    assert "@import" not in page
    assert not re.findall(r"url\((?!#|data:)", page)
    assert page.count("default-src 'none'") == 1
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)


def test_json_cannot_end_its_element() -> None:
    text = safe_json({"a": "</script><!--\u2028&"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028&"}
    with pytest.raises(ValueError, match="JSON"):
        safe_json(float("nan"))


def test_a_report_says_what_the_run_says(reference_page: str) -> None:
    run, page = load_run(REFERENCE), reference_page
    for table in run.tables():
        assert html.escape(table.title, quote=False) in page
    answers = run.answers()
    assert answers
    for answer in answers:
        assert str(escape(answer.text)) in page
    assert page.count('<figure class="picture') == len(run.figures()) > 0
    rows = run.rows
    table = head_table(rows)
    assert table is not None
    assert len(table["rows"]) == 54 * 6 * 2
    names = [column["name"] for column in table["columns"]]
    first = dict(zip(names, table["rows"][1], strict=True))
    own = rows[(rows["metric"] == "explained") & (rows["layer"] == 0) & (rows["head"] == 0)]
    own = own[(own["surrogate"] == first["surrogate"]) & (own["strategy"] == "greedy")]
    assert first["explained"] == pytest.approx(float(own["value"].iloc[0]), rel=1e-3)
    assert run.manifest["config_hash"] in page


def test_a_broken_experiment_does_not_lose_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch.setattr)
    page = render_report([load_run(write_run(tmp_path / "run"))])
    assert "fails: its answers cannot be made of these rows" in page
    assert "figure broken cannot be drawn: ValueError: nothing to draw" in page
    assert "fit explains 5 of everything" in page
    assert page.index("fit explains 5") < page.index("Not answered: Is there a difference?")
    assert page.count("<svg") == 1
    assert INK not in page


def test_winners_are_marked_where_they_stand() -> None:
    from harness.measures.winners import winner_set

    run = load_run(REFERENCE)
    found = viewer(run)
    assert found is not None
    text = next(t for t in found["texts"] if t["source"] == "model" and t["strategy"] == "greedy")
    table = run.trajectories
    row = table[(table["prompt"] == text["prompt"]) & (table["source"] == "model") & (table["strategy"] == "greedy")]
    continuation = list(row["continuation"].iloc[0])
    winners = set(winner_set(continuation).tolist())
    assert text["size"] == len(winners) > 0
    assert text["wins"] == [index for index, token in enumerate(continuation) if token in winners]
    assert len(text["made"]) == len(continuation)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two seconds, as complete and verified as any."""
    experiment = {"kind": "equivalence", "vocab_size": 4, "dimensions": [4], "repetitions": 1}
    return harness.run({"name": "tiny", "experiments": [experiment]}, out=tmp_path_factory.mktemp("tiny") / "run")


def test_several_runs_stand_beside_each_other(tiny: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = tmp_path / "second"
    shutil.copytree(tiny.path, second)
    target = tmp_path / "out" / "report.html"
    assert invoke(["report", str(tiny.path), str(second), "-o", str(target)]) == 0
    assert "report: " in capsys.readouterr().out
    page = target.read_text(encoding="utf-8")
    assert "Runs beside each other" in page
    assert page.count('<section id="run-') == 2
    with pytest.raises(UsageError, match="given twice"):
        render_report([tiny, tiny])
    with pytest.raises(UsageError, match="is a folder"):
        write_report([tiny], tmp_path)


def test_a_partial_run_says_so(finished: Any, tmp_path: Path) -> None:
    folder = tmp_path / "partial"
    shutil.copytree(finished[0].path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for unit in manifest["units"][1:]:
        shutil.rmtree(folder / "units" / unit["key"])
    for name in ("rows.parquet", "trajectories.parquet"):
        (folder / name).unlink()
    (folder / "manifest.json").write_text(json.dumps({**manifest, "state": "partial"}))
    assert "This run is partial: 1 of" in render_report([load_run(folder)])


def test_curves_are_plain_svg() -> None:
    points = [("1", Interval(0.5, 0.4, 0.6, 9)), ("2", Interval(0.6, None, None, 2))]
    svg = curves_svg([(Table("t", "a < $b", [], []), {"<s>": points})])
    assert svg.startswith("<svg")
    assert not any(part in svg for part in ("<script", "<image", "<metadata", "currentColor", INK))
    assert "a &lt; $b" in svg
    assert svg == curves_svg([(Table("t", "a < $b", [], []), {"<s>": points})])


def test_runs_of_the_paper_have_answers_and_pictures() -> None:
    run = load_run(ROOT / "results" / "reference" / "paper" / "coverage")
    page = render_report([run])
    assert page.count("<svg") == len(run.figures()) > 0
    assert all(str(escape(answer.text)) in page for answer in run.answers())
    assert "#000000" not in page[page.index("<svg") :]  # ink of the page, on dark paper too


def test_a_report_is_written_into_its_run(
    tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (shutil.copytree(tiny.path, tmp_path / name) for name in ("one", "two"))
    monkeypatch.chdir(tmp_path)
    assert invoke(["report", "one"]) == 0
    assert "one/report.html" in capsys.readouterr().out
    assert (one / "report.html").is_file()
    assert not (tmp_path / "report.html").exists()
    assert invoke(["verify", "one"]) == 0
    assert invoke(["report", "one", "two"]) == 0
    assert (tmp_path / "report.html").is_file()
    assert not (two / "report.html").exists()
