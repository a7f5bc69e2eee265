import ast
import subprocess
import sys
from pathlib import Path

import ccmc


def test_every_public_name_is_there():
    assert all(hasattr(ccmc, name) for name in ccmc.__all__)


def test_importing_loads_nothing_heavy():
    """Numba and scipy.optimize take a third of a second each and torch several: none may come with the import."""
    heavy = {"numba", "scipy.optimize", "torch", "transformers", "harness", "pandas"}
    code = f"import sys, ccmc; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_functions_and_files_are_small():
    """At most 60 lines and 8 arguments outside kernels, which take arrays one by one; files at most 400 lines."""
    large = []
    for path in sorted(Path(ccmc.__file__).parent.rglob("*.py")):
        text = path.read_text()
        if text.count("\n") > 400:
            large.append(path.name)
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef) or any("kernel" in ast.unparse(d) for d in node.decorator_list):
                continue
            arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            taken = len([name for name in arguments if name not in ("self", "cls")])
            if node.end_lineno - node.lineno >= 60 or taken > 8:
                large.append(f"{path.name}: {node.name}")
    assert large == []
