"""`ccmc models train`: texts of files and runs, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.cli.app import invoke

SMALL = ["--dimension", "16", "--heads", "1", "--mlp", "0", "--vocabulary", "260", "--context", "32", "--steps", "3"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(f"Number {i} is a number like {i + 1}." for i in range(40)), encoding="utf-8")
    return file


def test_a_model_of_a_file(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made"
    assert invoke(["models", "train", str(folder), "--texts", str(texts), *SMALL]) == 0
    said = capsys.readouterr().out
    assert "bigram" in said
    assert "all steps were made" in " ".join(said.split())
    assert (folder / "model.safetensors").exists()
    assert invoke(["models", "train", str(folder), "--texts", str(texts), *SMALL]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--heads", "3", "--dimension", "16"], "no multiple of --heads 3"),
        (["--positions", "rotery"], "rotary"),
        (["--texts", "nowhere.txt"], "no such file"),
        (["--vocabulary", "5000"], "lower it"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    given: list[str], message: str, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[Any]
) -> None:
    arguments = ["models", "train", str(tmp_path / "made"), *([] if "--texts" in given else ["--texts", str(texts)])]
    assert invoke([*arguments, *SMALL, *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "made").exists()


def test_few_texts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "few.txt"
    file.write_text("one\n\ntwo", encoding="utf-8")
    assert invoke(["models", "train", str(tmp_path / "made"), "--texts", str(file), *SMALL]) == 2
    assert "at least 20 texts" in capsys.readouterr().err
