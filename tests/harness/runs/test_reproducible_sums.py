"""Products of matrices are equal to the last bit wherever their arrays lie in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PLACES = """
import numpy as np, torch
torch.set_num_threads(1)
rng = np.random.default_rng(0)
a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 64), (64, 64)))

def placed(x, place):  # so many numbers behind an address that 64 bytes divide
    room = np.empty(x.size + 32, np.float32)
    first = -(room.ctypes.data // 4) % 16 + place
    view = room[first : first + x.size].reshape(x.shape)
    view[...] = x
    return torch.from_numpy(view)

found = {torch.nn.functional.linear(placed(a, k), placed(b, k)).numpy().tobytes() for k in range(16)}
print(len(found))
"""


def results(first: str, **environment: str) -> int:
    """How many different products a process gets that starts with the line `first`."""
    kept = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run(
        [sys.executable, "-c", first + PLACES],
        env={**kept, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize("instructions", ["SSE4_2", "AVX2", "AVX512"])
def test_products_do_not_depend_on_where_arrays_lie(instructions: str) -> None:
    assert results("import harness", MKL_ENABLE_INSTRUCTIONS=instructions) == 1


def test_without_the_mode_they_would() -> None:
    import torch

    if not torch.backends.mkl.is_available() or results("", MKL_ENABLE_INSTRUCTIONS="SSE4_2") == 1:
        pytest.skip("no MKL here whose sums depend on places")
    assert results("import harness", MKL_ENABLE_INSTRUCTIONS="SSE4_2") == 1


def test_what_the_user_has_set_stays() -> None:
    line = "import harness, os; assert os.environ['MKL_CBWR'] == 'COMPATIBLE'"
    assert results(line, MKL_CBWR="COMPATIBLE") == 1
