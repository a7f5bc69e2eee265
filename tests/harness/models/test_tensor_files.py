"""Headers of safetensors files: what they say is read without loading anything, and checked against the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness.core.errors import UsageError
from harness.models.tensor_files import (
    BITS,
    INDEX,
    SINGLE,
    Tensor,
    few,
    listed,
    no_safetensors,
    parse_json,
    read_folder,
    read_header,
    shown,
)

ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def write(path: Path, header: Any, data: int = 24, length: int | None = None) -> Path:
    """A file with this header and so many bytes of data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data))
    return path


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int8", "uint8", "bool"])
def test_a_header_is_that_of_the_library_that_wrote_it(dtype: str, tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    tensors = {"b": torch.ones(2, 3, dtype=kind), "a": torch.ones((), dtype=kind), "none": torch.ones(0, 4, dtype=kind)}
    save_file(tensors, tmp_path / SINGLE, metadata={"format": "pt"})
    found = read_header(tmp_path / SINGLE)
    assert {name: one.shape for name, one in found.items()} == {"a": (), "b": (2, 3), "none": (0, 4)}
    assert [found[name].size for name in ("a", "b", "none")] == [1, 6, 0]
    assert {BITS[one.dtype] for one in found.values()} == {tensors["a"].element_size() * 8}
    assert read_folder(tmp_path) == found


@pytest.mark.parametrize(
    ("header", "data", "length", "reason"),
    [
        ({"a": ENTRY}, 23, None, "its tensors take 24 bytes of data, it has 23: it is cut off or changed"),
        ({"a": ENTRY}, 25, None, "its tensors take 24 bytes of data, it has 25"),
        ({"a": ENTRY}, 24, 10**6, "are too few for a header of 1,000,000 bytes: it is cut off, or no safetensors"),
        ({"a": ENTRY}, 24, 2**63, "are too few for a header of"),
        ({"a": {**ENTRY, "shape": [2, 4]}}, 24, None, "[2, 4] and type F32 needs 32 bytes, its offsets give 24"),
        ({"a": {**ENTRY, "dtype": "F33"}}, 24, None, "tensor a has the unknown type 'F33'"),
        ({"a": {**ENTRY, "dtype": 4}}, 24, None, "tensor a has the unknown type 4"),
        ({"a": {**ENTRY, "shape": [-2, -3]}}, 24, None, "tensor a has shape [-2, -3]"),
        ({"a": {**ENTRY, "shape": [2.0, 3]}}, 24, None, "tensor a has shape [2.0, 3]"),
        ({"a": {**ENTRY, "shape": [True, 6]}}, 24, None, "tensor a has shape [True, 6]"),
        ({"a": {**ENTRY, "shape": [1] * 65}}, 24, None, "tensor a has shape [1, 1"),
        ({"a": {**ENTRY, "data_offsets": [24, 0]}}, 24, None, "its offsets give -24"),
        ({"a": {**ENTRY, "data_offsets": [0, 12, 24]}}, 24, None, "tensor a has data_offsets [0, 12, 24]"),
        ({"a": ENTRY, "b": ENTRY}, 24, None, "tensor b starts at byte 0 of the data, expected 24"),
        ({"a": {**ENTRY, "data_offsets": [4, 28]}}, 28, None, "tensor a starts at byte 4 of the data, expected 0"),
        ({"a": {"dtype": "F32", "shape": [1]}}, 4, None, "does not have exactly dtype, shape and data_offsets"),
        ({"a": {**ENTRY, "more": 1}}, 24, None, "does not have exactly dtype, shape and data_offsets"),
        ({"a": [1]}, 24, None, "does not have exactly"),
        ({"a": ENTRY, "__metadata__": []}, 24, None, "its __metadata__ is not a mapping"),
        (b'{"a": 1, "a": 2}', 24, None, "a is there twice"),
        (b"[]", 0, None, "it is a list, not a mapping"),
        (b"\xff", 0, None, "not UTF-8"),
        (b"[" * 100_000, 0, None, "nested too deeply"),
    ],
)  # fmt: skip
def test_a_header_that_contradicts_itself_or_the_file(
    header: Any, data: int, length: int | None, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path / SINGLE, header, data, length)
    with pytest.raises(UsageError) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path}: no usable safetensors file: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"1234567")
    for name, reason in (("gone", "no such file"), (".", "no such file"), ("short", "7 bytes are too few")):
        with pytest.raises(UsageError, match=reason):
            read_header(tmp_path / name)


def indexed(folder: Path, placed: Any, files: dict[str, list[str]]) -> Path:
    for file, names in files.items():
        entries = {name: {**ENTRY, "data_offsets": [24 * i, 24 * i + 24]} for i, name in enumerate(names)}
        write(folder / file, entries, 24 * len(names))
    (folder / INDEX).write_text(json.dumps({"weight_map": placed}))
    return folder


def test_weights_in_several_files(tmp_path: Path) -> None:
    one, two = "m-1.safetensors", "m-2.safetensors"
    found = read_folder(indexed(tmp_path, {"a": one, "b": two, "c": two}, {one: ["a"], two: ["b", "c"]}))
    assert found == {
        name: Tensor(tmp_path / file, "F32", (2, 3)) for name, file in zip("abc", (one, two, two), strict=True)
    }


@pytest.mark.parametrize(
    ("placed", "reason"),
    [
        ({"a": "m-1.safetensors", "b": "m-2.safetensors"}, "c is in m-2.safetensors; model.safetensors.index"),
        ({"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}, "has it in m-1.safetensors"),
        ({"a": "m-1.safetensors", "x": "m-1.safetensors"}, "names x, which m-1.safetensors does not hold"),
        ({"a": "m-3.safetensors"}, "no such file"),
        ({"a": "m-1.safetensors", "z": "m-4.safetensors"}, "tensor a is in m-1.safetensors and in m-4.safetensors"),
        ({"a": "../m-1.safetensors"}, "is no name of a safetensors file beside it"),
        ({"a": "/etc/passwd"}, "is no name of a safetensors file beside it"),
        ({"a": "m.bin"}, "m.bin is no name of a safetensors file beside it"),
        ({"a": "..\\m.safetensors"}, "is no name of a safetensors file beside it"),
        ({"a": 1}, "weight_map is no mapping of tensors to files"),
        ({}, "weight_map is no mapping"),
        ([], "weight_map is no mapping"),
    ],
)  # fmt: skip
def test_an_index_that_does_not_fit_its_files(placed: Any, reason: str, tmp_path: Path) -> None:
    files = {"m-1.safetensors": ["a"], "m-2.safetensors": ["b", "c"], "m-4.safetensors": ["a", "z"]}
    with pytest.raises(UsageError) as caught:
        read_folder(indexed(tmp_path, placed, files))
    assert reason in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["pytorch_model.bin"], "pytorch_model.bin may run code when it is read and is not opened"),
        (["a.gguf"], "convert a.gguf with"),
        (["adapter.safetensors"], "it has adapter.safetensors: save it with save_pretrained"),
        ([], "no *.safetensors; save it with save_pretrained"),
    ],
)
def test_a_folder_without_weights_says_what_to_do(files: list[str], reason: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert reason in no_safetensors(tmp_path)
    with pytest.raises(UsageError, match=r"^/.*safetensors"):
        read_folder(tmp_path)


def test_names_out_of_files_are_shown_safely() -> None:
    assert shown("model.layers.0.weight") == "model.layers.0.weight"
    assert shown("a\nb\x1b[31m") == r"'a\nb\x1b[31m'"
    assert shown("é") == r"'\xe9'"
    assert len(shown("x" * 10_000)) == 100
    assert few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert listed(["a b"]) == "'a b'"
    with pytest.raises(ValueError, match=r"^it is not valid JSON: "):
        parse_json(b'{"a": NaNs}')
