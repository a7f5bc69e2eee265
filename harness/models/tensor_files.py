"""What safetensors files say about themselves: names, types and shapes of tensors, read from the headers alone.

Headers are checked against the file before anything is loaded, so that a truncated or hostile file ends in one line.

Source: the safetensors format, https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UsageError, one_line

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LARGEST_HEADER = 100_000_000  # bytes, as the format says
LARGEST_JSON = 32_000_000  # bytes of an index or a config; the largest published ones have less than a tenth of that
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6,
    "F4": 4, "I64": 64, "U64": 64, "I32": 32, "U32": 32, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "C64": 64,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types of weights that become float32 without a quantisation of their own."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        file: that holds it.
        dtype: as the format writes it, such as F32.
        shape: of the tensor.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def shown(name: str) -> str:
    """A name out of a file as messages show it: quoted where it is not plain, and cut."""
    cut = name if len(name) <= 100 else f"{name[:97]}..."
    return cut if cut.isascii() and cut.isprintable() and " " not in cut else ascii(cut)


def few(texts: Sequence[str], most: int = 3) -> str:
    """The first few of some texts and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def listed(names: Sequence[str]) -> str:
    """The first few of some names out of a file, as messages show them, and how many more there are."""
    return few([shown(name) for name in names])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{shown(next(n for n in names if names.count(n) > 1))} is there twice")
    return found


def parse_json(data: bytes) -> dict[str, Any]:
    """A mapping out of untrusted JSON, without a key that is there twice.

    Raises:
        ValueError: it is none; one line says why.
    """
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except ValueError as error:
        raise ValueError(f"it is not valid JSON: {one_line(error)[:120]}") from None
    if not isinstance(found, dict):
        raise ValueError(f"it is a {type(found).__name__}, not a mapping")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file of a model folder.

    Raises:
        UsageError: no such file, one that cannot be read, is too large, or holds no mapping.
    """
    try:
        if not path.is_file():
            raise ValueError("no such file")
        if (size := path.stat().st_size) > LARGEST_JSON:
            raise ValueError(f"{size:,} bytes are too many for a JSON file of a model")
        return parse_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def _entry(name: str, entry: Any, path: Path) -> tuple[int, int, Tensor]:
    """First and last byte of a tensor, and what it is."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {shown(name)} does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"tensor {shown(name)} has the unknown type {ascii(dtype)[:40]}")
    for what, numbers in (("shape", shape), ("data_offsets", offsets)):
        whole = isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
        if not whole or len(numbers) > 64 or (what == "data_offsets" and len(numbers) != 2):
            raise ValueError(f"tensor {shown(name)} has {what} {ascii(numbers)[:60]}")
    start, end = offsets
    bits = math.prod(shape) * BITS[dtype]
    if (end - start) * 8 != bits:
        raise ValueError(
            f"tensor {shown(name)} of shape {ascii(shape)[:60]} and type {dtype} needs {bits // 8:,} bytes, "
            f"its offsets give {end - start:,}"
        )
    return start, end, Tensor(path, dtype, tuple(shape))


def _header(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LARGEST_HEADER):
            raise ValueError(
                f"{size:,} bytes are too few for a header of {length:,} bytes: it is cut off, or no safetensors"
            )
        header = parse_json(file.read(length))
    about = header.pop("__metadata__", {})
    if not isinstance(about, dict):
        raise ValueError("its __metadata__ is not a mapping")
    entries = {name: _entry(name, entry, path) for name, entry in header.items()}
    place = 0
    for name in sorted(entries, key=lambda one: entries[one][:2]):
        if entries[name][0] != place:
            raise ValueError(
                f"tensor {shown(name)} starts at byte {entries[name][0]:,} of the data, expected {place:,}"
            )
        place = entries[name][1]
    if place != size - 8 - length:
        raise ValueError(
            f"its tensors take {place:,} bytes of data, it has {size - 8 - length:,}: it is cut off or changed"
        )
    return {name: tensor for name, (_, _, tensor) in entries.items()}


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file by name. Reads no data.

    Raises:
        UsageError: the file is missing, cut off, or its header contradicts itself or the file.
    """
    try:
        if not path.is_file():
            raise ValueError("no such file")
        return _header(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: no usable safetensors file: {error}") from None


def read_index(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder whose weights lie in several files.

    Raises:
        UsageError: the index names a file that is not there or not beside it, or a tensor that is not in its file or in
            two; a file holds a tensor that the index does not name.
    """
    index = read_json(folder / INDEX)
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(file, str) for file in placed.values()):
        raise UsageError(f"{folder / INDEX}: weight_map is no mapping of tensors to files")
    found: dict[str, Tensor] = {}
    for file in sorted(set(placed.values())):
        if Path(file).name != file or not file.endswith(".safetensors") or "\\" in file or not file.isprintable():
            raise UsageError(f"{folder / INDEX}: {shown(file)} is no name of a safetensors file beside it")
        inside = read_header(folder / file)
        for name in inside:
            if name in found:
                raise UsageError(f"{folder}: tensor {shown(name)} is in {found[name].file.name} and in {file}")
            if placed.get(name) != file:
                said = f"in {shown(placed[name])}" if name in placed else "nowhere"
                raise UsageError(f"{folder}: tensor {shown(name)} is in {file}; {INDEX} has it {said}")
        found |= inside
    if absent := sorted(set(placed) - set(found)):
        raise UsageError(f"{folder}: {INDEX} names {listed(absent)}, which {shown(placed[absent[0]])} does not hold")
    return found


def read_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors that the weights of a model folder consist of, by name.

    Args:
        folder: with model.safetensors, or with an index and the files that it names.

    Raises:
        UsageError: the folder has neither, or its files are not usable.
    """
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if (folder / INDEX).is_file():
        return read_index(folder)
    raise UsageError(f"{folder}: {no_safetensors(folder)}")


def no_safetensors(folder: Path) -> str:
    """Why a folder without usable safetensors cannot be read, and what to do."""
    others = sorted(file.name for file in folder.iterdir() if file.name.endswith(".safetensors"))
    if others:
        return f"no {SINGLE} and no {INDEX}; it has {listed(others)}: save it with save_pretrained"
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"})
    if pickles:
        return (
            f"no *.safetensors; {listed(pickles)} may run code when it is read and is not opened: convert it where you "
            "trust it, with AutoModelForCausalLM.from_pretrained(folder).save_pretrained(other)"
        )
    ggufs = sorted(file.name for file in folder.iterdir() if file.suffix == ".gguf")
    if ggufs:
        return (
            f"no *.safetensors; convert {shown(ggufs[0])} with AutoModelForCausalLM.from_pretrained(folder, "
            "gguf_file=..., dtype=torch.float32).save_pretrained(other)"
        )
    return "no *.safetensors; save it with save_pretrained"
