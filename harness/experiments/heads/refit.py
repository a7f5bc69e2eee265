"""The chain of one head of a finished run, fitted again from the run's own texts: to be read in words, or exported.

A run does not keep the chains of its heads: with the local vocabulary they would be far larger than all the rest of it.
The texts, the seed and the settings are in the run, so the same fit comes out; the ridge that is chosen is held against
the one that the run recorded.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.core import registry
from harness.core.errors import UsageError, nearest
from harness.experiments._shared.weights import folder_of_weights, local_of, unit_records
from harness.runs.directory import RunDirectory
from harness.runs.resume import unfinished
from harness.runs.run import Run

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Progress = Callable[[float, str], None]
CHAINS = ("ccmc-fit", "ccmc-weights", "shuffled-weights")  # surrogates that are a chain without positions
TASK = "harness.experiments.heads.units:layers"


@dataclass(frozen=True)
class HeadFit:
    """The chain of one head.

    Attributes:
        model, layer, head, surrogate: which.
        ids: [K] the local vocabulary in the model's ids.
        counts: [K] how often each token occurs in the training texts, the first position left out.
        pieces: text of each token.
        fitted: the surrogate of the layer.
    """

    model: str
    layer: int
    head: int
    surrogate: str
    ids: IntArray
    counts: IntArray
    pieces: list[str]
    fitted: Any

    def logits(self, query: IntArray, key: IntArray) -> FloatArray:
        """[len(query), len(key)] base logits of tokens by local id, a constant per query left open."""
        prior = getattr(self.fitted, "prior", self.fitted)
        found: FloatArray = np.array(prior.logits(query, key)[self.head], dtype=float)
        if hasattr(self.fitted, "delta_"):
            found += self.fitted.delta_[self.head][query][:, key].toarray()
        return found

    def all_logits(self, tokens: IntArray, block: int = 256) -> FloatArray:
        """[n, n] base logits among some tokens by local id, query as the row."""
        parts = [self.logits(tokens[first : first + block], tokens) for first in range(0, len(tokens), block)]
        return np.concatenate(parts)


def parse_head(text: str) -> tuple[int, int]:
    """Layer and head of a text such as `5.3`.

    Raises:
        UsageError: anything else.
    """
    found = re.fullmatch(r"(\d+)\.(\d+)", text)
    if found is None:
        raise UsageError(f"--head {text!r}: write it as layer.head, such as 5.3")
    return int(found[1]), int(found[2])


def _unit_of(run: Run, layer: int, model: str | None) -> dict[str, Any]:
    """The record of the unit of heads that did a layer."""
    records = unit_records(run, TASK, "heads")
    names = sorted({record["settings"]["model"] for record in records})
    if model is None and len(names) > 1:
        raise UsageError(f"{run.path} has heads of several models; choose with --model: {', '.join(names)}")
    if model is not None and model not in names:
        raise UsageError(f"--model {model!r}{nearest(model, names)}")
    records = [record for record in records if record["settings"]["model"] == (model or names[0])]
    for record in records:
        if layer in record["settings"]["layers"]:
            found: dict[str, Any] = record
            return found
    layers = sorted(number for record in records for number in record["settings"]["layers"])
    raise UsageError(f"--head: the run has layers {', '.join(map(str, layers))}, not {layer}{unfinished(run)}")


def refit(
    run: Run, head: str, surrogate: str | None = None, model: str | None = None, progress: Progress = lambda s, w: None
) -> HeadFit:
    """Fit one head of a run again.

    Args:
        run: with the units of heads and of their texts.
        head: `layer.head`.
        surrogate: of `CHAINS`; `ccmc-fit` by default.
        model: which, where the run has several.
        progress: called with a description of each step.

    Raises:
        UsageError: a head, surrogate or model that the run does not have, weights that are not the run's, or texts with
            ids that the model has not; names the nearest.
    """
    from harness.core.rows import Rows
    from harness.experiments._shared.head_fits import fit_heads
    from harness.models.pieces import piece_maker
    from harness.runs.units import Work

    layer, number = parse_head(head)
    wanted = surrogate or CHAINS[0]
    if wanted not in CHAINS:
        known = registry.surrogates("heads").get(wanted)
        why = " has positions and is no chain of tokens alone" if known and "distance" in known.sees else ""
        raise UsageError(f"--surrogate {wanted!r}{why}{nearest(wanted, CHAINS)}")
    record = _unit_of(run, layer, model)
    settings = {**record["settings"], "layers": [layer], "surrogates": [wanted]}
    store = RunDirectory(run.path)
    inputs = [store.unit(key) for key in record["needs"]]
    for folder in inputs:
        if not folder.is_dir():
            raise UsageError(f"{folder}: the unit with the texts of the run is missing; export from the whole run")
    _check_head(run, settings["model"], layer, number)
    path = folder_of_weights(run, settings, "a head is fitted again from its weights", progress)
    _check_texts(run, inputs, settings["model"], path)
    local = local_of(run, settings, path)
    rows = Rows(experiment="heads", model=settings["model"], split="held_out")
    with tempfile.TemporaryDirectory() as folder_name:
        found = fit_heads(Work(settings, local, inputs, Path(folder_name), progress), rows)
    fitted = found.surrogates[layer][wanted]
    _check_ridge(run, settings["model"], layer, number, wanted, fitted)
    piece = piece_maker(path)
    pieces = [piece(int(token)) for token in found.vocabulary.ids]
    return HeadFit(settings["model"], layer, number, wanted, found.vocabulary.ids, found.counts, pieces, fitted)


def _check_texts(run: Run, folders: list[Path], model: str, path: Path) -> None:
    """Refuse stored texts with ids that the model has no tokens for."""
    from harness.data.tokenisation import check_ids
    from harness.experiments._shared.continuations import read_continuations
    from harness.models.loading import load_config

    size = int(load_config(path).vocab_size)
    for folder in folders:
        for text in read_continuations(folder):
            check_ids(text.tokens.tolist(), f"{run.path}: units/{folder.name}: text {text.prompt!r}", model, size)


def _check_head(run: Run, model: str, layer: int, head: int) -> None:
    rows = run.rows
    own = rows[(rows["experiment"] == "heads") & (rows["model"] == model) & (rows["layer"] == layer)]
    known = sorted(int(number) for number in own["head"].dropna().unique())
    if known and head not in known:
        raise UsageError(f"--head {layer}.{head}: layer {layer} has heads {known[0]} to {known[-1]}")


def _check_ridge(run: Run, model: str, layer: int, head: int, surrogate: str, fitted: Any) -> None:
    """The same texts and settings choose the same ridge; another one means that the fit is not the run's."""
    if not hasattr(fitted, "ridge_"):
        return
    rows = run.rows
    rows = rows[(rows["metric"] == "ridge") & (rows["surrogate"] == surrogate) & (rows["model"] == model)]
    rows = rows[(rows["layer"] == layer) & (rows["head"] == head)]
    if rows.empty:
        return
    recorded = np.inf if rows["value"].isna().iloc[0] else float(rows["value"].iloc[0])
    if not np.isclose(recorded, fitted.ridge_[head]):
        raise UsageError(
            f"{run.path}: head {layer}.{head} comes out with ridge {fitted.ridge_[head]:g}, the run recorded "
            f"{recorded:g}: it was made by other source code; run the config again"
        )
