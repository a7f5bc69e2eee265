"""Are the token ids that a unit read the ones that its identity names?"""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import UsageError
from harness.core.hashing import canonical_hash
from harness.runs.stored import read_record
from harness.runs.writing import read_parquet


def token_problems(folder: Path) -> list[str]:
    """Compare the ids of prompts in a unit's trajectories with the hashes of ids in its settings.

    Args:
        folder: of the unit; one without trajectories, or whose settings name no prompts, has nothing to compare.

    Returns:
        What is wrong, a line for each prompt.
    """
    file = folder / "trajectories.parquet"
    try:
        prompts = read_record(folder)["settings"].get("prompts")
    except ValueError:
        return []  # said already
    if not isinstance(prompts, list) or not file.is_file():
        return []
    named = [one for one in prompts if isinstance(one, dict) and "tokens_sha256" in one and "id" in one]
    ids = [one["id"] for one in named]
    problems = [f"its settings name prompt {name!r} twice" for name in sorted(set(ids)) if ids.count(name) > 1]
    try:
        frame = read_parquet(file)
    except UsageError as error:
        return [*problems, str(error)]
    if not {"prompt", "prompt_tokens"} <= set(frame.columns):
        return problems
    found: dict[str, set[str]] = {}
    for name, tokens in zip(frame["prompt"], frame["prompt_tokens"], strict=True):
        found.setdefault(str(name), set()).add(canonical_hash([int(token) for token in tokens]))
    for one in named:
        if one["id"] not in found:
            problems.append(f"trajectories.parquet lacks prompt {one['id']!r}")
        elif found[one["id"]] != {one["tokens_sha256"]}:
            problems.append(
                f"trajectories.parquet: the token ids of prompt {one['id']!r} are not those of its settings"
            )
    return problems
