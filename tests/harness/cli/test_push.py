"""`ccmc push`: what is pushed, and that it gets there, against a stand-in of the hub's HTTP interface."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import harness
from harness.cli.app import invoke
from harness.report.dataset_card import card

ROOT = Path(__file__).resolve().parents[3]
RUN = ROOT / "results" / "reference" / "paper" / "equivalence"
SMOKE = ROOT / "results" / "reference" / "smoke"


class Hub(ThreadingHTTPServer):
    """Takes datasets as the hub does: made, asked how each file goes up, and one commit of all."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization", ""))
        if self.path.endswith("/repos/create"):
            self.server.made.append(json.loads(body))
            self._answer({"url": f"{self._own()}/datasets/me/run"})
        elif self.path.endswith("/validate-yaml"):
            content = json.loads(body)["content"]
            self._answer({"errors": [] if metadata(content)["configs"] else [{"message": "none"}], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._answer({"commitUrl": f"{self._own()}/datasets/me/run/commit/1", "commitOid": "1" * 40})
        else:
            self._answer({"error": "no such address"}, 404)

    def do_GET(self) -> None:
        self._answer({"id": "me/run", "sha": "0" * 40, "siblings": []})

    def _own(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def _answer(self, what: dict[str, Any], code: int = 200) -> None:
        data = json.dumps(what).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def metadata(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---")[1])
    return found


def test_a_run_is_pushed(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["push", str(RUN), "me/run", "--private", "--license", "apache-2.0"]) == 0
    assert "/datasets/me/run" in capsys.readouterr().out
    assert hub.made[0]["name"] == "run"
    assert hub.made[0]["type"] == "dataset"
    assert hub.made[0].get("visibility") == "private" or hub.made[0].get("private") is True
    assert hub.tokens == {"Bearer hf_test"}
    for name in ("rows.parquet", "manifest.json"):
        assert hub.files[name] == (RUN / name).read_bytes()
    assert metadata(hub.files["README.md"].decode())["license"] == "apache-2.0"


def test_what_the_hub_refuses_is_one_line(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.shutdown()
    hub.server_close()
    assert invoke(["push", str(RUN), "me/run"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_without_a_token_nothing_is_pushed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert invoke(["push", str(RUN), "me/run"]) == 0
    said = capsys.readouterr().out
    assert "dry run, nothing is pushed; no token was found" in said
    assert f"me/run/rows.parquet: {(RUN / 'rows.parquet').stat().st_size:,} bytes" in said


def test_a_folder_reads_as_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import load_dataset

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "made"
    assert invoke(["push", str(SMOKE), "me/run", "--folder", str(folder)]) == 0
    rows = load_dataset(str(folder), "rows", split="train", cache_dir=str(tmp_path / "cache")).to_pandas()
    assert len(rows) == len(pd.read_parquet(SMOKE / "rows.parquet"))
    texts = load_dataset(str(folder), "continuations", split="train", cache_dir=str(tmp_path / "cache"))
    assert len(texts) == len(pd.read_parquet(SMOKE / "trajectories.parquet"))
    assert invoke(["push", str(SMOKE), "me/run", "--folder", str(folder)]) == 2
    assert invoke(["push", str(SMOKE), "me/run", "--folder", str(tmp_path / "bare"), "--no-texts"]) == 0
    assert not (tmp_path / "bare" / "trajectories.parquet").exists()


def test_the_card_has_answers_and_results() -> None:
    run = harness.load_run(SMOKE)
    text = card(run)
    about = metadata(text)
    assert about["configs"][0] == {"config_name": "rows", "data_files": "rows.parquet", "default": True}
    results = about["model-index"][0]
    assert results["name"] == "smollm2-135m"
    figures = {m["name"]: m["value"] for m in results["results"][0]["metrics"]}
    known = {a.question: a.estimate.value for a in run.answers() if a.estimate and a.answered and "smollm2" in a.text}
    assert figures
    for question, value in figures.items():
        assert question in known
        assert isinstance(value, float)
    assert str(run.manifest["config_hash"])[:8] in text


@pytest.mark.parametrize(
    ("name", "message"), [("me", "owner/name"), ("me/a b", "owner/name"), ("me/x@y", "owner/name")]
)
def test_names_that_are_none(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["push", str(RUN), name, "--dry-run"]) == 2
    assert message in capsys.readouterr().err
