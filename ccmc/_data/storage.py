"""Chains on disk: named arrays in a safetensors file that says what kind of chain they are."""

from __future__ import annotations

from os import PathLike

import numpy as np

from ccmc._data.types import FloatArray


def save_tensors(path: str | PathLike[str], kind: str, tensors: dict[str, FloatArray]) -> None:
    """Write named arrays as a safetensors file that says what kind of chain they are."""
    from safetensors.numpy import save_file

    save_file(tensors, path, metadata={"format": "ccmc", "kind": kind, "version": "1"})


def load_tensors(path: str | PathLike[str], kind: str, names: tuple[str, ...]) -> dict[str, FloatArray]:
    """Read the named arrays of a chain of the given kind; ValueError where the file is something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            found = (file.metadata() or {}).get("kind")
            if found != kind:
                raise ValueError(f"{path}: expected a stored {kind}, found {found or 'no chain of this package'}")
            missing = [name for name in names if name not in file.keys()]  # noqa: SIM118 - not a mapping
            if missing:
                raise ValueError(f"{path}: the tensor {missing[0]!r} is missing")
            return {name: np.asarray(file.get_tensor(name)) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error
