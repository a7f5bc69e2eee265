"""The examples of `ccmc/README.md` run, and it leaves no public name or file out."""

import re
from pathlib import Path

import numpy as np
import pytest

import ccmc

FOLDER = Path(ccmc.__file__).parent
README = (FOLDER / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """The names that all examples together define."""
    monkeypatch.chdir(tmp_path)
    defined = {}
    for example in EXAMPLES:
        exec(compile(example, "README.md", "exec"), defined)
    return defined


def test_every_example_runs_and_says_what_its_comments_say(names):
    np.testing.assert_allclose(ccmc.normalised([0.0, 0.0, 1.0], counts=[2, 1, 0]), [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(ccmc.log_normalised([[0.0, -2000.0]]), [[0, -2000]])
    np.testing.assert_allclose(ccmc.log_sums([0.0, 0.0, 5.0], starts=np.array([0, 2])), [np.log(2), 5])
    known = names["known"]
    assert not known.identified
    assert not known.mle_exists
    assert known.components[0] == [[0, 1], [2]]
    assert known.diverging == [(0, 0), (2, 1)]
    assert names["paths"].shape == (2, 50)
    assert names["fit"].converged
    assert names["bilinear"].converged
    assert names["spread"].converged
    assert names["heads"].converged.all()


def test_every_public_name_is_imported_by_an_example(names):
    assert [name for name in ccmc.__all__ if name not in names] == []


def test_every_public_file_and_private_module_is_described():
    public = {path.name for path in FOLDER.glob("*.py")} - {"__init__.py"}
    assert public == set(re.findall(r"^### `(\w+\.py)`", README, flags=re.M))
    private = {path.stem for path in FOLDER.glob("_*/*.py")} - {"__init__"}
    assert [name for name in sorted(private) if f"`{name}`" not in README] == []


def test_functions_of_the_index_exist():
    index = README[README.index("## Formula") : README.index("## Limits")]
    functions = {name for name in re.findall(r"`([\w.]+)`", index) if name[0] != "_"}
    assert len(functions) > 20
    for name in functions:
        place = ccmc
        for part in name.split("."):
            assert hasattr(place, part) or part in getattr(place, "__annotations__", {}), name
            place = getattr(place, part, None)
