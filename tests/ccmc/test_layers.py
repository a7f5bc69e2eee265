"""Imports inside `ccmc`: no circles, private folders never reach up, and nothing of the harness or of torch.

Every import statement counts: those inside functions and those for type checking too.
"""

import ast
from pathlib import Path

import pytest

import ccmc

FORBIDDEN = {"torch", "transformers", "harness"}
# What a private folder may import beside itself. Public files, which lie flat in the package, may import any of them.
BELOW = {"_data": set(), "_fit": {"_data"}, "_sim": {"_data"}, "_logit": {"_data", "_sim"}}


def imports_of(root):
    """{module: modules it imports} of all files of the package at `root`, outside modules by their full names."""
    files = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found = {}
    for module, path in files.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                # `from package import name` is an import of a module where the name is one.
                targets |= {f"{base}.{a.name}" if f"{base}.{a.name}" in files else base for a in node.names}
        found[module] = targets
    return found


def circles(imports):
    """Groups of modules that import one another, in a circle of any length."""
    reach = {module: targets & imports.keys() for module, targets in imports.items()}
    changed = True
    while changed:
        changed = False
        for module, known in reach.items():
            further = known.union(*(reach[other] for other in known))
            changed |= len(further) > len(known)
            reach[module] = further
    within = (frozenset(o for o in reach[m] if m in reach[o]) for m in reach if m in reach[m])
    return sorted({tuple(sorted(group)) for group in within})


def climbs(imports):
    """(module, import) of private folders that import something beside or above them."""
    found = []
    for module, targets in imports.items():
        room = module.split(".")[1] if module.count(".") else ""
        if not room.startswith("_"):
            continue
        package = module.split(".")[0]
        allowed = BELOW.get(room, set()) | {room}
        for target in sorted(targets):
            inside = target.split(".")[0] == package
            if inside and (target == package or target.split(".")[1] not in allowed):
                found.append((module, target))
    return found


def forbidden(imports):
    """(module, import) of packages that `ccmc` must not know."""
    return [(m, t) for m, targets in imports.items() for t in sorted(targets) if t.split(".")[0] in FORBIDDEN]


@pytest.fixture(scope="module")
def package():
    return imports_of(Path(ccmc.__file__).parent)


def test_no_module_imports_itself_through_others(package):
    assert circles(package) == []


def test_private_folders_import_downwards_only(package):
    assert climbs(package) == []
    assert {name.split(".")[1] for name in package if "._" in name} == set(BELOW)


def test_neither_torch_nor_transformers_nor_the_harness_is_imported(package):
    assert forbidden(package) == []


def test_imports_are_seen_at_all(package):
    """Known imports, at the top of a file and inside a function."""
    assert "ccmc.chain" in package["ccmc.fit"]
    assert "ccmc._sim.walk" in package["ccmc.simulate"]
    assert {"numpy", "scipy"} <= package["ccmc.chain"]


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return imports_of(root)


def test_a_circle_is_caught_also_inside_functions_and_by_relative_imports(tmp_path):
    root = tmp_path / "made"
    made = {"__init__.py": "", "a.py": "import made.b\n", "c.py": "from .a import x\n", "d.py": "from made import a\n"}
    assert circles(write(root, made | {"b.py": "import numpy\n"})) == []
    lazily = "def f():\n    from made import c\n"
    assert circles(write(root, made | {"b.py": lazily})) == [("made.a", "made.b", "made.c")]
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import c\n"
    assert circles(write(root, made | {"b.py": typed})) == [("made.a", "made.b", "made.c")]


def test_a_climb_is_caught(tmp_path):
    root = tmp_path / "made"
    low = {"__init__.py": "from made.public import x\n", "_data/__init__.py": "", "_fit/__init__.py": ""}
    fine = low | {"public.py": "from made._fit import solver\n", "_fit/solver.py": "from made._data.rows import y\n"}
    assert climbs(write(root, fine | {"_data/rows.py": "import numpy\n"})) == []
    assert climbs(write(root, {"_data/rows.py": "def f():\n    from made.public import x\n"})) == [
        ("made._data.rows", "made.public")
    ]
    assert climbs(write(root, {"_data/rows.py": "from ..public import x\n"})) == [("made._data.rows", "made.public")]
    assert climbs(write(root, {"_data/rows.py": "from made import x\n"})) == [("made._data.rows", "made")]
    assert climbs(write(root, {"_data/rows.py": "from made._fit import solver\n"})) == [
        ("made._data.rows", "made._fit.solver")
    ]
    assert climbs(write(root, {"_data/rows.py": "", "_new/x.py": "import made._data.rows\n"})) == [
        ("made._new.x", "made._data.rows")
    ]


def test_a_forbidden_package_is_caught(tmp_path):
    made = {"__init__.py": "", "a.py": "def f():\n    import torch.nn\n    from harness.core import rows\n"}
    assert forbidden(write(tmp_path / "made", made)) == [("made.a", "harness.core"), ("made.a", "torch.nn")]
