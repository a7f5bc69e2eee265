"""Every kernel says whether its sums may be reordered: else it has the leave of whoever calls it first in a process."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def silent(text: str) -> list[int]:
    """Lines of decorators that compile and do not name `fastmath`; inlined functions always have their caller's."""
    found = []
    for node in ast.walk(ast.parse(text)):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name.rpartition(".")[2] not in {"njit", "jit", "vectorize", "guvectorize"}:
            continue
        assert isinstance(node, ast.Call)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if "fastmath" not in given and given.get("inline") != "'always'":
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
    assert silent("@numba.njit(inline='always')\ndef f(x): ...") == []
