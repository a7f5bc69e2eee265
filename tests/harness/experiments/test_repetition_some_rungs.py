"""The raw law, and later starts, of some rungs alone: what a large run need not do of every rung."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from harness.experiments.repetition.plan import _of_refinements, _of_surrogates
from harness.experiments.repetition.settings import Repetition
from harness.experiments.repetition.units import _fits, walk

LADDER = ("counts", "recency", "followed-by-2 + followed-by-1")


def settings(**changes: Any) -> Repetition:
    return Repetition(kind="repetition", **{"statistics": LADDER, "warm_starts": (0, 6), **changes})


def fitted(**changes: Any) -> list[tuple[str, str]]:
    of_unit = _of_surrogates(settings(surrogates=("suffix", "context-logit"), **changes))
    return [(law, rung or name) for law, name, rung, _ in _fits(of_unit, base=True)]


def test_the_raw_law_is_fitted_to_the_rungs_that_are_named() -> None:
    every = ["suffix", "counts", "recency", "followed-by-2 + followed-by-1"]
    both = fitted()
    assert sorted(both) == sorted((law, name) for law in ("decoded", "raw") for name in every)
    some = fitted(raw_rungs=("recency", "followed-by-2+followed-by-1"))
    assert some == [one for one in both if one != ("raw", "counts")]


@dataclass
class Text:
    prompt: str
    start: int
    tokens: Any = field(default_factory=lambda: np.arange(20))

    def __len__(self) -> int:
        return len(self.tokens) - self.start


class Straight:
    """Walks that go on with 7."""

    def rollout(self, prompts: list[Any], steps: int, seed: int, temperature: float | None) -> list[Any]:
        return [np.full(steps, 7) for _ in prompts]


@pytest.mark.parametrize(
    ("named", "late"), [((), {"", "counts", "recency"}), (("recency",), {"", "recency"}), (("counts",), {"", "counts"})]
)
def test_later_starts_are_of_the_rungs_that_are_named(named: tuple[str, ...], late: set[str]) -> None:
    shared = {"temperature": 0.7, "options": {}, "seed": 0, "strategy": "temperature=0.7", "model": "m"}
    for unit in (_of_surrogates, _of_refinements):
        s = {**shared, "laws": ["decoded", "raw"], **unit(settings(warm_rungs=named))}
        for rung in ("", "counts", "recency"):
            for law in ("decoded", "raw"):
                made = walk(s, Straight(), "context-logit", {"law": law, "rung": rung}, [Text("a", 5)])  # type: ignore[arg-type, list-item]
                starts = {one["t0"] for one in made}
                assert starts == ({0, 6} if rung in late and law == "decoded" else {0})
                assert {one["rung"] for one in made} == {rung}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"raw_rungs": ("followed-by-1",)}, "raw_rungs: 'followed-by-1' is no entry of statistics"),
        ({"warm_rungs": ("recencies",)}, "warm_rungs: 'recencies' is no entry of statistics; did you mean 'recency'"),
        ({"raw_rungs": ("counts",), "laws": ("decoded",)}, "raw_rungs are read with raw among the laws only"),
        ({"warm_rungs": ("counts",), "warm_starts": (0,)}, "warm_rungs are read with several warm_starts only"),
        ({"hazard_rungs": ("counts",)}, "hazard_rungs are read with hazard_rollouts above 0 only"),
    ],
)
def test_rungs_that_are_not_there_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**changes)
    assert words in str(refused.value)


def test_runs_that_name_none_are_what_they_were() -> None:
    assert not {"raw_rungs", "warm_rungs"} & set(_of_surrogates(settings()))
    assert "warm_rungs" not in _of_refinements(settings())
