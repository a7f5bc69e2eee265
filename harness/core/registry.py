"""The one door for surrogates, measures, experiments and model sources: those of the project and those of plugins.

Each declares itself where it is defined:

    @register.surrogate("recency", of="heads", sees=("distance",), parameters="1", source="this project")
    class Recency(HeadSurrogate): ...

    @register.measure("distinct_types", unit="types", better=None, sees="continuation")
    def distinct_types(continuation): ...

Declarations are literals, so they are read from the source text: a list, a completion or a config check imports
neither torch nor transformers, and no plugin's code. What is declared is imported when it is used. Plugins name their
modules (or `module:object`) in the entry points ccmc.surrogates, ccmc.measures, ccmc.experiments and ccmc.models.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from harness.core.declarations import (
    KINDS,
    Declaration,
    ExperimentDeclaration,
    MeasureDeclaration,
    ModelDeclaration,
    SurrogateDeclaration,
)
from harness.core.errors import UsageError, nearest, one_line
from harness.core.source import BrokenDeclarationError, read_declarations

T = TypeVar("T")
OWN = "ccmc-harness"
"""The distribution of the project itself; all others are plugins."""
HOMES = {
    "surrogate": ("surrogates/heads", "surrogates/next_token", "surrogates/vocabulary"),
    "measure": ("measures", "experiments/*"),
    "experiment": ("experiments/*",),
    "model": ("models/sources",),
}
"""Folders of the project's own declarations; plugins name theirs in entry points."""
_ROOT = Path(__file__).resolve().parents[1]


class _Register:
    """Decorators that attach a declaration to a class or function. `register.measure(...)` alone declares a name."""

    def surrogate(self, name: str, **about: Any) -> Callable[[T], T]:
        """Declare a surrogate; see `SurrogateDeclaration` for the fields."""
        return self._attach(SurrogateDeclaration(name, **about))

    def measure(self, name: str, **about: Any) -> Callable[[T], T]:
        """Declare a measure; see `MeasureDeclaration` for the fields."""
        return self._attach(MeasureDeclaration(name, **about))

    def experiment(self, name: str, **about: Any) -> Callable[[T], T]:
        """Declare an experiment; see `ExperimentDeclaration` for the fields."""
        return self._attach(ExperimentDeclaration(name, **about))

    def model(self, name: str, **about: Any) -> Callable[[T], T]:
        """Declare a source of weights; see `ModelDeclaration` for the fields."""
        return self._attach(ModelDeclaration(name, **about))

    @staticmethod
    def _attach(declaration: Declaration) -> Callable[[T], T]:
        def attach(thing: T) -> T:
            thing.declaration = declaration  # type: ignore[attr-defined]
            thing.name = declaration.name  # type: ignore[attr-defined]
            return thing

        return attach


register = _Register()


def _own() -> Iterator[tuple[str, Declaration]]:
    """The declarations of the project itself."""
    stated = re.search(r'^__version__ = "(.+)"', (_ROOT.parent / "ccmc" / "__init__.py").read_text("utf-8"), re.M)
    version = stated[1] if stated else ""  # read, as importing ccmc brings numpy and scipy
    folders = dict.fromkeys(folder for homes in HOMES.values() for home in homes for folder in sorted(_ROOT.glob(home)))
    for folder in folders:
        for file in sorted(folder.glob("*.py")):
            text = file.read_text(encoding="utf-8")
            if "register." in text:
                module = ".".join(("harness", *file.relative_to(_ROOT).with_suffix("").parts))
                yield from read_declarations(text, module, OWN, version)


def _of_plugins() -> tuple[list[tuple[str, Declaration]], list[str]]:
    """The declarations of installed plugins, and a line for each plugin that cannot be read."""
    from importlib.metadata import entry_points

    found: list[tuple[str, Declaration]] = []
    problems: list[str] = []
    for kind in KINDS:
        for entry in entry_points(group=f"ccmc.{kind}s"):
            package = entry.dist.name if entry.dist is not None else entry.module
            version = entry.dist.version if entry.dist is not None else ""
            try:
                text = _source(entry.module)
                declared = [d for k, d in read_declarations(text, entry.module, package, version) if k == kind]
                own = [d for d in declared if entry.attr in ("", None, d.attribute)]
                if not own:
                    raise BrokenDeclarationError(f"{entry.value}: declares no {kind}")
                found += [(kind, one) for one in own]
            except Exception as error:  # a broken plugin must not stop the rest
                problems.append(f"plugin {package}: {one_line(error)}; it is left out (see: ccmc doctor)")
    return found, problems


def _source(module: str) -> str:
    """The source text of a module, found without importing it; packages above it are imported."""
    from importlib.util import find_spec

    try:
        spec = find_spec(module)
    except Exception as error:
        raise BrokenDeclarationError(f"{module} cannot be found: {type(error).__name__}: {one_line(error)}") from None
    if spec is None or spec.origin is None:
        raise BrokenDeclarationError(f"{module}: no such module")
    return Path(spec.origin).read_text(encoding="utf-8")


@cache
def _all() -> tuple[dict[str, tuple[Declaration, ...]], tuple[str, ...]]:
    """Kind -> declarations, the project's own first; and the problems of plugins."""
    own = list(_own())
    more, problems = _of_plugins()
    taken = {_place(kind, one) for kind, one in own}
    for kind, one in more:
        place = _place(kind, one)
        if place in taken:
            problems.append(f"plugin {one.package}: {kind} {one.name!r} exists already; it is left out")
        elif kind == "surrogate" and not getattr(one, "of", ""):
            problems.append(f"plugin {one.package}: surrogate {one.name!r}: say of='heads' or of='next-token'")
        else:
            taken.add(place)
            own.append((kind, one))
    # a module that is named in several entry points is broken once
    return {kind: tuple(one for k, one in own if k == kind) for kind in KINDS}, tuple(dict.fromkeys(problems))


def _place(kind: str, one: Declaration) -> tuple[str, str, str]:
    """What no two declarations share; heads and next tokens may have surrogates of one name."""
    return kind, one.name, one.of if isinstance(one, SurrogateDeclaration) else ""


def forget() -> None:
    """Read all declarations anew the next time: for tests that install a plugin."""
    _all.cache_clear()
    measure.cache_clear()
    headline.cache_clear()
    controls.cache_clear()


def problems() -> tuple[str, ...]:
    """One line for each plugin that could not be read, naming its package."""
    return _all()[1]


def only_own() -> bool:
    """Does no plugin declare anything, and is none broken?"""
    found, broken = _all()
    return not broken and all(one.package == OWN for kind in found.values() for one in kind)


def unknown(name: str, known: Iterable[str]) -> str:
    """What an error about an unknown name adds: the nearest name, and which plugins were left out."""
    broken = problems()
    return nearest(name, known) + (f" ({'; '.join(broken)})" if broken else "")


def packages(modules: Iterable[str]) -> list[str]:
    """ "name version" of the plugins that declare something in one of some modules, or in a module beside it.

    Args:
        modules: names; only what comes before the first dot counts.
    """
    tops = {module.partition(".")[0] for module in modules}
    found = {f"{one.package} {one.version}" for kind in _all()[0].values() for one in kind if _top(one) in tops}
    return sorted(name for name in found if not name.startswith(f"{OWN} "))


def _top(one: Declaration) -> str:
    return one.module.partition(".")[0]


def surrogates(of: str | None = None) -> dict[str, SurrogateDeclaration]:
    """Declared surrogates by name, in the order of the ladder.

    Args:
        of: "heads", "next-token", or None for both (a name that both have is listed once).
    """
    found = [one for one in _all()[0]["surrogate"] if isinstance(one, SurrogateDeclaration) and of in (None, one.of)]
    return {one.name: one for one in sorted(found, key=lambda one: (one.rung, one.name))}


def measures() -> dict[str, MeasureDeclaration]:
    """Declared measures by name, as they come; {k} in a name stands for a number."""
    return {one.name: one for one in _all()[0]["measure"] if isinstance(one, MeasureDeclaration)}


@cache
def measure(name: str) -> MeasureDeclaration | None:
    """What is declared about a measure, such as "kl"; None where nothing is.

    "winner_jaccard_at_3" is declared as "winner_jaccard_at_{k}": its 3 takes the place of {k} in all words.
    """
    known = measures()
    if name in known:
        return known[name]
    for pattern, one in known.items():
        before, number, after = pattern.partition("{k}")
        found = re.fullmatch(f"{re.escape(before)}([0-9]+){re.escape(after)}", name) if number else None
        if found is not None:
            label, about = (words.replace("{k}", found[1]) for words in (one.label, one.about))
            return replace(one, name=name, label=label, about=about)
    return None


def sign(name: str) -> int:
    """+1 where higher values of a measure are better, -1 where lower are, 0 where neither are or nothing is known."""
    known = measure(name)
    return 0 if known is None else known.sign


@cache
def headline(experiment: str) -> MeasureDeclaration | None:
    """The measure that an experiment is about; None where no measure says so."""
    return next((one for one in measures().values() if one.headline_of == experiment), None)


def check_metrics(wanted: Iterable[str], present: Iterable[str]) -> None:
    """Refuse a metric that the rows do not have.

    Raises:
        UsageError: names the nearest metric that is there.
    """
    known = sorted(set(present))
    for name in wanted:
        if name not in known:
            there = " (not in these runs)" if measure(name) else ""
            raise UsageError(f"--metric {name!r}{there}{nearest(name, known)}")


def experiments() -> dict[str, ExperimentDeclaration]:
    """Declared experiments by kind, in their order."""
    found = [one for one in _all()[0]["experiment"] if isinstance(one, ExperimentDeclaration)]
    return {one.name: one for one in sorted(found, key=lambda one: (one.order, one.name))}


def models() -> dict[str, ModelDeclaration]:
    """Declared model sources by name."""
    return {one.name: one for one in _all()[0]["model"] if isinstance(one, ModelDeclaration)}


def load(declaration: Declaration) -> Any:
    """What a declaration stands for: imports its module.

    Raises:
        UsageError: a plugin's module cannot be imported, or its class is not finished; names the package.
    """
    if declaration.package == OWN:
        return getattr(importlib.import_module(declaration.module), declaration.attribute)
    what = f"{declaration.name!r} of {declaration.package}"
    try:
        found = getattr(importlib.import_module(declaration.module), declaration.attribute)
    except Exception as error:
        raise UsageError(f"{what} cannot be imported: {type(error).__name__}: {one_line(error)}") from None
    if lacking := sorted(getattr(found, "__abstractmethods__", ())):
        raise UsageError(f"{what} is not finished: {declaration.attribute} does not define {', '.join(lacking)}")
    return found


def surrogate(name: str, of: str) -> Any:
    """The class of a surrogate.

    Raises:
        UsageError: no such surrogate; names the nearest.
    """
    known = surrogates(of)
    if name not in known:
        raise UsageError(f"unknown surrogate {name!r}{unknown(name, known)}")
    return load(known[name])


def experiment(kind: str) -> Any:
    """The experiment of a kind, made.

    Raises:
        UsageError: no such experiment; names the nearest.
    """
    known = experiments()
    if kind not in known:
        raise UsageError(f"unknown experiment {kind!r}{unknown(kind, known)}")
    return load(known[kind])()


def ladder(names: Iterable[str]) -> list[str]:
    """Names of surrogates in the order of the ladder; those that nobody declared come last, by name."""
    present = set(names)
    known = [name for name in surrogates() if name in present]
    return known + sorted(present - set(known))


@cache
def controls() -> frozenset[str]:
    """Surrogates that frame the others and are never ranked."""
    return frozenset(name for name, one in surrogates().items() if one.control)
