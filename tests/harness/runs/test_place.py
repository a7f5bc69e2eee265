"""Where units are done: options that cannot be are one line, before anything else happens."""

from __future__ import annotations

import pytest

from harness.cli.app import invoke
from harness.core.errors import UsageError
from harness.runs.execution import Place


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--workers", "0"], "--workers 0: give a number from 1 to"),
        (["--workers", "-1"], "--workers -1: give a number from 1 to"),
        (["--workers", "1000000"], "--workers 1000000: give a number from 1 to"),
        (["--workers", "two"], "--workers"),
        (["--executor", "proceses"], "--executor 'proceses'; did you mean 'processes'?"),
        (["--executor", ""], "--executor ''"),
        (["--executor", "serial", "--workers", "2"], "serial does one unit at a time"),
        (["--address", "auto"], "--address 'auto' is for --executor ray"),
        (["--executor", "processes", "--storage", "s3://bucket/run"], "--storage 's3://bucket/run' is for --executor"),
    ],
)
def test_options_that_cannot_be(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "quickstart", *options]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert len(errors.strip().splitlines()) == 1


def test_local_is_serial_for_one_worker_and_processes_for_more() -> None:
    assert Place().serial
    assert Place("local", 1).serial
    assert Place("serial").serial
    assert not Place("local", 2).serial
    assert not Place("processes", 1).serial
    with pytest.raises(UsageError):
        Place("thread")
