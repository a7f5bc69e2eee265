"""The settings of `winners`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from harness.experiments._shared.settings import PaperExperiment


class WinnerSets(PaperExperiment):
    """Predicted winner sets, frequencies and exponents against simulation."""

    smoke: ClassVar[Mapping[str, int]] = {"vocab_sizes": 100, "horizon": 10_000, "paths": 4}

    kind: Literal["winners"]
    vocab_sizes: tuple[Annotated[int, Field(ge=2, le=4096)], ...] = Field(default=(2, 5, 20, 100, 1000), min_length=1)
    families: tuple[Literal["gaussian", "dirichlet", "dominant", "cyclic", "heads"], ...] = Field(
        default=("gaussian", "dirichlet", "dominant", "cyclic", "heads"), min_length=1
    )
    starts: tuple[int, ...] = Field(default=(10, 100, 1000, 10_000), min_length=1)
    horizon: int = Field(default=100_000, ge=1000)
    paths: int = Field(default=16, ge=4)
    windows: tuple[int, ...] = (4, 8, 16)
    repetitions: int = Field(default=6, ge=1)
