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
    vocab_sizes: tuple[Annotated[int, Field(ge=2, le=4096)], ...] = Field(
        default=(2, 5, 20, 100, 1000), min_length=1, description="vocabulary sizes K"
    )
    families: tuple[Literal["gaussian", "dirichlet", "dominant", "cyclic", "heads"], ...] = Field(
        default=("gaussian", "dirichlet", "dominant", "cyclic", "heads"),
        min_length=1,
        description="how chains are drawn; `heads`: read off first-layer heads of the config's model",
    )
    starts: tuple[int, ...] = Field(
        default=(10, 100, 1000, 10_000), min_length=1, description="times t0 from which the mean field is run"
    )
    horizon: int = Field(
        default=100_000, ge=1000, description="time T at which the mean field is compared with the path"
    )
    paths: int = Field(default=16, ge=4, description="paths per chain")
    windows: tuple[int, ...] = Field(default=(4, 8, 16), description="lengths of finite context windows")
    repetitions: int = Field(default=6, ge=1, description="chains per family and size")
