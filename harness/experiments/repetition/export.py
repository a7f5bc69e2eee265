"""A surrogate of a finished run as a model of transformers: fitted again from the run's own texts, with a model card.

One fold of one strategy is exported: a fit that saw nothing of the prompts which the run judged it on. The held-out
loss in the card is that of the rows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccmc import BaseTransition, ContextLogit
from harness.core import registry
from harness.core.errors import UsageError, nearest
from harness.experiments._shared.cards import card, held_out_mean
from harness.experiments._shared.ladder import rungs, split
from harness.experiments._shared.weights import folder_of_weights, inputs_of, records_of
from harness.experiments.repetition.opened import Opened
from harness.experiments.repetition.sources import LOGITS
from harness.experiments.repetition.units import make
from harness.runs.resume import unfinished
from harness.runs.run import Run
from harness.runs.units import Work

TASK = "harness.experiments.repetition.units:fold"
EXPORTED = (*LOGITS, "bigram", "suffix", "unigram")


@dataclass(frozen=True)
class Wanted:
    """Which fit of a run.

    Attributes:
        surrogate: of `EXPORTED`.
        strategy: by its name in rows; None: the first.
        rung: of a context logit, by the entry that it adds; None: the last.
        fold: its number.
        law: `decoded` or `raw`.
        model: None: the run's only one.
        compact: leave out the logits of base transitions: rows keep their likeliest tokens and a common tail.
    """

    surrogate: str
    strategy: str | None = None
    rung: str | None = None
    fold: int = 0
    law: str = "decoded"
    model: str | None = None
    compact: bool = False


def export(run: Run, wanted: Wanted, folder: Path, progress: Callable[[float, str], None] = lambda s, w: None) -> Any:
    """Write a surrogate as a model with tokenizer and card.

    Args:
        run: of the experiment `repetition`, with its units.
        wanted: which fit.
        folder: where to; it gets config.json, model.safetensors, the tokenizer and README.md.
        progress: called with a description of each step.

    Returns:
        The model.

    Raises:
        UsageError: a fit that the run does not have; names the nearest.
    """
    from harness.models.tokenizers import load_tokenizer

    record = _record(run, wanted)
    s = record["settings"]
    rung, statistics = _rung(wanted, s)
    path = folder_of_weights(run, s, "its tokenizer goes with the export", progress)
    inputs = inputs_of(run, record)
    with tempfile.TemporaryDirectory() as name:
        progress(0.1, "reading texts")
        opened = Opened.of(Work(s, {}, inputs, Path(name), progress))
        progress(0.3, f"fitting {wanted.surrogate}")
        fitted: Any = make(wanted.surrogate, statistics, opened.chosen).fit(opened.observations(wanted.law))
    tokenizer = load_tokenizer(path)
    made = _model(fitted, wanted, _about(run, wanted, s, rung), tokenizer)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(_card(run, wanted, s, rung, made.config), encoding="utf-8")
    return made


def _record(run: Run, wanted: Wanted) -> dict[str, Any]:
    """The record of the unit that made the fit."""
    records = records_of(run, TASK, "repetition", wanted.model, wanted.strategy)
    folds = sorted(one["settings"]["judged"] for one in records)
    found: dict[str, Any] | None = next((one for one in records if one["settings"]["judged"] == wanted.fold), None)
    if found is None:
        raise UsageError(f"--fold {wanted.fold}: the run has {', '.join(map(str, folds))}{unfinished(run)}")
    return found


def _rung(wanted: Wanted, s: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The rung and its statistics."""
    known = registry.surrogates("vocabulary")
    if wanted.surrogate not in EXPORTED:
        why = f"{', '.join(EXPORTED)} can be exported"
        raise UsageError(f"--surrogate {wanted.surrogate!r}: {why}{nearest(wanted.surrogate, known)}")
    if wanted.law not in ("decoded", "raw"):
        raise UsageError(f"--law {wanted.law!r}: decoded or raw")
    if wanted.surrogate not in LOGITS:
        if wanted.rung is not None:
            raise UsageError(f"--rung goes with {' or '.join(LOGITS)}, not with {wanted.surrogate}")
        return "", ()
    ladder = rungs(tuple(s["statistics"]))
    rung = list(ladder)[-1] if wanted.rung is None else " + ".join(split(wanted.rung))
    if rung not in ladder:
        raise UsageError(f"--rung {wanted.rung!r}: the run has {', '.join(ladder)}{nearest(rung, ladder)}")
    return rung, ladder[rung]


def _model(fitted: Any, wanted: Wanted, about: str, tokenizer: Any) -> Any:
    """The fit as a model of transformers."""
    from harness.hf import CCMCForCausalLM

    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if wanted.surrogate == "suffix":
        return CCMCForCausalLM.from_suffix(fitted.unigram_, fitted.weights_, about, **ids)
    logit: ContextLogit = fitted.model_
    base = logit.base
    if wanted.compact and base.factors is not None:
        if "similarity" in logit.names:
            raise UsageError("--compact leaves out the embeddings that the statistic similarity reads")
        base = BaseTransition(base.row, base.tokens, base.log_p, base.log_scale, base.log_unigram)
        logit = ContextLogit(logit.weights, base, logit.closed, logit.offset)
    return CCMCForCausalLM.from_context_logit(logit, about, **ids)


def _about(run: Run, wanted: Wanted, s: dict[str, Any], rung: str) -> str:
    name = f"{wanted.surrogate}, up to {rung}" if rung else wanted.surrogate
    tail = ""
    if wanted.surrogate in (*LOGITS, "bigram"):
        kept = "its likeliest tokens and a tail in the proportions of a unigram"
        tail = f"; a row of P0 keeps {kept}" if wanted.compact else "; rows of P0 are as they were fitted with"
    return (
        f"{name} fitted to the {wanted.law} law of {s['model']} under {s['strategy']}, without the prompts of fold "
        f"{s['judged']} of the run {run.name}{tail}"
    )


def _card(run: Run, wanted: Wanted, s: dict[str, Any], rung: str, config: Any) -> str:
    """The model card."""
    rows = run.rows
    own = rows[(rows["metric"] == "log_loss") & (rows["surrogate"] == wanted.surrogate) & (rows["model"] == s["model"])]
    own = own[(own["strategy"] == s["strategy"]) & (own["fold"] == s["judged"])]
    at = own["condition"].map(lambda text: json.loads(text) if isinstance(text, str) else {})
    plain = at.map(lambda one: one.get("law", wanted.law) == wanted.law and one.get("rung", "") == rung
                   and not {"without", "refined"} & set(one))  # fmt: skip
    values = own.loc[plain.to_numpy(dtype=bool), "value"].dropna().to_numpy(dtype=float)
    lines = []
    if len(values):
        lines.append(
            f"Held-out loss on {len(values)} texts of the model that it has not seen: {held_out_mean(values)} nats a "
            "token (mean over texts; 95 %, bootstrap)."
        )
    return card(run, wanted.surrogate, s["model"], config, lines)
