"""Rooms import downwards only, experiments never import each other, and no import closes a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "core", "stats", "config", "runs", "data", "models", "attention", "measures", "surrogates", "hf",
    "experiments", "analysis", "report", "cli",
)  # fmt: skip
"""From the lowest to the highest, as in harness/README.md."""
SHARED = {"_shared", "experiment", "run", "estimating"}
ABOVE = {"run", "estimating"}
"""What every experiment may import of its own room."""


def modules(root: Path) -> dict[str, Path]:
    """Module name -> file, of the package `harness` below a folder."""
    files = sorted((root / "harness").rglob("*.py"))
    return {".".join(f.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports(file: Path, known: set[str]) -> Iterator[str]:
    """Modules of `harness` that a file imports anywhere: at the top, inside functions, for types only."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "harness")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            if node.module and node.module.split(".")[0] == "harness":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in known else node.module


def climbs(root: Path) -> list[str]:
    """One line for each import that goes up, beside, or out of `core.registry`'s door."""
    known = modules(root)
    found = []
    for name, file in known.items():
        parts = name.split(".")
        if len(parts) < 2:
            continue  # the package itself imports its public names on demand
        if parts[1] not in ROOMS:
            found.append(f"{name} is in no room")
            continue
        for target in imports(file, set(known)):
            room = target.split(".")[1] if "." in target else ""
            if room not in ROOMS:
                found.append(f"{name} imports {target}")
            elif ROOMS.index(room) > ROOMS.index(parts[1]):
                found.append(f"{name} imports {target}, which is above it")
            elif room == parts[1] == "experiments" and not _allowed(parts, target.split(".")):
                found.append(f"{name} imports {target}, another experiment")
    return found


def _allowed(mine: list[str], other: list[str]) -> bool:
    own, theirs = (parts[2] if len(parts) > 2 else "" for parts in (mine, other))
    if own in SHARED:
        return theirs in SHARED
    return theirs in SHARED - ABOVE or own == theirs


def circles(root: Path) -> list[list[str]]:
    """Groups of modules that import each other, directly or not."""
    known = modules(root)
    graph = {name: {t for t in imports(file, set(known)) if t in known and t != name} for name, file in known.items()}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_imports_go_down_only() -> None:
    assert climbs(ROOT) == []


def test_no_import_closes_a_circle() -> None:
    assert circles(ROOT) == []


def test_every_room_is_there_and_says_what_it_is_for() -> None:
    for room in ROOMS:
        text = (ROOT / "harness" / room / "__init__.py").read_text(encoding="utf-8")
        about = ast.get_docstring(ast.parse(text))
        assert about is not None, room
        assert len(about.splitlines()) <= 10, room
    assert {p.name for p in (ROOT / "harness").iterdir() if p.suffix == ".py"} == {"__init__.py"}


@pytest.mark.parametrize(
    ("module", "line", "message"),
    [
        ("stats/pooling", "from harness.analysis import pivot", "above it"),
        ("runs/units", "def f():\n    from harness.experiments.heads import units", "above it"),
        ("experiments/heads/units", "import harness.experiments.generation.units", "another experiment"),
        ("experiments/_shared/parts", "from harness.experiments.heads.units import x", "another experiment"),
        ("attic/old", "", "in no room"),
        ("report/page", "from harness.attic import old", "imports harness.attic"),
    ],
)
def test_a_climb_is_found(tmp_path: Path, module: str, line: str, message: str) -> None:
    """The check can fail: each kind of climb, added to a tree of empty rooms, is named."""
    for room in ROOMS:
        (tmp_path / "harness" / room).mkdir(parents=True)
    file = tmp_path / "harness" / f"{module}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    assert climbs(tmp_path) == []
    file.write_text(line + "\n")
    (found,) = climbs(tmp_path)
    assert message in found


def test_a_circle_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "harness" / "stats"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("from harness.stats import b\n")
    (folder / "b.py").write_text("def f():\n    from harness.stats.c import g\n")
    (folder / "c.py").write_text("g = 1\n")
    assert circles(tmp_path) == []
    (folder / "c.py").write_text("import harness.stats.a\n")
    assert circles(tmp_path) == [["harness.stats.a", "harness.stats.b", "harness.stats.c"]]
