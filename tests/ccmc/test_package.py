import subprocess
import sys

import ccmc


def test_every_public_name_is_there():
    assert all(hasattr(ccmc, name) for name in ccmc.__all__)


def test_importing_loads_nothing_heavy():
    """Numba takes a third of a second and torch several: neither may come with the import."""
    code = "import sys, ccmc; print(sorted({'numba', 'torch', 'transformers', 'harness', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
