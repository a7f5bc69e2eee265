"""What units keep of walks: all of them to be judged, and of each source one a prompt to be looked at.

The walks of a full run are a hundred times as many as the model's own texts; a run's table of continuations holds the
first walk of each surrogate under the law of the headline, from the prompt alone where there are such.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.runs.writing import write_parquet

WALKS, SHOWN = "walks.parquet", "trajectories.parquet"


def keep_walks(folder: Path, walks: Sequence[dict[str, Any]], s: dict[str, Any]) -> None:
    """Write the walks of a unit into its folder.

    Args:
        folder: of the unit.
        walks: one a row.
        s: settings of the unit.
    """
    frame = pd.DataFrame(walks)
    write_parquet(frame, folder / WALKS)
    if len(frame):
        law = "decoded" if "decoded" in set(frame["law"]) else "raw"
        shown = (frame["seed"] == 0) & (frame["t0"] == min(s["warm_starts"])) & (frame["law"] == law)
        frame = frame[shown].reset_index(drop=True)
    write_parquet(frame, folder / SHOWN)


def read_walks(folder: Path) -> pd.DataFrame:
    """All walks of a unit."""
    return pd.read_parquet(folder / WALKS)
