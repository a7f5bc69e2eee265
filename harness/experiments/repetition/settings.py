"""The settings of the experiment `repetition`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from harness.config.decoding import OPTIONS
from harness.config.strict import Growing, Strict
from harness.core import registry
from harness.core.errors import nearest
from harness.experiments._shared.ladder import checked_ladder, rungs, split, statistics_of
from harness.experiments._shared.settings import known_surrogates
from harness.experiments.repetition.bigrams import BIGRAM
from harness.experiments.repetition.margins import AT, MARGINS

NO_BASE = "none"
READ_OFF, COUNTED = ("model", "best"), ("bigram", "best")
"""Choices of `base` with base transitions read off the model, and with those counted in training texts."""
LADDER = (
    "counts",
    "recency",
    "followed-by-1",
    "followed-by-2",
    "followed-by-3",
    "followed-by-4 + followed-by-6 + followed-by-8",
)


class Margins(Strict):
    """How large a difference between walks and the model would not matter: named before the run."""

    seq_rep_1: float = Field(default=MARGINS["seq_rep_1"], gt=0, lt=1, description="of the share of repeated tokens")
    seq_rep_4: float = Field(default=MARGINS["seq_rep_4"], gt=0, lt=1, description="of the share of repeated 4-grams")
    above_half: float = Field(
        default=MARGINS["above_half"], gt=0, lt=1, description="of the share of texts with seq_rep_4 above .5"
    )
    loop_share: float = Field(default=MARGINS["loop_share"], gt=0, lt=1, description="of the share of tokens in loops")
    loop_onset: float = Field(default=MARGINS["loop_onset"], gt=0, description="of the onset of loops, tokens")
    loop_period: float = Field(default=MARGINS["loop_period"], gt=0, description="of the period of loops, tokens")
    new_tokens: float = Field(default=MARGINS["new_tokens"], gt=0, lt=1, description="of the share of new tokens")
    at: dict[str, dict[str, float]] = Field(
        default=AT,
        description="margins that are other with one strategy, by its name in rows, such as "
        "`{temperature=1: {seq_rep_4: 0.01}}`",
    )

    @field_validator("at")
    @classmethod
    def _at(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for strategy, margins in value.items():
            if not _is_strategy(strategy):
                raise ValueError(f"{strategy!r} is no name of a strategy in rows, such as greedy or temperature=0.7")
            for name, margin in margins.items():
                if name not in MARGINS:
                    raise ValueError(f"{strategy}: no margin is called {name!r}{nearest(name, MARGINS)}")
                if not 0 < margin < (math.inf if name in ("loop_onset", "loop_period") else 1):
                    raise ValueError(f"{strategy}: the margin of {name} must be above 0, and of a share below 1")
        return value

    def of(self, strategy: str) -> dict[str, float]:
        """Measure -> margin with one strategy, by its name in rows."""
        return {**{name: getattr(self, name) for name in MARGINS}, **self.at.get(strategy, {})}


class Repetition(Growing):
    """A model's own continuations against walks of surrogates over the whole vocabulary, cross-fitted."""

    continues: ClassVar[bool] = True
    harmless: ClassVar[frozenset[str]] = frozenset(
        {"surrogates", "statistics", "rollout_seeds", "removed", "choice_prompts"}
        | {"on_policy", "on_policy_rungs", "alternatives", "regimes", "unseen"}
    )
    later: ClassVar[frozenset[str]] = frozenset(
        {
            "hazard_rollouts",
            "hazard_rungs",
            "removed",
            "on_policy",
            "on_policy_rungs",
            "alternatives",
            "regimes",
            "unseen",
            "degree",
            "raw_rungs",
            "warm_rungs",
        }
    )

    kind: Literal["repetition"]
    surrogates: tuple[str, ...] = Field(
        default=("unigram", "unigram-cache", "bigram", "suffix", "context-logit"),
        description="surrogates over the whole vocabulary, see `ccmc list surrogates`",
    )
    statistics: tuple[str, ...] = Field(
        default=LADDER,
        min_length=1,
        description="the nested ladder of context-logit: each entry is added to those before it; several at once are "
        "joined by +",
    )
    base: Literal["model", "bigram", "best", "none"] = Field(
        default="model",
        description="base transitions: read off the model after a neutral context; the smoothed bigram of training "
        "texts; the best of both on training texts, in each fold; or all alike",
    )
    neutral: tuple[str, ...] = Field(
        default=("\n",),
        min_length=1,
        description="neutral contexts; of several, the one that predicts training texts best is taken in each fold",
    )
    base_rows: Literal["run", "all"] = Field(
        default="run",
        description="tokens that get base transitions of their own: those that occur in the run's texts, or the whole "
        "vocabulary; others have the mean of all rows",
    )
    top: int = Field(default=256, ge=1, description="tokens that a row of base transitions keeps")
    laws: tuple[Literal["decoded", "raw"], ...] = Field(
        default=("decoded", "raw"),
        min_length=1,
        description="fit the law after decoding and sample it as it is, or fit at temperature 1 and decode a surrogate",
    )
    rollout_seeds: int = Field(default=4, ge=1, description="walks of each surrogate from each prompt")
    raw_rungs: tuple[str, ...] = Field(
        default=(),
        description="rungs of the ladder, by the entry that each adds, that are also fitted to the raw law; none "
        "named: all",
    )
    warm_starts: tuple[int, ...] = Field(
        default=(0,), min_length=1, description="tokens of the model's own text before a surrogate takes over"
    )
    warm_rungs: tuple[str, ...] = Field(
        default=(),
        description="rungs that also walk from the later starts; none named: all",
    )
    hazard_rollouts: int = Field(
        default=0,
        ge=0,
        description="rollouts of 16 tokens from every eighth step of the judged texts, which say how likely a loop "
        "starts, or is left, within them, by context-logit and suffix fitted to the decoded law; 0: no such forecasts",
    )
    hazard_rungs: tuple[str, ...] = Field(
        default=(),
        description="rungs of the ladder, by the entry that each adds, that make these forecasts; none named: all",
    )
    removed: bool = Field(
        default=False,
        description="fit context-logit to the decoded law again without each entry of the ladder, and without base "
        "transitions, to see what each is worth beside all others",
    )
    choice_prompts: int = Field(
        default=60,
        ge=0,
        description="training prompts of each fold that context-logit fitted to the decoded law also walks from, twice "
        "each: by their energy score one rung is chosen for all strategies; 0: no rung is chosen",
    )
    on_policy: int = Field(
        default=0,
        ge=0,
        description="rounds in which context-logit, fitted to the decoded law, walks from training prompts, the model "
        "gives its law along these walks, and it is fitted again to them and the texts; 0: none",
    )
    on_policy_rungs: Literal["last", "all"] = Field(
        default="last", description="which rungs are fitted again to their own walks"
    )
    regimes: Literal["none", "last", "all"] = Field(
        default="none",
        description="which rungs are also fitted with two sets of weights and a hidden state that tends to stay",
    )
    alternatives: dict[str, tuple[str, ...]] = Field(
        default={},
        description="other ladders by name, with as many entries as `statistics`: each of their rungs is compared with "
        "the rung in the same place; those with the same statistics are left out",
    )
    unseen: tuple[str, ...] = Field(
        default=(),
        description="strategies, by their names in rows, such as temperature=0.85, at which one fit of context-logit "
        "to all others is judged: its weights are a polynomial in the temperature, greedy being 0; they choose no rung",
    )
    degree: int = Field(default=1, ge=1, le=4, description="degree of that polynomial")
    margins: Margins = Field(
        default_factory=Margins, description="differences that would not matter: equivalence is tested within them"
    )

    @field_validator("surrogates")
    @classmethod
    def _surrogates(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known_surrogates(value, registry.surrogates("vocabulary"))
        return value

    @field_validator("statistics")
    @classmethod
    def _statistics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_ladder(value)

    @field_validator("alternatives")
    @classmethod
    def _alternatives(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, ladder in value.items():
            if name in ("", ON_POLICY, REGIMES):
                raise ValueError(f"an alternative cannot be called {name!r}")
            checked_ladder(ladder)
        return value

    @field_validator("neutral")
    @classmethod
    def _neutral(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value) or len(set(value)) < len(value):
            raise ValueError("neutral contexts are different texts, none empty: a first token alone is a sink")
        if wrong := [text for text in value if text == NO_BASE or text.split("/")[0] == BIGRAM]:
            raise ValueError(f"a neutral context cannot be {wrong[0]!r}: other base transitions have this name")
        return value

    @field_validator("warm_starts")
    @classmethod
    def _starts(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(start < 0 for start in value) or len(set(value)) < len(value):
            raise ValueError(f"warm_starts are different numbers of tokens, at least 0, got {list(value)}")
        return value

    @model_validator(mode="after")
    def _joint(self) -> Repetition:
        if len(set(self.unseen)) < len(self.unseen):
            raise ValueError(f"unseen: a strategy is named twice: {', '.join(self.unseen)}")
        if self.unseen and not ("context-logit" in self.surrogates and "decoded" in self.laws):
            raise ValueError("unseen needs context-logit among the surrogates and decoded among the laws")
        if self.unseen and self.base != "model":
            raise ValueError(
                "unseen needs base: model, as one fit of several strategies weighs the same base transitions"
            )
        return self

    @model_validator(mode="after")
    def _some_rungs(self) -> Repetition:
        known = rungs(self.statistics)
        needed = {
            "hazard_rungs": (bool(self.hazard_rollouts), "hazard_rollouts above 0"),
            "raw_rungs": ("raw" in self.laws, "raw among the laws"),
            "warm_rungs": (len(self.warm_starts) > 1, "several warm_starts"),
        }
        for field, (read, what) in needed.items():
            for entry in getattr(self, field):
                if " + ".join(split(entry)) not in known:
                    raise ValueError(f"{field}: {entry!r} is no entry of statistics{nearest(entry, known)}")
            if getattr(self, field) and not read:
                raise ValueError(f"{field} are read with {what} only")
        return self

    @model_validator(mode="after")
    def _removable(self) -> Repetition:
        if self.removed and not ("context-logit" in self.surrogates and "decoded" in self.laws):
            raise ValueError("removed: true needs context-logit among the surrogates and decoded among the laws")
        return self

    @model_validator(mode="after")
    def _refinable(self) -> Repetition:
        refined = "on_policy" if self.on_policy else "alternatives" if self.alternatives else ""
        refined = refined or ("regimes" if self.regimes != "none" else "")
        if refined and not ("context-logit" in self.surrogates and "decoded" in self.laws):
            raise ValueError(f"{refined} needs context-logit among the surrogates and decoded among the laws")
        for name, ladder in self.alternatives.items():
            if len(ladder) != len(self.statistics):
                raise ValueError(
                    f"alternatives: {name} has {len(ladder)} entries and statistics have {len(self.statistics)}: "
                    "rungs in the same place are compared"
                )
        return self

    @model_validator(mode="after")
    def _with_embeddings(self) -> Repetition:
        every = [name for ladder in (self.statistics, *self.alternatives.values()) for name in statistics_of(ladder)]
        if "similarity" in every and self.base != "model":
            raise ValueError(f"similarity reads the model's embeddings: it needs base: model, not {self.base}")
        return self


def _is_strategy(name: str) -> bool:
    """Is it written as rows name strategies: `greedy`, `temperature=1`, `temperature=0.7,top_p=0.9`?"""
    parts = [part.partition("=") for part in name.removeprefix("greedy").removeprefix(",").split(",") if part]
    try:
        given = [f"{option}={float(value):g}" for option in OPTIONS for key, _, value in parts if key == option]
    except ValueError:
        return False
    return name in ("greedy", ",".join(given), ",".join(["greedy", *given])) and bool(name)


ON_POLICY, REGIMES = "on policy", "two regimes"
"""What refits to own walks, and fits with a hidden state, are called in rows."""


def other_rungs(
    statistics: tuple[str, ...], alternatives: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], tuple[str, ...]]:
    """(alternative, rung of the ladder in the same place) -> statistics, where they are others than the rung's.

    Args:
        statistics: the ladder.
        alternatives: other ladders with as many entries.
    """
    ladder, found = rungs(statistics), {}
    for name, other in alternatives.items():
        for (rung, own), every in zip(ladder.items(), rungs(tuple(other)).values(), strict=True):
            if set(own) != set(every):
                found[name, rung] = every
    return found


BASE, STATISTICS = "base", "statistics"
"""What stands for base transitions, and for all statistics, among the entries that are left out."""
READS_BASE = ("unigram", "base-by-match", "base-inside", "similarity")
"""Statistics that are nothing without base transitions."""


def left_out(statistics: tuple[str, ...], base: bool) -> dict[str, tuple[str, ...]]:
    """What is left out -> the statistics that are left: each entry of the ladder, all of them, and base transitions.

    Without base transitions the statistics that read them are left out too.

    Args:
        statistics: the ladder.
        base: are there base transitions?
    """
    ladder = list(rungs(statistics))
    found = {name: tuple(one for other in ladder if other != name for one in split(other)) for name in ladder}
    found[STATISTICS] = ()
    if base:
        found[BASE] = tuple(one for other in ladder for one in split(other) if one not in READS_BASE)
    return found
