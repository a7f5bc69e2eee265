"""What rows say is put together from the experiments; one that is broken loses its own part only."""

from __future__ import annotations

import errno
from pathlib import Path

import pandas as pd
import pytest
from made_up import Talks, declare, write_run

from harness.core.errors import StorageError
from harness.runs import reading
from harness.runs.run import load_run


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    declare(monkeypatch.setattr)
    return load_run(write_run(tmp_path / "run")).rows


def test_each_experiment_reads_its_own_rows(rows: pd.DataFrame) -> None:
    talks, fails = reading.read(rows)
    assert (talks.kind, len(talks.answers), len(talks.tables), talks.problems) == ("talks", 2, 3, ())
    assert talks.answers[1].text.startswith("fit explains 5 ")  # five of the ten rows
    assert talks.headline is not None
    assert talks.headline.name == "talks.small"
    assert (fails.answers, fails.tables, len(fails.problems), fails.headline) == ((), (), 2, None)
    assert reading.read(rows[rows["experiment"] == "nothing"]) == []


@pytest.mark.parametrize("folder", ["smoke", "generation/count-ablation"])
def test_texts_read_as_categories_are_the_same_texts(folder: str) -> None:
    run = load_run(Path("results/reference") / folder)
    known, found = reading.split(run.rows), run.split
    assert [kind for kind, _ in found] == [kind for kind, _ in known]
    for (_, one), (_, other) in zip(known, found, strict=True):
        pd.testing.assert_frame_equal(one, other)
        assert one["metric"].map(type).eq(str).all()


def test_what_fails_is_a_warning(rows: pd.DataFrame) -> None:
    with pytest.warns(UserWarning, match="fails: its answers cannot be made"):
        assert len(reading.answers(rows)) == 2
    with pytest.warns(UserWarning, match="fails: its tables cannot be made"):
        assert len(reading.tables(rows)) == 3
    with pytest.warns(UserWarning, match="fails: its figures cannot be made of these rows: RuntimeError: no picture"):
        assert len(reading.figures(rows, pd.DataFrame())) == 2


def test_figures_are_the_same_bytes_every_time(rows: pd.DataFrame, tmp_path: Path) -> None:
    figures = Talks().figures(rows, pd.DataFrame())
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with pytest.warns(UserWarning, match="figure broken cannot be drawn: nothing to draw"):
            (path,) = reading.write_figures(tmp_path / name, figures)
        assert path == tmp_path / name / "plots" / "talks-of-a-x.svg"
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert b"<dc:date>" not in written[0]


def test_a_full_disk_is_an_error_and_leaves_the_old_figure(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = Talks().figures(rows, pd.DataFrame())[:1]
    (path,) = reading.write_figures(tmp_path, figures)
    before = path.read_bytes()

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StorageError, match=r"talks-of-a-x\.svg: no space is left on the disk; make room"):
        reading.write_figures(tmp_path, figures)
    assert [file.read_bytes() for file in path.parent.iterdir()] == [before]
