"""What an experiment is: a config becomes units, units become rows, rows become answers, tables and figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from harness.core.declarations import ExperimentDeclaration

if TYPE_CHECKING:
    import pandas as pd

    from harness.config.load import Config, LoadedConfig
    from harness.config.strict import Strict
    from harness.core.records import Answer, Figure, Table
    from harness.data.splits import Prompt
    from harness.experiments._shared.continuations import Model
    from harness.runs.units import Unit


@dataclass(frozen=True)
class Needs:
    """What a config must name for an experiment to run.

    Attributes:
        models: language models.
        prompts: prompts.
        heads: models whose attention can be captured.
        prompts_or: a setting that replaces prompts where the config names it; documents are prompts then.
    """

    models: bool = False
    prompts: bool = False
    heads: bool = False
    prompts_or: str = ""


@dataclass(frozen=True)
class Request:
    """Everything that a plan is made of.

    Attributes:
        config: the whole config.
        settings: of the experiment, an instance of its `Settings`.
        models: resolved language models.
        prompts: the run's prompts, split and limited.
        documents: texts of the experiment's own, as `Experiment.documents` returned them.
        device: of the models.
    """

    config: Config
    settings: Any
    models: list[Model] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    documents: list[Prompt] = field(default_factory=list)
    device: str = "cpu"


class Experiment(ABC):
    """One kind of experiment. It holds no state; everything it needs comes with the call.

    The rows, tables, answers and figures that it is given and returns are those of its own kind only.
    """

    declaration: ExperimentDeclaration
    name: str

    cross_fits: ClassVar[bool] = False
    """It fits and judges in each fold of its prompts (`data.splits.folds_of`): a config with it may have `folds`."""

    @property
    @abstractmethod
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        """The settings of the experiment in a config; their field `kind` is a literal of its name."""

    def needs(self, settings: Any) -> Needs:
        """Models, prompts and other things that the config must name."""
        return Needs()

    def documents(self, settings: Any, loaded: LoadedConfig) -> list[Prompt]:
        """Texts of the experiment's own, read before anything is computed; none as a rule."""
        return []

    def check_config(self, settings: Any, model: Any) -> None:  # noqa: B027 - most have nothing to refuse
        """Refuse settings that do not fit a model, before its weights are loaded.

        Args:
            settings: of the experiment.
            model: the resolved `Model`.

        Raises:
            UsageError: names the setting.
        """

    def check(self, settings: Any, model: Any, weights: Any) -> None:  # noqa: B027 - most have nothing to refuse
        """Refuse a model that the experiment cannot work with, before anything is written.

        Args:
            settings: of the experiment.
            model: the resolved `Model`.
            weights: the loaded model.

        Raises:
            UsageError: says what is missing.
        """

    @abstractmethod
    def plan(self, request: Request) -> list[Unit]:
        """The units of work, each after those that it needs."""

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        """All tables about the rows, the headline first."""
        return []

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        """What the rows say, a sentence or two per question."""
        return []

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        """The pictures of the rows."""
        return []


class FolderExperiment(Experiment):
    """An experiment whose parts are modules beside its own, imported when they are used.

    `settings` holds the class that `settings_class` names; `plan`, `tables`, `answers` and `figures` each hold a
    function of that name, with the arguments of the method.
    """

    settings_class: ClassVar[str]
    """Name of the class in the module `settings`."""

    def _beside(self, module: str) -> Any:
        return import_module(f"{type(self).__module__.rpartition('.')[0]}.{module}")

    @property
    def Settings(self) -> type[Strict]:  # noqa: N802 - a class
        found: type[Strict] = getattr(self._beside("settings"), self.settings_class)
        return found

    def plan(self, request: Request) -> list[Unit]:
        units: list[Unit] = self._beside("plan").plan(request)
        return units

    def tables(self, rows: pd.DataFrame) -> list[Table]:
        made: list[Table] = self._beside("tables").tables(rows)
        return made

    def answers(self, rows: pd.DataFrame) -> list[Answer]:
        said: list[Answer] = self._beside("answers").answers(rows)
        return said

    def figures(self, rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        made: list[Figure] = self._beside("figures").figures(rows, trajectories)
        return made
