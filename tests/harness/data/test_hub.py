"""Models by revision: out of the hub's cache without a network, and checkpoints below a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small_models
import yaml

from harness.cli.app import invoke
from harness.core.errors import UsageError
from harness.data import hub
from harness.models import catalogue
from harness.runs.run import load_run

COMMITS = {"step2": "f" * 40, "step10": "0" * 40}  # in the order of commits step10 would come first


def quiet(share: float, what: str) -> None: ...


def no_network(*_: Any, local_files_only: bool = False, **__: Any) -> str:
    raise ConnectionError("Got: ConnectError: no route to host An error happened while trying to locate the files")


@pytest.fixture(scope="module")
def checkpoints() -> dict[str, Any]:
    return {name: small_models.llama(2, seed=seed) for seed, name in enumerate(COMMITS)}


@pytest.fixture
def repository(checkpoints: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache as its client lays it out, with two revisions of me/tiny, on a machine that is offline."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub" / "models--me--tiny"
    (folder / "refs").mkdir(parents=True)
    for name, commit in COMMITS.items():
        small_models.save(checkpoints[name], folder / "snapshots" / commit)
        (folder / "refs" / name).write_text(commit)
    (folder / "refs" / "main").write_text(COMMITS["step10"])
    return folder


def config(folder: Path, models: list[str]) -> Path:
    texts = small_models.random_texts(8, 30)
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    heads = {"kind": "heads", "surrogates": ["counts", "ccmc-weights"], "texts": {"dataset": "d.jsonl"}}
    (folder / "c.yaml").write_text(yaml.safe_dump({"name": "sweep", "models": models, "experiments": [heads]}))
    return folder / "c.yaml"


def test_a_sweep_over_revisions_without_a_network(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["me/tiny@step10", "me/tiny@step2"]
    run = tmp_path / "run"
    assert invoke(["run", str(config(tmp_path, names)), "--out", str(run)]) == 0
    rows = pd.read_parquet(run / "rows.parquet")
    assert set(zip(rows["model"], rows["revision"], strict=True)) == {
        (name, COMMITS[name.partition("@")[2]]) for name in names
    }
    manifest = json.loads((run / "manifest.json").read_text())
    assert [model["revision"] for model in manifest["models"]] == [COMMITS["step10"], COMMITS["step2"]]
    capsys.readouterr()
    assert invoke(["revisions", str(run), "--format", "markdown"]) == 0
    shown = [line.split("|")[2].strip() for line in capsys.readouterr().out.splitlines() if "| ccmc-weights" in line]
    assert shown == ["step2", "step10"]
    export = ["export", str(run), "--head", "1.2", "--surrogate", "ccmc-weights", "--model", names[0]]
    (repository / "refs" / "step10").write_text(COMMITS["step2"])  # the branch moves on; the run remembers the commit
    assert invoke([*export, "-o", str(tmp_path / "x.safetensors")]) == 0
    tokens = json.loads((tmp_path / "x.tokens.json").read_text())["tokens"]
    assert {token["text"].strip() for token in tokens} <= {*small_models.WORDS, "[UNK]"}
    assert invoke(["attention", str(run), "-o", str(tmp_path / "a.html")]) == 0
    assert "w1 " in (tmp_path / "a.html").read_text()


def test_a_revision_that_is_not_there_names_those_that_are(repository: Path) -> None:
    with pytest.raises(UsageError, match=r"'me/tiny@step9': no such folder here.*its cache has main, step10, step2$"):
        catalogue.resolve("me/tiny@step9", quiet)
    with pytest.raises(UsageError, match="'me/other': no such folder here, and the hub did not give it"):
        catalogue.resolve("me/other", quiet)


def test_a_commit_in_the_cache_needs_no_hub(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    original = huggingface_hub.snapshot_download

    def local(*arguments: Any, local_files_only: bool = False, **options: Any) -> Any:
        assert local_files_only, "the hub was asked"
        return original(*arguments, local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", local)
    found = catalogue.resolve(f"me/tiny@{COMMITS['step2']}", quiet)
    assert (found.path.name, found.revision) == (COMMITS["step2"], COMMITS["step2"])


def test_no_route_is_told_in_short(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(UsageError, match="the hub did not give it: ConnectError: no route to host; its cache has main"):
        hub.fetch("me/tiny@step9")


def test_half_a_download_is_no_model(repository: Path) -> None:
    snapshot = repository / "snapshots" / COMMITS["step2"]
    (snapshot / hub.INDEX).write_text(
        json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
    )
    assert hub.cached("me/tiny", "step2") is None
    with pytest.raises(UsageError, match=r"'me/tiny@step2': model-2\.safetensors is not in .*fetch the model again"):
        hub.fetch("me/tiny@step2")
    (snapshot / hub.INDEX).unlink()
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"\*\.safetensors is not in"):
        hub.fetch("me/tiny@step2")


@pytest.fixture
def below(checkpoints: dict[str, Any], tmp_path: Path) -> Path:
    for name, model in checkpoints.items():
        small_models.save(model, tmp_path / "mine" / name)
    return tmp_path


def test_checkpoints_below_a_folder(below: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = below / "run"  # the folder is told from the config, which is not in the current one
    assert invoke(["run", str(config(below, ["mine@step2", "mine@step10"])), "--out", str(run)]) == 0
    rows = load_run(run).rows
    assert dict(zip(rows["model"], rows["revision"], strict=True)) == {"mine@step2": "step2", "mine@step10": "step10"}
    capsys.readouterr()
    assert invoke(["revisions", str(run), "--format", "markdown"]) == 0
    assert "mine, heads text: explained over revisions" in capsys.readouterr().out
    export = ["export", str(run), "--head", "0.1", "--surrogate", "ccmc-weights", "--model", "mine@step2"]
    assert invoke([*export, "-o", str(tmp_path / "x.safetensors")]) == 0
    (below / "mine").rename(below / "elsewhere")
    capsys.readouterr()
    assert invoke([*export, "-o", str(tmp_path / "y.safetensors")]) == 2
    errors = capsys.readouterr().err
    assert f"the folder of the model 'mine@step2' is gone ({below / 'mine' / 'step2'})" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (lambda folder: f"{folder}/mine@step3", "has no checkpoint 'step3' as a subfolder; did you mean 'step2'"),
        (lambda folder: f"{folder}/mine/step2@x", "has no checkpoint 'x' as a subfolder; it has none"),
        (lambda folder: "smollm2-135m@v1", "the alias smollm2-135m has one revision only; leave @v1 out"),
        (lambda folder: "nothing@x", "unknown model 'nothing@x'"),
    ],
)
def test_revisions_that_lead_nowhere(name: Callable[[Path], str], message: str, below: Path) -> None:
    with pytest.raises(UsageError) as caught:
        catalogue.resolve(name(below), quiet)
    assert message in str(caught.value)
