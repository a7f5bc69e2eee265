"""Stored units that other versions of packages made: counted, or kept on request in the place of new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.runs.directory import RunDirectory
from harness.runs.stored import check_unit, read_record
from harness.runs.units import Unit


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs between two sets of packages: "torch 2.12.0 (now 2.13.0)", by name."""
    names = sorted(old.keys() | new.keys())
    return [f"{n} {old.get(n, 'none')} (now {new.get(n, 'none')})" for n in names if old.get(n) != new.get(n)]


def of_other_versions(store: RunDirectory, plan: Sequence[Unit]) -> dict[str, list[dict[str, Any]]]:
    """Recipe -> records of stored units that no unit of the plan is, but for versions; whole ones, the last made first.

    Args:
        store: a run directory.
        plan: what is to be done.
    """
    planned, recipes = {unit.key for unit in plan}, {unit.recipe for unit in plan}
    found: dict[str, list[dict[str, Any]]] = {}
    folder = store.path / "units"
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if entry.name.startswith(".") or entry.name in planned or not entry.is_dir():
            continue
        try:
            record = read_record(entry)
        except ValueError:
            continue
        if record.get("recipe") in recipes and record.get("versions") and not check_unit(entry)[1]:
            found.setdefault(record["recipe"], []).append(record)
    for records in found.values():
        records.sort(key=lambda record: (record["finished"], record["key"]), reverse=True)
    return found


def with_kept(store: RunDirectory, plan: Sequence[Unit], others: dict[str, list[dict[str, Any]]]) -> list[Unit]:
    """A plan in which stored units of other versions take the place of units that are not stored.

    A unit that is computed from a kept one has a key of its own: its inputs are of other versions.

    Args:
        store: a run directory.
        plan: each unit after those that it needs.
        others: see `of_other_versions`.
    """
    taken: dict[str, Unit] = {}
    made = []
    for unit in plan:
        needs = tuple(taken.get(need.key, need) for need in unit.needs)
        changed = unit if needs == unit.needs else _fresh(unit, needs)
        if not store.finished(unit.key) and not store.finished(changed.key) and unit.recipe in others:
            changed = _fresh(changed, needs, others[unit.recipe][0]["key"])
        elif store.finished(unit.key):
            changed = unit
        taken[unit.key] = changed
        made.append(changed)
    return made


def _fresh(unit: Unit, needs: tuple[Unit, ...], kept: str | None = None) -> Unit:
    """A copy with other needs, whose key is computed again."""
    return replace(unit, needs=needs, kept=kept)


def notes(plan: Sequence[Unit], others: dict[str, list[dict[str, Any]]], store: RunDirectory, keep: bool) -> list[str]:
    """One line about stored units of other versions, where the plan has some.

    Args:
        plan: as it will be carried out.
        others: see `of_other_versions`.
        store: the run directory.
        keep: are they kept?
    """
    if keep:
        kept = [unit for unit in plan if unit.kept is not None]
        records = {record["key"]: record for found in others.values() for record in found}
        what = _what([(records[unit.kept], unit) for unit in kept if unit.kept])
        return [f"{_units(len(kept))} made with {what} kept, as --keep-old-units says"] if kept else []
    again = [(others[u.recipe][0], u) for u in plan if u.recipe in others and not store.finished(u.key)]
    if not again:
        return []
    return [f"{_units(len(again))} made with {_what(again)} computed again; --keep-old-units keeps them instead"]


def _units(count: int) -> str:
    return "1 stored unit was" if count == 1 else f"{count} stored units were"


def _what(pairs: Sequence[tuple[dict[str, Any], Unit]]) -> str:
    """The versions that differ, and the verb that follows."""
    found = dict.fromkeys(line for record, unit in pairs for line in differences(record["versions"], unit.versions))
    return f"{', '.join(found) or 'inputs of other versions'} and {'is' if len(pairs) == 1 else 'are'}"


def recorded(store: RunDirectory, unit: Unit) -> dict[str, str] | None:
    """For the manifest: the versions that made a kept unit; None for a unit of the present ones."""
    if unit.kept is None:
        return None
    versions: dict[str, str] = read_record(store.unit(unit.kept))["versions"]
    return versions


def kept_lines(manifest: Mapping[str, Any], most: int = 3) -> list[str]:
    """What a run holds that other versions made, a line for each set of versions; none for a run without such units.

    Args:
        manifest: of the run.
        most: how many units are named.
    """
    groups: dict[str, list[str]] = {}
    present = manifest["packages"]
    for unit in manifest["units"]:
        if made_by := unit.get("versions"):
            others = [
                f"{name} {version} (the run has {present[name]})"
                for name, version in sorted(made_by.items())
                if name in present and present[name] != version
            ]
            what = ", ".join(others) or "other versions of " + ", ".join(sorted(made_by.keys() - present.keys()))
            groups.setdefault(what, []).append(unit["label"])
    return [
        f"{'1 unit was' if len(labels) == 1 else f'{len(labels)} units were'} made with {what} and kept: "
        + "; ".join(labels[:most])
        + (f"; and {len(labels) - most} more" if len(labels) > most else "")
        for what, labels in groups.items()
    ]
