"""Names of figures: what a model is called in a file name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from harness.core.format import file_safe


def labels(models: Sequence[str]) -> dict[str, str]:
    """Model -> the last part of its name, or its whole name where several end alike; file-safe.

    Args:
        models: as in the rows: aliases, hub ids or folders.
    """
    short = {model: file_safe(PurePath(model).name) for model in models}
    ends = list(short.values())
    return {model: end if ends.count(end) == 1 else file_safe(model) for model, end in short.items()}
