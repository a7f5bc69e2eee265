"""What a wheel and an sdist must hold, and what they must not: run by `.ci/release`.

python .ci/release_contents.py WHEEL SDIST
"""

from __future__ import annotations

import sys
import tarfile
import zipfile

WANTED = {"ccmc/py.typed", "harness/py.typed", "harness/configs/quickstart.yaml", "harness/docs/tutorial.md"}
UNWANTED = ("tests/", "results/", ".ci/", "configs/")
OF_SDIST = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", "configs/quickstart.yaml"}


def main(wheel: str, sdist: str) -> None:
    """Print how many files there are.

    Raises:
        SystemExit: something is missing, or is there that is none of a user's business.
    """
    names = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        of_sdist = {name.partition("/")[2] for name in archive.getnames()}
    problems = [f"the wheel lacks {name}" for name in sorted(WANTED - names)]
    problems += [f"the wheel holds {name}" for name in sorted(names) if name.startswith(UNWANTED)]
    problems += [f"the sdist lacks {name}" for name in sorted(OF_SDIST - of_sdist)]
    if not any(name.endswith("licenses/LICENSE") for name in names):
        problems.append("the wheel lacks its license")
    if problems:
        raise SystemExit("\n".join(problems))
    sys.stdout.write(f"{len(names)} files in the wheel, {len(of_sdist)} in the sdist\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
