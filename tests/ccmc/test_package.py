import subprocess
import sys

import ccmc


def test_every_public_name_is_there():
    assert all(hasattr(ccmc, name) for name in ccmc.__all__)


def test_importing_loads_nothing_heavy():
    """Numba and scipy.optimize take a third of a second each and torch several: none may come with the import."""
    heavy = {"numba", "scipy.optimize", "torch", "transformers", "harness", "pandas"}
    code = f"import sys, ccmc; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
