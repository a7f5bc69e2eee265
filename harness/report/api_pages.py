"""The reference of the public names and the tutorial as HTML, made by pdoc from docstrings."""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path

from harness.core.errors import UsageError

MODULES = ("ccmc", "harness", "harness.attention", "harness.hf")
"""What is public; everything else is read where it stands."""


def write_api(folder: Path) -> list[Path]:
    """Write the pages.

    Args:
        folder: is made where it is not there.

    Returns:
        The files of the modules.

    Raises:
        UsageError: pdoc is not installed, or warns of something: a docstring that cannot be read, a missing name.
    """
    try:
        import pdoc
    except ImportError:
        raise UsageError("docs --api needs pdoc: pip install 'ccmc-harness[docs]'") from None
    for module in map(import_module, MODULES):
        for name in getattr(module, "__all__", ()):
            getattr(module, name, None)  # what is imported on demand has to be there to be described
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc(*MODULES, output_directory=folder)
    said = [str(one.message) for one in caught if "pdoc" in one.filename]
    if said:
        raise UsageError(f"docs --api: pdoc warns: {said[0]}" + (f" ({len(said)} warnings)" if len(said) > 1 else ""))
    return [folder / f"{name.replace('.', '/')}.html" for name in MODULES]
