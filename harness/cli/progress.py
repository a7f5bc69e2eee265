"""Progress of a run on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.runs.units import Unit


class Bars:
    """Progress on the terminal: one bar over the units, one for each unit that is being done."""

    def __init__(self, screen: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
        self._all: Any = None
        self._tasks: dict[str, Any] = {}
        self._console = screen

    def __enter__(self) -> Bars:
        self._progress.start()
        self._before = self._progress.add_task("starting", total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def prepare(self, share: float, what: str) -> None:
        """What is done before the units start."""
        self._progress.update(self._before, completed=share, description=what)

    def planned(self, store: Any, plan: list[Unit]) -> None:
        """The units are known."""
        from harness.report.render.cells import visible

        done = sum(store.finished(unit.key) for unit in plan)
        self._progress.remove_task(self._before)
        for line in [*(store.read_manifest() or {}).get("notes", []), *store.notes]:
            self._console.print(f"note: {visible(line)}", markup=False, highlight=False, soft_wrap=True)
        if done and done < len(plan):
            self._console.print(
                f"{store.path}: {done} of {len(plan)} units are there already; going on", highlight=False
            )
        self._all = self._progress.add_task(f"run {store.path}, {len(plan)} units", total=len(plan), completed=done)

    def started(self, unit: Unit) -> None:
        self._tasks[unit.key] = self._progress.add_task(unit.label, total=1.0)

    def moved(self, unit: Unit, share: float, what: str) -> None:
        self._progress.update(self._tasks[unit.key], completed=share, description=f"{unit.label}: {what}")

    def finished(self, unit: Unit, error: str | None) -> None:
        if unit.key in self._tasks:
            self._progress.remove_task(self._tasks.pop(unit.key))
        self._progress.advance(self._all)
        mark = "done" if error is None else f"FAILED: {error}"
        self._console.print(f"  {unit.label}: {mark}", markup=False, highlight=False)
