"""What kernels compute does not depend on what a process did before.

Every kernel says whether its sums may be reordered: else it has the leave of whoever calls it first in a process. Those
whose sums may are part of their callers: else one of several copies, each optimised in its own way, is called.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def silent(text: str) -> list[int]:
    """Lines of decorators that compile and do not name `fastmath`, or reorder sums and stay apart from their callers.

    Functions that numba inlines always have what their caller says.
    """
    found = []
    for node in ast.walk(ast.parse(text)):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name.rpartition(".")[2] not in {"njit", "jit", "vectorize", "guvectorize"}:
            continue
        assert isinstance(node, ast.Call)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        inline = given.get("inline") == "'always'"
        apart = given.get("fastmath", "False") != "False" and given.get("forceinline") != "True"
        if not inline and ("fastmath" not in given or apart):
            found.append(node.lineno)
    bare = [d for node in ast.walk(ast.parse(text)) for d in getattr(node, "decorator_list", [])]
    return found + [d.lineno for d in bare if ast.unparse(d).rpartition(".")[2] in {"njit", "jit"}]


@pytest.mark.parametrize("package", ["ccmc", "harness"])
def test_every_kernel_says_whether_sums_may_be_reordered(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    compiled = [file for file in files if "njit" in file.read_text(encoding="utf-8")]
    assert compiled
    wrong = [f"{file.relative_to(ROOT)}:{line}" for file in compiled for line in silent(file.read_text("utf-8"))]
    assert wrong == []


def test_a_kernel_that_says_nothing_is_found() -> None:
    assert silent("@numba.njit(cache=True)\ndef f(x): ...") == [1]
    assert silent("@njit\ndef f(x): ...") == [1]
    assert silent("@numba.njit(fastmath=False)\ndef f(x): ...") == []
    assert silent("@numba.njit(fastmath={'reassoc'})\ndef f(x): ...") == [1]
    assert silent("@numba.njit(fastmath={'reassoc'}, forceinline=True)\ndef f(x): ...") == []
    assert silent("@numba.njit(inline='always')\ndef f(x): ...") == []


SUMS = """
import numpy as np
from ccmc import BaseTransition
p = np.random.default_rng(0).dirichlet(np.full(2000, 0.2), 300) + 1e-7
base = BaseTransition.from_rows(np.arange(300), p / p.sum(axis=1, keepdims=True), top=64)
print(base.moments(0.7).tobytes().hex())
"""


def test_a_process_that_compiles_gets_the_bits_of_one_that_does_not(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", SUMS], env=environment, cwd=ROOT, capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert list(tmp_path.rglob("*.nbc"))
    assert said[0] == said[1]
