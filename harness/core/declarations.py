"""What surrogates, measures, experiments and model sources say about themselves.

A declaration is data: names, words and numbers. It can be read without importing what it declares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

Better = Literal["lower", "higher"] | None
Pooled = Literal["mean", "explained"]


@dataclass(frozen=True)
class Declaration:
    """What every declaration holds.

    Attributes:
        name: as configs, rows and tables write it.
        label: how tables and pictures call it; the name where it is empty.
        about: one line for lists and reports.
        source: where it comes from: a paper, or "this project".
        module: the module that defines it.
        attribute: its class or function there; empty where the module only declares it.
        package: the distribution that brings it, such as "ccmc-harness".
        version: of that distribution.
    """

    name: str
    label: str = ""
    about: str = ""
    source: str = ""
    module: str = field(default="", kw_only=True)
    attribute: str = field(default="", kw_only=True)
    package: str = field(default="", kw_only=True)
    version: str = field(default="", kw_only=True)

    words: ClassVar[frozenset[str]] = frozenset({"label", "about", "source"})
    """Fields that no row depends on."""

    @property
    def shown(self) -> str:
        """The label, or the name where there is none."""
        return self.label or self.name


@dataclass(frozen=True)
class SurrogateDeclaration(Declaration):
    """A surrogate of attention heads, of next-token distributions over the context, or over the whole vocabulary.

    Attributes:
        of: what it stands in for; empty: given by its base class.
        sees: the statistics of the context that it reads: counts, query, order, distance, weights, ...
        parameters: how many numbers are fitted, such as "K(K-1)".
        rollout: it can continue prompts.
        open: it gives probability to tokens outside the context.
        control: it frames the others and is never ranked.
        rung: its place on the ladder: tables list surrogates in this order.
        default: it is fitted where a config names no surrogates.
        needs: what its constructor takes beside a seed, by name.
        cost: how its fit grows.
        prior: the surrogate that its fit is shrunk to.
    """

    of: Literal["heads", "next-token", "vocabulary", ""] = ""
    sees: tuple[str, ...] = ("counts", "query")
    parameters: str = "0"
    rollout: bool = False
    open: bool = False
    control: bool = False
    rung: int = 1000
    default: bool = False
    needs: tuple[str, ...] = ()
    cost: str = ""
    prior: str = ""

    words: ClassVar[frozenset[str]] = Declaration.words | {"parameters", "cost", "rung", "control", "sees"}


@dataclass(frozen=True)
class MeasureDeclaration(Declaration):
    """A quantity in the rows. A {k} in its name stands for a number, and for the same number in label and about.

    Attributes:
        unit: of its values, such as "nats".
        better: which values of a surrogate are better; None where neither are.
        pooled: how a figure is made of many rows: "mean", or words that begin so; or "explained", which is
            1 - sum(n x of) / sum(n x of at the reference).
        of: the measure whose rows are pooled, where it is not this one's own.
        reference: the surrogate or value that it is read against: a line in plots, the base of a share.
        absolute: differences up to this size are rounding.
        sees: "continuation" where the function takes one continuation, "distributions" where it takes two tables of
            probabilities; empty where an experiment computes it.
        headline_of: the experiment that is about this measure.
    """

    unit: str = ""
    better: Better = None
    pooled: Pooled | str = "mean"
    of: str = ""
    reference: str = ""
    absolute: float = 0.0
    sees: Literal["continuation", "distributions", ""] = ""
    headline_of: str = ""

    words: ClassVar[frozenset[str]] = Declaration.words | {"unit", "better", "pooled", "reference", "absolute", "of"}

    def __post_init__(self) -> None:
        if str(self.pooled).partition(" ")[0] not in ("mean", "explained"):
            raise ValueError(f"pooled={self.pooled!r} is not one of 'mean', 'explained'")
        if self.pooled == "explained" and not (self.of and self.reference):
            raise ValueError("pooled='explained' needs `of`, a measure, and `reference`, a surrogate")

    @property
    def sign(self) -> int:
        """+1 where higher is better, -1 where lower is, 0 where neither is."""
        return {"higher": 1, "lower": -1, None: 0}[self.better]


@dataclass(frozen=True)
class ExperimentDeclaration(Declaration):
    """An experiment.

    Attributes:
        question: what it answers.
        order: its place in lists and reports.
        cost: what a full run takes.
    """

    question: str = ""
    order: int = 1000
    cost: str = ""

    words: ClassVar[frozenset[str]] = Declaration.words | {"question", "order", "cost"}


@dataclass(frozen=True)
class ModelDeclaration(Declaration):
    """A source of weights: an alias, or a kind of name such as hub ids.

    Attributes:
        form: what names look like, such as "owner/name[@revision]".
        license: of the weights.
        cost: what has to be downloaded.
    """

    form: str = ""
    license: str = ""
    cost: str = ""

    words: ClassVar[frozenset[str]] = Declaration.words | {"form", "license", "cost"}


KINDS: dict[str, type[Declaration]] = {
    "surrogate": SurrogateDeclaration,
    "measure": MeasureDeclaration,
    "experiment": ExperimentDeclaration,
    "model": ModelDeclaration,
}
