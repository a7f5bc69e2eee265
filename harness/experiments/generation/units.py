"""Experiment `generation`: do chains fitted to a model's next-token distributions repeat what the model repeats?

Per strategy: the model scores its own texts; its next-token distributions, restricted to the context, are what the
surrogates are fitted to (training prompts) and judged on (held-out prompts). Then every surrogate continues the
held-out prompts with the same strategy, cut to the real length, and is measured as the real continuations are.

Two rows frame the surrogates. Ceiling, `model-reseeded`: the model itself with another seed. Floor, `model-shuffled`:
the model's own continuations, each compared with the prompt of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import rel_entr

from harness.core import registry
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.data.texts import LocalVocabulary, Text
from harness.experiments._shared.comparison import Comparison, mean_field_winners
from harness.experiments._shared.continuations import (
    Continuation,
    decoding_condition,
    read_continuations,
)
from harness.experiments._shared.fidelity_rows import add_facts, add_finite, fidelity_means
from harness.experiments._shared.static_chains import ChainReader
from harness.measures.extra import measure_distributions
from harness.measures.fidelity import kl
from harness.runs.units import Work
from harness.runs.writing import write_parquet
from harness.surrogates._fitting.decoding import Decoding
from harness.surrogates._fitting.escape import Escape
from harness.surrogates._fitting.head_chains import HeadChain, single_losses
from harness.surrogates.base import Ingredients, NextTokenSurrogate
from harness.surrogates.make import make, needed
from harness.surrogates.observations import NextTokenObservations, pair_mass

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def best_chains(work: Work, chains: list[HeadChain], train: list[Scored], rows: Rows) -> list[HeadChain]:
    """The chains of heads that predict the training texts best, in that order; and a row for every head."""
    s = work.settings
    work.progress(0.6, "scoring the chains of heads")
    losses = single_losses(chains, [entry.text for entry in train], [entry.restricted for entry in train])
    n = sum(len(entry.text) for entry in train)
    for chain, loss in zip(chains, losses, strict=True):
        where: dict[str, Any] = {"layer": chain.layer, "head": chain.head, "surrogate": "ccmc-head", "split": "train"}
        add_finite(rows, "cross_entropy", float(loss), n=n, **where)
    return [chains[index] for index in np.argsort(losses, kind="stable")[: s["mixture_heads"]]]


def leaving_kl(mass: FloatArray, kl: FloatArray, leaving: FloatArray) -> FloatArray:
    """[n] KL over the tokens of the context and one more outcome, anything else.

    Args:
        mass: [n] what the model gives to the context.
        kl: [n] divergence within the context.
        leaving: [n] what the surrogate gives to anything else; 0 where the model leaves gives infinity.
    """
    left = np.clip(1.0 - mass, 0.0, 1.0)
    whole: FloatArray = mass * kl + rel_entr(mass, 1.0 - leaving) + rel_entr(left, leaving)
    return whole


@dataclass(frozen=True)
class Scored:
    """A continuation, its contexts, and the model's distributions over them."""

    continuation: Continuation
    text: Text
    restricted: FloatArray
    in_context_mass: FloatArray
    outside: Any


def strategy(work: Work) -> pd.DataFrame:
    """Do one strategy."""
    from harness.models import loading, tokenizers

    s = work.settings
    work.progress(0.0, "loading the model")
    path = Path(work.local["path"])
    model, tokenizer = loading.model_of(work.local), tokenizers.load_tokenizer(path)
    continuations = [c for folder in work.inputs for c in read_continuations(folder)]
    reseeded = {c.prompt: c for c in continuations if c.seed == s["reseeded"]}
    real = [c for c in continuations if c.seed != s["reseeded"]]
    vocabulary = LocalVocabulary(c.tokens for c in real)
    shared = {"model": s["model"], "revision": s["revision"], "strategy": s["strategy"]}
    rows = Rows(experiment="generation", split="held_out", **shared)
    known, needs = registry.surrogates("next-token"), needed(s["surrogates"], "next-token")
    wide = s["escape"] or any(known[name].open for name in s["surrogates"])
    reader = chain_reader(model, s, real, vocabulary) if "chains" in needs else None
    scored = score_texts(work, model, real, vocabulary, rows, reader, wide)
    train = [entry for entry in scored if entry.continuation.split == "train"]
    held_out = [entry for entry in scored if entry.continuation.split == "held_out"]
    if not train or not held_out:
        raise ValueError(
            "the model ended every training or every held-out prompt at once; there is nothing to fit or judge"
        )
    observations = observe(train, len(vocabulary), wide)
    chains = best_chains(work, reader.chains(), train, rows) if reader is not None else []
    seed = derive_seed(s["seed"], "generation", s["strategy"])
    escape = Escape(seed).fit(observations) if s["escape"] else None
    of_tokens = embeddings(model, vocabulary) if "embeddings" in needs else None
    given = Ingredients(seed, embeddings=of_tokens, chains=chains)
    fitted: dict[str, NextTokenSurrogate] = {}
    for index, name in enumerate(s["surrogates"]):
        work.progress(0.7 + 0.1 * index / len(s["surrogates"]), f"fitting {name}")
        surrogate = fitted[name] = make(name, "next-token", given).fit(observations)
        add_facts(rows, surrogate.extra_rows(), surrogate=name)
        for entry in held_out:
            _one_step(rows, name, surrogate, entry, escape, s["measures"])

    judged = [c for c in real if c.split == "held_out"]
    floor_seed = derive_seed(s["seed"], "floor", s["strategy"])
    about = decoding_condition(s["ignore_eos"])
    comparison = Comparison(rows, judged, reseeded, floor_seed, s["winners_at"], about, s["measures"])
    comparison.frame_rows()
    if s["mean_field"]:
        comparison.add_mean_field("ccmc-fit", _mean_field(fitted["ccmc-fit"], vocabulary, s))
    writers = {name: surrogate for name, surrogate in fitted.items() if known[name].rollout}
    trajectories = _continue(work, writers, comparison, vocabulary, tokenizer, escape)
    write_parquet(pd.DataFrame(trajectories), work.folder / "trajectories.parquet")
    return rows.frame()


def embeddings(model: Any, vocabulary: LocalVocabulary) -> FloatArray:
    """[K, D] of the local vocabulary."""
    found: FloatArray = model.get_input_embeddings().weight[torch.as_tensor(vocabulary.ids)].double().cpu().numpy()
    return found


def chain_reader(
    model: Any, s: dict[str, Any], real: Sequence[Continuation], vocabulary: LocalVocabulary
) -> ChainReader:
    """What gathers the inputs of heads over the training texts."""
    longest = max((len(c.tokens) for c in real if c.split == "train" and len(c.continuation)), default=0)
    return ChainReader(model, s["head_layers"], vocabulary, longest)


def score_texts(
    work: Work,
    model: Any,
    real: Sequence[Continuation],
    vocabulary: LocalVocabulary,
    rows: Rows,
    reader: ChainReader | None,
    wide: bool,
) -> list[Scored]:
    """The model's distributions along its continuations; those that it ended at once are left out.

    Args:
        work: of the unit.
        model: of `loading`.
        real: continuations.
        vocabulary: of all of them.
        rows: get the share of probability inside the context, per continuation.
        reader: takes the inputs of heads on the same pass over a training text.
        wide: keep what lies outside the context too.
    """
    from harness.attention import capture
    from harness.models.language_model import distributions_of, next_token_distributions

    scored: list[Scored] = []
    for index, c in enumerate(real):
        work.progress(0.6 * index / len(real), f"scoring text {index + 1} of {len(real)}")
        if len(c.continuation) == 0:
            continue
        text = Text(vocabulary.local(c.tokens), start=len(c.prompt_tokens) - 1, stop=len(c.tokens) - 1)
        kept = vocabulary.ids if wide else None
        if reader is not None and c.split == "train":
            logits = capture.listen_through(model, c.tokens, reader.layers, reader.text(c.tokens))
            found = distributions_of(logits, c.tokens, text, kept)
        else:
            found = next_token_distributions(model, c.tokens, text, kept)
        where: dict[str, Any] = {"split": c.split, "prompt": c.prompt, "seed": c.seed, "n": len(text)}
        rows.add("in_context_mass", float(found.in_context_mass.mean()), surrogate="model", **where)
        scored.append(Scored(c, text, found.restricted, found.in_context_mass, found.outside))
    return scored


def observe(train: Sequence[Scored], vocab_size: int, wide: bool) -> NextTokenObservations:
    """What surrogates are fitted to."""
    return NextTokenObservations(
        texts=[entry.text for entry in train],
        groups=[entry.continuation.prompt for entry in train],
        wins=[pair_mass(entry.text, entry.restricted[None], vocab_size) for entry in train],
        vocab_size=vocab_size,
        targets=[entry.restricted for entry in train],
        in_context_mass=[entry.in_context_mass for entry in train] if wide else (),
        outside=[entry.outside for entry in train] if wide else (),
    )


def _continue(
    work: Work,
    fitted: dict[str, NextTokenSurrogate],
    comparison: Comparison,
    vocabulary: LocalVocabulary,
    tokenizer: Any,
    escape: Escape | None,
) -> list[dict[str, Any]]:
    """Every surrogate continues the held-out prompts and is compared with the model; returns the trajectories."""
    s, judged = work.settings, comparison.real
    decoding = Decoding.of(s["temperature"], s["options"])
    prompts = {c.prompt: c.prompt_tokens for c in judged}
    local = [vocabulary.local(tokens) for tokens in prompts.values()]
    steps = [max(len(c.continuation) for c in judged if c.prompt == prompt) for prompt in prompts]
    shared = {"experiment": "generation", "model": s["model"], "strategy": s["strategy"], "split": "held_out"}
    trajectories: list[dict[str, Any]] = []
    total = len(fitted) * s["rollout_seeds"]
    for name, surrogate in fitted.items():
        for seed in range(s["rollout_seeds"]):
            done = len(trajectories) // max(len(prompts), 1)
            work.progress(0.8 + 0.2 * done / total, f"continuing with {name}, seed {seed}")
            rollout_seed = derive_seed(s["seed"], "rollout", s["strategy"], name, seed)
            rollouts = surrogate.rollout(local, steps, rollout_seed, decoding, escape, keys=list(prompts.values()))
            made = {prompt: vocabulary.ids[tokens] for prompt, tokens in zip(prompts, rollouts, strict=True)}
            comparison.add(name, seed, made)
            trajectories += [
                {
                    **shared,
                    "source": name,
                    "seed": seed,
                    "prompt": prompt,
                    "kind": None,
                    "prompt_tokens": prompts[prompt].tolist(),
                    "continuation": tokens.tolist(),
                    "text": tokenizer.decode(tokens, skip_special_tokens=False),
                }
                for prompt, tokens in made.items()
            ]
    return trajectories


def _one_step(
    rows: Rows,
    name: str,
    surrogate: NextTokenSurrogate,
    entry: Scored,
    escape: Escape | None,
    measures: Sequence[str],
) -> None:
    """Rows of one surrogate one token ahead, along one held-out text."""
    c, text = entry.continuation, entry.text
    where: dict[str, Any] = {"surrogate": name, "prompt": c.prompt, "seed": c.seed, "n": len(text)}
    predicted = surrogate.predict(text)
    for metric, values in fidelity_means(entry.restricted[None], predicted).items():
        add_finite(rows, metric, float(values[0]), **where)
    for metric, found in measure_distributions(measures, entry.restricted, predicted[0]).items():
        rows.add(metric, found.value, missing=found.missing, **where)
    leaving = surrogate.leaving(text)
    if leaving is None and escape is not None:
        leaving = escape.rates(text)
    if leaving is None:
        return
    rows.add("escape", float(leaving.mean()), **where)
    whole = leaving_kl(entry.in_context_mass, kl(entry.restricted, predicted[0]), leaving)
    add_finite(rows, "kl_with_escape", float(whole.mean()), **where)


def _mean_field(
    fit: NextTokenSurrogate, vocabulary: LocalVocabulary, settings: dict[str, Any]
) -> Callable[[Continuation], IntArray] | str:
    """What the mean field of a fitted chain says about the winners of a prompt, in the model's token ids."""
    if settings["temperature"] != 1.0 or settings["options"] or settings.get("model_defaults"):
        return "the mean field describes sampling at temperature 1 with nothing cut off"

    def predict(c: Continuation) -> IntArray:
        types, columns = np.unique(vocabulary.local(c.prompt_tokens), return_inverse=True)
        chain = fit.chain(types)
        assert chain is not None
        return vocabulary.ids[types[mean_field_winners(chain, columns, len(c.continuation))]]

    return predict
