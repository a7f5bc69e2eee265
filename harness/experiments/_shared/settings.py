"""What the settings of several experiments share: the limits of a smoke run, and the check of names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from harness.config.strict import Strict
from harness.core import registry
from harness.core.declarations import Declaration
from harness.core.errors import UsageError


def known_surrogates(names: Sequence[str], known: Mapping[str, Declaration]) -> None:
    """Refuse names that are not known, or listed twice, and plugins that cannot be imported.

    Args:
        names: as a config lists them.
        known: those that are possible, such as `harness.core.registry.surrogates(of="heads")`.

    Raises:
        ValueError: names the nearest, or the package.
    """
    for name in names:
        if name not in known:
            raise ValueError(f"unknown surrogate {name!r}{registry.unknown(name, known)}")
    _usable("surrogate", names, known)


def distinct_layers(value: Literal["all"] | tuple[int, ...]) -> Literal["all"] | tuple[int, ...]:
    """Layers of a model as a config lists them, each once, in order.

    Raises:
        ValueError: none is listed.
    """
    if value == "all":
        return value
    if not value:
        raise ValueError("no layer is listed; write `all` or a list such as [0, 5]")
    return tuple(sorted(set(value)))


def check_layers(layers: Literal["all"] | tuple[int, ...], model: Any, experiment: str) -> None:
    """Refuse layers that a model does not have.

    Raises:
        UsageError: names the layer and the setting.
    """
    for layer in () if layers == "all" else layers:
        if not 0 <= layer < model.layers:
            raise UsageError(
                f"experiments.{experiment}.layers: {model.name!r} has layers 0 to {model.layers - 1}, not {layer}"
            )


def _usable(kind: str, names: Sequence[str], known: Mapping[str, Declaration]) -> None:
    """Refuse what is listed twice, and plugins that cannot be imported, before anything is computed."""
    if len(set(names)) < len(names):
        raise ValueError(f"a {kind} is listed twice: {list(names)}")
    for name in names:
        if known[name].package != registry.OWN:
            try:
                registry.load(known[name])
            except UsageError as error:
                raise ValueError(str(error)) from None


def default_surrogates(of: str) -> tuple[str, ...]:
    """The surrogates that are fitted where a config names none: those that declare themselves so, controls last."""
    found = [one for one in registry.surrogates(of).values() if one.default]
    return tuple(one.name for one in sorted(found, key=lambda one: one.control))


class PaperExperiment(Strict):
    """Settings of which a smoke run takes less."""

    smoke: ClassVar[Mapping[str, int]] = {}
    """Per setting: a smoke run with `limit` N takes at most N times this, of a list the entries up to that."""
    harmless: ClassVar[frozenset[str]] = frozenset({"repetitions"})

    def limited(self, limit: int | None) -> Self:
        """The settings of a smoke run; those of a full one as they are."""
        if limit is None:
            return self
        less: dict[str, Any] = {}
        for name, size in self.smoke.items():
            value, most = getattr(self, name), size * limit
            less[name] = min(value, most) if isinstance(value, int) else tuple(x for x in value if x <= most)
            less[name] = less[name] or value[:1]
        return self.model_copy(update=less)


def known_measures(names: Sequence[str]) -> None:
    """Refuse measures that cannot be applied by name, or are listed twice.

    Raises:
        ValueError: names the measure, and the nearest that can be applied.
    """
    known = {name: one for name, one in registry.measures().items() if one.sees}
    for name in names:
        if name in known:
            continue
        if registry.measure(name) is not None:
            raise ValueError(f"measure {name!r} is computed wherever it can be: leave it out")
        raise ValueError(f"unknown measure {name!r}{registry.unknown(name, known)}; see `ccmc list measures`")
    _usable("measure", names, known)
