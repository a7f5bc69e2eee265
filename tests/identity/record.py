"""Run the shipped configs small and keep their rows, so that a change of the code can be held against them.

    python tests/identity/record.py FOLDER            # one subfolder per case, each a run directory
    python tests/identity/record.py FOLDER --quick    # the cases of a minute
    python tests/identity/compare.py BEFORE AFTER     # exit code 1 where rows moved

Cases run one after the other, each in a process of its own, through the command line alone: the script outlives every
change of the package below it. A case that is complete already is not run again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

CASES: dict[str, list[str]] = {
    "smoke": ["smoke"],
    "paper": ["paper/all", "--limit", "1"],
    "generation": [
        "generation/smollm2",
        "--limit=3",
        "--set=generation.max_new_tokens=48",
        "--set=experiments.generation.head_layers=[0, 12]",
    ],
    "heads": [
        "heads/smollm2",
        "--limit=4",
        "--set=experiments.heads.layers=[0, 9]",
        "--set=experiments.heads.max_length=96",
        "--set=generation.strategies=[greedy]",
    ],
    "count-ablation": ["generation/count-ablation", "--limit", "1"],
    "quickstart": ["quickstart"],
}
"""Name -> arguments of `ccmc run`; the quick ones first."""
QUICK = ("smoke", "paper", "generation", "heads")


def record(folder: Path, names: tuple[str, ...]) -> None:
    """Run the cases into `folder`, one subfolder each.

    Raises:
        SystemExit: a case failed; the code is that of `ccmc run`.
    """
    for name in names:
        command = [sys.executable, "-m", "harness.cli", "run", *CASES[name], "--out", str(folder / name)]
        sys.stderr.write(f"{name}: {' '.join(command[3:])}\n")
        one_thread = {"OMP_NUM_THREADS": "1", **os.environ}  # sums in one order, whatever else the machine does
        code = subprocess.run(command, stdout=subprocess.DEVNULL, env=one_thread, check=False).returncode
        if code:
            raise SystemExit(code)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="leave out quickstart and count-ablation")
    parser.add_argument("--only", choices=list(CASES), action="append", help="these cases; may be repeated")
    given = parser.parse_args()
    record(given.folder, tuple(given.only or (QUICK if given.quick else CASES)))
