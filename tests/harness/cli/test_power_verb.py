"""`ccmc power` as it is typed: table, sentence, formats, and one line for wrong use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli.app import invoke
from harness.cli.completion import complete_effect

ROOT = Path(__file__).resolve().parents[3]
RUN = str(ROOT / "results/reference/generation/smollm2")
COUNTS = ["power", RUN, "--strategy", "greedy", "--surrogate", "counts"]


def test_table_and_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([*COUNTS, "--effect", "seq_rep_4=.05"]) == 0
    out = capsys.readouterr().out
    said = " ".join(out.split())
    assert out.startswith("Prompts that find 0.05 in seq_rep_4\n")
    row = next(line for line in out.splitlines() if line.startswith("counts"))
    assert row.split()[1:4] == ["0.364", "0", "18"]
    assert "in no comparison; the least that it could have found is 0.26. Without sampling" in said
    assert "where seeds change nothing, 419 prompts are needed." in said


def test_json_holds_answers_and_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([*COUNTS, "--effect", "seq_rep_4=.05", "--equivalence", "--json"]) == 0
    out = capsys.readouterr().out
    record = json.loads(out)
    assert "agreement within 0.05" in record["answers"][0]["text"]
    assert [table["name"] for table in record["tables"]] == ["power"]
    assert invoke([*COUNTS, "--effect", "seq_rep_4=.05", "--equivalence", "--format", "json"]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        ("seq_rep_4=five", "'five' is no number"),
        ("seq_rep_4=0", "an effect is a number above 0"),
        ("seq_rep_4=-.1", "an effect is a number above 0"),
        ("seq_rep_4=nan", "an effect is a number above 0"),
        ("seq_rep_4", "write it as METRIC=SIZE"),
        ("seq_rep4=.05", "no such metric; did you mean 'seq_rep_4'?"),
        ("kl=.05", "no rows per prompt of it for both a surrogate and the model"),
    ],
)
def test_wrong_effects_end_with_one_line(effect: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([*COUNTS, "--effect", effect]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    (line,) = seen.err.splitlines()
    assert said in line


def test_a_run_without_such_rows_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["power", str(ROOT / "results/reference/paper/coverage"), "--effect", "seq_rep_4=.05"]) == 2
    assert "it has none for any metric" in capsys.readouterr().err


def test_metrics_are_completed_up_to_the_size() -> None:
    names = [name for name, _ in complete_effect("seq_rep_")]
    assert "seq_rep_4=" in names
    assert all(name.endswith("=") for name in names)
