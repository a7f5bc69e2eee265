"""Opening a run directory for work: new, or where an earlier session stopped, with what is damaged set aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.core.errors import UsageError
from harness.runs import versions
from harness.runs.directory import RunDirectory
from harness.runs.records import DamagedManifestError, unchanged
from harness.runs.stored import check_unit
from harness.runs.units import Unit
from harness.runs.verify import check_tables
from harness.runs.writing import later


def begin(
    store: RunDirectory, manifest: dict[str, Any], plan: Sequence[Unit], keep_old_units: bool = False
) -> tuple[dict[str, Any], list[Unit]]:
    """Make a run, or continue the one that is there, and hold it until `store.close()`.

    Stored units are compared with their hashes: one that is damaged is moved into the folder `damaged` and computed
    again. What was found is in `store.notes`, and in the manifest with the session. A complete run that is as it was
    written is only read: its directory is not held.

    Args:
        store: the run directory.
        manifest: of this run, as if it were new.
        plan: its units, each after those that it needs.
        keep_old_units: units that differ from planned ones by the versions of packages only are used, not computed.

    Returns:
        The manifest in force and the plan to carry out; nothing is to be done where the manifest says `complete`.

    Raises:
        UsageError: the folder holds a run of another config, other data or other weights, or a complete one of other
            source or versions, or another process is working on it.
        StorageError: the disk cannot be written to.
    """
    store.check_usable()
    old, _ = _earlier(store, manifest, plan)
    if old is not None and old["state"] == "complete":
        chosen = _chosen(store, plan, keep_old_units)[0]
        if _keys(old) != [unit.key for unit in chosen]:
            raise UsageError(f"{store.path} is complete and was made {_by(old, manifest)}")
        if not _tables(store, old) and not _damaged(store, old, chosen):
            return old, chosen
        if not (store.path / "units").is_dir():
            raise UsageError(
                f"{store.path}: {_tables(store, old)[0]}, and its units are not there; choose another --out"
            )
    store.hold()
    try:
        return _held(store, manifest, plan, keep_old_units)
    except BaseException:
        store.close()
        raise


def _held(
    store: RunDirectory, manifest: dict[str, Any], plan: Sequence[Unit], keep_old_units: bool
) -> tuple[dict[str, Any], list[Unit]]:
    """The same, of a run that this process owns."""
    old, damage = _earlier(store, manifest, plan)  # read again: another process may have worked on it meanwhile
    if damage is not None:
        aside = store.set_aside(store.manifest_path)
        store.notes.append(f"{damage}; it was moved to {aside} and is made again, stored units are used")
    elif old is not None and not unchanged(old):
        store.notes.append(f"{store.manifest_path} was changed after it was written")
    if old is not None and old["state"] == "complete":
        store.notes += [f"{text}; it is put together again" for text in _tables(store, old)]
    _set_damaged_aside(store, old, plan)
    chosen, others = _chosen(store, plan, keep_old_units)
    store.notes += versions.notes(chosen, others, store, keep_old_units)
    if keep_old_units:
        _set_damaged_aside(store, old, chosen)
    manifest = _continued(store, manifest, old, chosen)
    store.write_manifest(manifest)
    return manifest, chosen


def _keys(manifest: dict[str, Any]) -> list[str]:
    return [unit["key"] for unit in manifest["units"]]


def _earlier(
    store: RunDirectory, manifest: dict[str, Any], plan: Sequence[Unit]
) -> tuple[dict[str, Any] | None, str | None]:
    """The manifest of earlier sessions, if there is one; or why it cannot be read, where its units show whose it is.

    Raises:
        UsageError: it belongs to another run, or to none that can be identified.
    """
    try:
        old = store.read_manifest()
    except DamagedManifestError as error:
        return None, _if_ours(store, plan, str(error))
    if old is None or (old["config_hash"] == manifest["config_hash"] and _other_tokens(old, manifest) is None):
        return old, None
    if not unchanged(old):
        return None, _if_ours(store, plan, f"{store.manifest_path}: was changed after it was written")
    raise UsageError(f"{store.path} holds another run: {_difference(old, manifest)}; choose another --out")


def _if_ours(store: RunDirectory, plan: Sequence[Unit], problem: str) -> str:
    folder = store.path / "units"
    stored = {entry.name for entry in folder.iterdir() if entry.name[0] != "."} if folder.is_dir() else None
    if stored is None or (stored and not stored & {unit.key for unit in plan}):
        raise UsageError(f"{problem}; none of this run's units is there: choose another --out, or remove the folder")
    return problem


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    changed = [key for key in new["config"] if old["config"].get(key) != new["config"][key]]
    if changed:
        return f"its config differs in {', '.join(changed)}"
    if old["config_hash"] == new["config_hash"] and (which := _other_tokens(old, new)) is not None:
        return f"the token ids of its {which}, as with a chat template that writes the date"
    taken = [[model.get("generation_config") for model in each["models"]] for each in (old, new)]
    if old["prompts"] == new["prompts"] and taken[0] != taken[1]:
        return "the decoding fields of its models' generation_config.json differ"
    return "its prompts differ" if old["prompts"] != new["prompts"] else "its model weights differ"


def _by(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What made a complete run that this program would make otherwise, and what to do."""
    used = [old["packages"], *(unit["versions"] for unit in old["units"] if unit.get("versions"))]
    mine = {name: version for name, version in new["packages"].items() if name != "ccmc-harness"}
    found = dict.fromkeys(
        line for one in used for line in versions.differences({k: v for k, v in one.items() if k in mine}, mine)
        if " none " not in line
    )  # fmt: skip
    if not found:
        return "by other source code; choose another --out"
    return f"with {', '.join(found)}; choose another --out, or open it as it is with --keep-old-units"


def _tables(store: RunDirectory, old: dict[str, Any]) -> list[str]:
    """What is wrong with the tables of a complete run."""
    return [one.text for one in check_tables(store.path, old)[1] if not one.unknown]


def _damaged(store: RunDirectory, old: dict[str, Any] | None, plan: Sequence[Unit]) -> dict[str, str]:
    """Key -> what is wrong with a stored unit."""
    wanted = {unit["key"]: unit.get("record_sha256") for unit in (old or {}).get("units", [])}
    present = [unit for unit in plan if (store.path / "units").is_dir() and _there(store, unit, old)]
    checked = {unit.key: check_unit(store.unit(unit.key), wanted.get(unit.key))[1] for unit in present}
    return {key: problems[0] for key, problems in checked.items() if problems}


def _there(store: RunDirectory, unit: Unit, old: dict[str, Any] | None) -> bool:
    """Is a unit's folder there, or should it be?"""
    return store.unit(unit.key).exists() or (old is not None and old["state"] == "complete")


def _set_damaged_aside(store: RunDirectory, old: dict[str, Any] | None, plan: Sequence[Unit]) -> None:
    labels = {unit.key: unit.label for unit in plan}
    for key, problem in _damaged(store, old, plan).items():
        name = f"units/{key} ({labels[key]}): {problem}"
        if store.unit(key).exists():
            store.notes.append(f"{name}; it was moved to {store.set_aside(store.unit(key))} and is computed again")
        else:
            store.notes.append(f"{name}; it is computed again")


def _chosen(
    store: RunDirectory, plan: Sequence[Unit], keep_old_units: bool
) -> tuple[list[Unit], dict[str, list[dict[str, Any]]]]:
    """The plan to carry out, and stored units of other versions."""
    if all(store.finished(unit.key) for unit in plan):
        return list(plan), {}
    others = versions.of_other_versions(store, plan)
    return (versions.with_kept(store, plan, others) if keep_old_units else list(plan)), others


def _continued(
    store: RunDirectory, manifest: dict[str, Any], old: dict[str, Any] | None, plan: Sequence[Unit]
) -> dict[str, Any]:
    """The manifest of a session: that of a new run, with the history of earlier sessions."""
    units: list[dict[str, Any]] = []
    for unit in plan:
        made_by = versions.recorded(store, unit)
        units.append({"key": unit.key, "label": unit.label, **({"versions": made_by} if made_by else {})})
    created = manifest["created"] if old is None else old["created"]
    session = {
        "started": later(created) if old is not None else created,
        **{name: manifest[name] for name in ("packages", "git", "machine")},
        "notes": list(store.notes),
    }
    continued = {**manifest, "units": units, "created": created, "sessions": [*_history(old), session]}
    planned = {unit.key for unit in plan}
    earlier = [] if old is None else [*old.get("earlier_units", []), *_keys(old)]
    if gone := [key for key in dict.fromkeys(earlier) if key not in planned]:
        continued["earlier_units"] = gone
        if others := sum(store.finished(key) for key in gone):
            session["notes"].append(f"{others} stored units of earlier sessions are not part of this run any more")
            store.notes.append(session["notes"][-1])
    return continued


def _history(old: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The sessions before this one; of a run of an earlier program, what its manifest says."""
    if old is None:
        return []
    if sessions := old.get("sessions"):
        return list(sessions)
    return [{"started": old["created"], "packages": old["packages"], "git": old["git"], "machine": old["machine"]}]


def _other_tokens(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """The first texts of a model that have other token ids than in an older manifest that recorded them."""
    recorded = {model["name"]: model for model in old["models"]}
    for model in new["models"]:
        for field, what in (("tokens_sha256", "prompts"), ("texts_sha256", "texts")):
            before = recorded.get(model["name"], {}).get(field)
            if before is not None and before != model.get(field, before):
                return f"{what} differ for {model['name']!r}"
    return None
