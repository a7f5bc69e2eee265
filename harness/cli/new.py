"""`ccmc new`: writes the skeleton of a package that adds a surrogate, a measure or an experiment, with its tests."""

from __future__ import annotations

import keyword
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated, Any

import typer

from harness.cli.results import one_of
from harness.core.errors import UsageError
from harness.report.terminal import say

KINDS = ("surrogate", "measure", "experiment")
ROLES = ("heads", "next-token")
TEMPLATES = Path(__file__).parent / "new_templates"
NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


@dataclass(frozen=True)
class Skeleton:
    """What is written, and what to do with it.

    Attributes:
        folder: of the package, not there yet.
        files: path inside the folder -> template.
        words: placeholder -> text, for the templates.
        commands: the next steps, in order.
    """

    folder: Path
    files: dict[str, str]
    words: dict[str, str]
    commands: tuple[str, ...]

    def write(self) -> None:
        """Write all files.

        Raises:
            UsageError: the folder cannot be written to.
        """
        for file, template in self.files.items():
            text = Template((TEMPLATES / f"{template}.tmpl").read_text(encoding="utf-8")).substitute(self.words)
            path = self.folder / file
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def skeleton(kind: str, name: str, of: str, into: Path) -> Skeleton:
    """Plan the skeleton of a package.

    Args:
        kind: surrogate, measure or experiment.
        name: of the surrogate, measure or experiment, such as "recency".
        of: what a surrogate replaces: heads or next-token.
        into: where its folder is made.

    Raises:
        UsageError: a bad name, one that is declared already, or a folder that exists.
    """
    from harness.core import registry

    snake = name.replace("-", "_")
    title = "".join(part.capitalize() for part in snake.split("_"))
    if not NAME.fullmatch(name):
        raise UsageError(
            f"new {kind} {name!r}: a name is lower-case letters and digits with - or _ between, such as my-{kind}"
        )
    if keyword.iskeyword(snake) or keyword.iskeyword(title):
        raise UsageError(f"new {kind}: {name!r} is a word of Python; choose another name")
    name = snake if kind == "measure" else snake.replace("_", "-")
    declared: Any = {
        "surrogate": registry.surrogates(of) if kind == "surrogate" else {},
        "measure": registry.measures(),
        "experiment": registry.experiments(),
    }[kind]
    if name in declared:
        article = "an" if kind == "experiment" else "a"
        raise UsageError(f"new {kind} {name!r}: {declared[name].package} has {article} {kind} of this name")
    package = f"ccmc-{snake.replace('_', '-')}"
    folder = into / package
    if folder.exists():
        raise UsageError(f"new {kind} {name!r}: {folder} exists already; choose another name or --into DIR")
    part = of.replace("-", "_") if kind == "surrogate" else kind
    module = f"ccmc_{snake}"
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}.py": f"{part}.py",
        f"tests/test_{snake}.py": f"test_{part}.py",
    }
    experiment, setting = ("heads", "surrogates") if part == "heads" else ("generation", f"{kind}s")
    listed = f"[counts, {name}]" if kind == "surrogate" else f"[{name}]"
    run = f"ccmc run smoke --limit 1 --set 'experiments.{experiment}.{setting}={listed}'"
    more = ""
    if kind == "experiment":
        files[f"{snake}.yaml"] = "experiment.yaml"
        more, run = f'\n[project.entry-points."ccmc.measures"]\n{name} = "{module}"\n', f"ccmc run {snake}.yaml"
    words = {"kind": kind, "name": name, "snake": snake, "Class": title, "package": package, "module": module}
    place = shlex.quote(str(folder))
    there = run if kind != "experiment" else f"ccmc run {shlex.quote(str(folder / f'{snake}.yaml'))}"
    commands = (f"python -m pip install -e {place}", f"python -m pytest {place}", there)
    return Skeleton(folder, files, {**words, "more": more, "run": run}, commands)


def new(
    kind: Annotated[str, typer.Argument(help="surrogate, measure or experiment.", autocompletion=lambda: list(KINDS))],
    name: Annotated[str, typer.Argument(help="What it is called in configs and tables, such as my-surrogate.")],
    of: Annotated[
        str | None,
        typer.Option(help="What a surrogate replaces: heads or next-token.", autocompletion=lambda: list(ROLES)),
    ] = None,
    into: Annotated[Path, typer.Option(help="The folder to make the package in.")] = Path(),
) -> None:
    """Write a package that adds a surrogate, a measure or an experiment, with tests that pass; then change it."""
    one_of("new", kind, KINDS)
    if of is not None and kind != "surrogate":
        raise UsageError(f"new {kind} {name!r}: --of is for surrogates only")
    one_of("--of", of or ROLES[0], ROLES)
    made = skeleton(kind, name, of or ROLES[0], into)
    made.write()
    say(f"{made.folder}: {', '.join(made.files)}")
    say("next:")
    for command in made.commands:
        say(f"  {command}")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("new", epilog="Examples: ccmc new surrogate recency --of heads | ccmc new measure distinct_32")(new)
