"""Are the token ids that a unit read the ones that its identity names?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from harness.core.errors import UsageError
from harness.core.hashing import canonical_hash
from harness.runs.stored import read_record
from harness.runs.writing import read_parquet

FILE = "trajectories.parquet"


def token_problems(folder: Path) -> list[str]:
    """Compare the ids of texts in a unit's trajectories with the hashes of ids in its settings.

    Args:
        folder: of the unit; one without trajectories, or whose settings name no texts, has nothing to compare.

    Returns:
        What is wrong: a line for each prompt, or one for the pieces of given texts, which have one hash.
    """
    try:
        settings = read_record(folder)["settings"]
    except ValueError:
        return []  # said already
    prompts, pieces = settings.get("prompts"), settings.get("pieces")
    if not (folder / FILE).is_file() or not (isinstance(prompts, list) or isinstance(pieces, str)):
        return []
    named = [one for one in prompts or [] if isinstance(one, dict) and "tokens_sha256" in one and "id" in one]
    ids = [one["id"] for one in named]
    problems = [f"its settings name prompt {name!r} twice" for name in sorted(set(ids)) if ids.count(name) > 1]
    try:
        frame = read_parquet(folder / FILE)
    except UsageError as error:
        return [*problems, str(error)]
    if not {"prompt", "prompt_tokens"} <= set(frame.columns):
        return problems
    if isinstance(pieces, str) and _pieces_hash(frame) != pieces:
        problems.append(f"{FILE}: the token ids of its texts are not those of its settings")
    return problems + _of_prompts(frame, named)


def _of_prompts(frame: pd.DataFrame, named: list[dict[str, Any]]) -> list[str]:
    """A line for each prompt that is missing, or has other ids."""
    problems = []
    found: dict[str, set[str]] = {}
    for name, tokens in zip(frame["prompt"], frame["prompt_tokens"], strict=True):
        found.setdefault(str(name), set()).add(canonical_hash([int(token) for token in tokens]))
    for one in named:
        if one["id"] not in found:
            problems.append(f"{FILE} lacks prompt {one['id']!r}")
        elif found[one["id"]] != {one["tokens_sha256"]}:
            problems.append(f"{FILE}: the token ids of prompt {one['id']!r} are not those of its settings")
    return problems


def _pieces_hash(frame: pd.DataFrame) -> str | None:
    """The hash of given texts as a unit stored them; None where they are not stored as they should be."""
    if not {"split", "seed"} <= set(frame.columns) or frame[["prompt", "split", "seed"]].isna().any(axis=None):
        return None
    columns = zip(frame["prompt"], frame["split"], frame["seed"], frame["prompt_tokens"], strict=True)
    return canonical_hash(
        [
            {"document": str(name), "split": str(split), "piece": int(piece), "tokens": [int(token) for token in ids]}
            for name, split, piece, ids in columns
        ]
    )
