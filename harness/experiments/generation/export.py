"""A surrogate of a finished run as a model of transformers: fitted again from the run's own texts, with a model card.

The texts are read from the run, the model scores the training texts once more, and the surrogate and its escape are
fitted as they were in the run. The card has the divergences of the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.core import registry
from harness.core.errors import UsageError, nearest
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.data.texts import LocalVocabulary
from harness.experiments._shared.cards import card, held_out_mean
from harness.experiments._shared.continuations import read_continuations
from harness.experiments._shared.weights import folder_of_weights, inputs_of, local_of, records_of
from harness.experiments.generation import units
from harness.experiments.generation.opening import EXPORTED, open_law
from harness.hf.escape_law import OWN_ROWS, EscapeLaw
from harness.runs.run import Run
from harness.runs.units import Work
from harness.surrogates._fitting.escape import Escape
from harness.surrogates.base import Ingredients
from harness.surrogates.make import make, needed

Progress = Callable[[float, str], None]
TASK = "harness.experiments.generation.units:strategy"


@dataclass(frozen=True)
class Wanted:
    """Which fit of a run.

    Attributes:
        surrogate: of `EXPORTED`.
        strategy: by its name in rows; None: the first.
        model: None: the run's only one.
        closed: leave the escape out: tokens outside the context get -inf.
    """

    surrogate: str
    strategy: str | None = None
    model: str | None = None
    closed: bool = False


def export(run: Run, wanted: Wanted, folder: Path, progress: Progress = lambda s, w: None) -> Any:
    """Write a surrogate as a model with tokenizer and card.

    Args:
        run: of the experiment `generation`, with its units.
        wanted: which fit.
        folder: where to; it gets config.json, model.safetensors, the tokenizer and README.md.
        progress: called with a description of each step.

    Returns:
        The model.

    Raises:
        UsageError: a surrogate that cannot be exported or that the run does not have; names those that can be.
    """
    from harness.hf import CCMCForCausalLM
    from harness.models import loading, tokenizers

    record = _record(run, wanted)
    s, inputs = record["settings"], inputs_of(run, record)
    path = folder_of_weights(run, s, "the surrogate is fitted again to what it says", progress)
    model = loading.model_of(local_of(run, s, path))
    with tempfile.TemporaryDirectory() as name:
        law, fitted, rate = _fit(Work(s, {}, inputs, Path(name), progress), model, wanted)
    _check_ridge(run, s, wanted.surrogate, fitted)
    tokenizer = tokenizers.load_tokenizer(path)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    known = int(law.elsewhere.known.sum())
    about = {"known": known} if law.inside in OWN_ROWS else {"known": known, "rate": rate}
    made = CCMCForCausalLM.from_escape(law, _about(run, wanted, s, law), escape=about, **ids)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    text = card(run, wanted.surrogate, s["model"], made.config, _lines(run, s, wanted))
    (folder / "README.md").write_text(text, encoding="utf-8")
    return made


def _record(run: Run, wanted: Wanted) -> dict[str, Any]:
    """The record of the unit that made the fit."""
    name = wanted.surrogate
    if name not in EXPORTED:
        why = nearest(name, EXPORTED)
        raise UsageError(f"--surrogate {name!r} cannot be exported{why}; of generation {', '.join(EXPORTED)} can be")
    if wanted.closed and name == "bigram":
        raise UsageError("--closed: bigram does not know the context; bigram-restricted is the bigram that stays in it")
    found = records_of(run, TASK, "generation", wanted.model, wanted.strategy)[0]
    there = [one for one in found["settings"]["surrogates"] if one in EXPORTED]
    if name not in there:
        raise UsageError(f"--surrogate {name!r}: the run has {', '.join(there) or 'none that can be exported'}")
    return found


def _fit(work: Work, model: Any, wanted: Wanted) -> tuple[Any, Any, float]:
    """The law, the fitted surrogate, and how often the model leaves its context on average."""
    s = work.settings
    every = [c for folder in work.inputs for c in read_continuations(folder)]
    real = [c for c in every if c.seed != s["reseeded"]]
    vocabulary = LocalVocabulary(c.tokens for c in real)
    train = [c for c in real if c.split == "train"]
    needs = needed([wanted.surrogate], "next-token")
    reader = units.chain_reader(model, s, train, vocabulary) if "chains" in needs else None
    scored = units.score_texts(work, model, train, vocabulary, Rows(experiment="generation"), reader, True)
    if not scored:
        raise UsageError("the model ended every training prompt at once; there is nothing to fit")
    whole = units.observe(scored, len(vocabulary), True)
    known = registry.surrogates("next-token")
    wide = s["escape"] or any(known[name].open for name in s["surrogates"] if name in known)
    seed = derive_seed(s["seed"], "generation", s["strategy"])  # as in the run
    work.progress(0.7, f"fitting {wanted.surrogate}")
    own = whole if wide else replace(whole, in_context_mass=(), outside=())
    given = Ingredients(
        seed,
        embeddings=units.embeddings(model, vocabulary) if "embeddings" in needs else None,
        chains=units.best_chains(work, reader.chains(), scored, Rows(experiment="generation")) if reader else [],
    )
    fitted = make(wanted.surrogate, "next-token", given).fit(own)
    work.progress(0.9, "fitting how it leaves the context")
    size = int(model.config.get_text_config().vocab_size)
    law = open_law(wanted.surrogate, fitted, Escape(seed).fit(whole), whole, vocabulary.ids, size)
    rate = float(np.mean(1.0 - np.concatenate(list(whole.in_context_mass))))
    return replace(law, closed=wanted.closed), fitted, rate


def _check_ridge(run: Run, s: dict[str, Any], name: str, fitted: Any) -> None:
    """The same texts and settings choose the same ridge; another one means that the fit is not the run's."""
    rows = run.rows
    rows = rows[(rows["experiment"] == "generation") & (rows["metric"] == "ridge") & (rows["surrogate"] == name)]
    rows = rows[(rows["model"] == s["model"]) & (rows["strategy"] == s["strategy"])]
    if rows.empty or not hasattr(fitted, "ridge_"):
        return
    recorded = np.inf if rows["value"].isna().iloc[0] else float(rows["value"].iloc[0])
    chosen = float(np.ravel(fitted.ridge_)[0])
    if not np.isclose(recorded, chosen):
        raise UsageError(
            f"{run.path}: {name} comes out with ridge {chosen:g}, the run recorded {recorded:g}: it was made "
            "by other source code; run the config again"
        )


def _about(run: Run, wanted: Wanted, s: dict[str, Any], law: EscapeLaw) -> str:
    name, known = wanted.surrogate, int(law.elsewhere.known.sum())
    fit = f"{name} fitted to the next-token distributions of {s['model']} along the training texts of {s['strategy']}"
    if wanted.closed:
        return f"{fit} in the run {run.name}; closed: it never leaves its context"
    if law.inside in OWN_ROWS:
        return f"{fit} in the run {run.name}; open: tokens beside the {known} of the run's texts share one mass"
    if law.forms is not None:
        fit += ", where tokens that no text of the run has count as the mean of the others"
    return (
        f"{fit} in the run {run.name}; open: it leaves its context as often as the model did after each token, for one "
        f"of {known} tokens of the training texts or for the others, which share one mass"
    )


def _lines(run: Run, s: dict[str, Any], wanted: Wanted) -> list[str]:
    """What the rows of the run say about it."""
    rows = run.rows
    own = rows[(rows["experiment"] == "generation") & (rows["surrogate"] == wanted.surrogate)]
    own = own[(own["model"] == s["model"]) & (own["strategy"] == s["strategy"]) & (own["split"] == "held_out")]
    said = []
    for metric, what in (("kl", "tokens of the context"), ("kl_with_escape", "these and leaving the context")):
        values = own[own["metric"] == metric]["value"].dropna().to_numpy(dtype=float)
        if len(values):
            said.append(f"{held_out_mean(values)} nats a token over {what}")
    temperature = s["temperature"]
    decoded = "greedily" if temperature is None else f"at temperature {temperature:g}"
    lines = [
        "It is the model's law before decoding: the run continued prompts with it "
        f"{decoded}, as the model itself ({s['strategy']})."
    ]
    if said:
        lines.insert(0, f"Divergence of the model from it on held-out texts: {', '.join(said)} (mean over texts; 95 %, "
                        "bootstrap).")  # fmt: skip
    return lines
