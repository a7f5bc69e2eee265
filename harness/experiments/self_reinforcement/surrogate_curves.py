"""The unit of the surrogates' curves: fitted to the model's laws along training texts, read along repeated sentences.

The curves are about the model's own law at temperature 1, so surrogates are fitted to it, along continuations of the
training prompts with all strategies of the run. Sentences and preambles come from held-out prompts; no fit sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from ccmc import BaseTransition, NumberedText
from ccmc.context_logit import statistics_weights
from harness.core import registry
from harness.core.seeds import derive_seed
from harness.data.texts import FloatArray, LocalVocabulary, Text
from harness.experiments._shared.continuations import Continuation
from harness.experiments._shared.fidelity_rows import add_facts
from harness.experiments._shared.ladder import rungs, statistics_of
from harness.experiments.self_reinforcement.curves import add_curve
from harness.experiments.self_reinforcement.model_curves import rows_of
from harness.experiments.self_reinforcement.sentences import Repeated, repeated_texts, training_texts
from harness.experiments.self_reinforcement.settings import LOGITS
from harness.runs.units import Work
from harness.surrogates.base import Ingredients
from harness.surrogates.make import make
from harness.surrogates.observations import NextTokenObservations, pair_mass
from harness.surrogates.vocabulary_base import Law, ScoredText, VocabularyObservations, VocabularySurrogate

RAW, BASE = "raw", "model"


def measure(work: Work) -> pd.DataFrame:
    """Do all surrogates."""
    from harness.models import loading

    s = work.settings
    work.progress(0.0, "loading the model")
    model, rows = loading.model_of(work.local), rows_of(work)
    texts = [text for text in repeated_texts(work) if text.missing is None]
    train = training_texts(work)
    if not texts:
        return rows.frame()
    vocabulary = LocalVocabulary([c.tokens for c in train] + [text.tokens for text in texts])
    base = _base(work, model, vocabulary) if s["surrogates"] else None
    laws, restricted = [], []
    for number, c in enumerate(train):
        work.progress(0.4 + 0.2 * number / len(train), f"the model's laws, training text {number + 1} of {len(train)}")
        law, inside = laws_along(model, c, vocabulary, base)
        laws.append(law)
        restricted.append(inside)
    del model
    for index, name in enumerate(s["chains"]):
        work.progress(0.6 + 0.2 * index / len(s["chains"]), f"fitting {name}")
        chain = fitted_chain(name, s["seed"], train, restricted, vocabulary)
        add_facts(rows, chain.extra_rows(), surrogate=name)
        for text in texts:
            add_curve(rows, text, chain_along(chain, text, vocabulary), surrogate=name)
    if base is not None:
        scored = [
            ScoredText(c.prompt, c.group, 0, c.tokens, len(c.prompt_tokens), {RAW: law})
            for c, law in zip(train, laws, strict=True)
            if law is not None
        ]
        _add_vocabulary(work, rows, scored, base, texts)
    return rows.frame()


def _base(work: Work, model: Any, vocabulary: LocalVocabulary) -> BaseTransition:
    """Base transitions of all tokens that the unit reads, off the whole model."""
    from harness.models.base_reading import read_base

    def progress(share: float, what: str) -> None:
        work.progress(0.4 * share, what)

    return read_base(model, work.local["neutral"], vocabulary.ids, work.settings["top"], progress)


def laws_along(
    model: Any, c: Continuation, vocabulary: LocalVocabulary, base: BaseTransition | None
) -> tuple[Law | None, FloatArray]:
    """The model's law along one text: over all tokens, and [n, U] restricted to the context.

    Args:
        model: as it runs.
        c: the text; contexts are those in which its continuation is chosen.
        vocabulary: of the unit.
        base: whose expected logs the law gets; None: there is no law over all tokens.
    """
    from harness.models.base_reading import expected_log
    from harness.models.language_model import distributions_of

    tokens, start = c.tokens, len(c.prompt_tokens)
    with torch.inference_mode():
        whole = model(torch.as_tensor(tokens, device=model.device)[None], use_cache=False).logits[0]
        text = context_text(vocabulary, tokens, start)
        restricted = distributions_of(whole, tokens, text).restricted
        if base is None:
            return None, restricted
        p = torch.softmax(whole[start - 1 : -1].float(), -1)
        numbered = NumberedText.of(tokens)
        known = np.arange(len(numbered.types)) < numbered.sizes(start)[:, None]
        inside = p[:, torch.as_tensor(numbered.types, device=p.device)].double().cpu().numpy()
        came = p.gather(1, torch.as_tensor(tokens[start:], device=p.device)[:, None])[:, 0].double().cpu().numpy()
        entropy = torch.special.entr(p).sum(-1).double().cpu().numpy()
        expected = {BASE: expected_log(base, tokens[start - 1 : -1], p)}
    return Law(np.where(known, inside, 0.0), entropy, np.log(np.maximum(came, 1e-300)), expected), restricted


def context_text(vocabulary: LocalVocabulary, tokens: Any, start: int) -> Text:
    """A text whose contexts are those in which the tokens from `start` on are chosen."""
    return Text(vocabulary.local(tokens), start=start - 1, stop=len(tokens) - 1)


def fitted_chain(
    name: str,
    seed: int,
    train: Sequence[Continuation],
    restricted: Sequence[FloatArray],
    vocabulary: LocalVocabulary,
) -> Any:
    """A surrogate of the next token inside the context, fitted.

    Args:
        name: as declared.
        seed: of the run.
        train: training texts.
        restricted: [n, U] the model's law along each, restricted to the context.
        vocabulary: of the unit.
    """
    texts, size = [context_text(vocabulary, c.tokens, len(c.prompt_tokens)) for c in train], len(vocabulary)
    wins = [pair_mass(text, target[None], size) for text, target in zip(texts, restricted, strict=True)]
    seen = NextTokenObservations(texts, [c.prompt for c in train], wins, size, targets=list(restricted))
    return make(name, "next-token", Ingredients(derive_seed(seed, "self-reinforcement", name))).fit(seen)


def chain_along(chain: Any, text: Repeated, vocabulary: LocalVocabulary) -> FloatArray:
    """[K + 1, L] log-probability of each token of a text's repetitions, -inf outside its context."""
    of = context_text(vocabulary, text.tokens, text.first)
    p = chain.predict(of)[0]
    came = p[np.arange(len(of)), of.key_index[of.positions + 1]]
    with np.errstate(divide="ignore"):
        return text.table(np.log(came))


def _add_vocabulary(
    work: Work, rows: Any, scored: list[ScoredText], base: BaseTransition, texts: list[Repeated]
) -> None:
    """Rows of the surrogates over the whole vocabulary."""
    s = work.settings
    names = statistics_weights(statistics_of(s["statistics"]))
    observations = VocabularyObservations(scored, RAW, {BASE: base}, base.vocab_size)
    read = [ScoredText(text.prompt, text.group, 0, text.tokens, text.first, {}) for text in texts]
    if set(LOGITS) & set(s["surrogates"]):  # statistics of all rungs at once: each reads some of them
        observations.contexts(BASE, names)
        for one in read:
            one.contexts(base, names)
    plan = list(_plan(s))
    for index, (name, rung, surrogate) in enumerate(plan):
        work.progress(0.8 + 0.2 * index / len(plan), f"fitting {name}{', ' if rung else ''}{rung}")
        surrogate.fit(observations)
        condition = {"rung": rung} if rung else {}
        for fact in surrogate.extra_rows():
            where = {**fact.where, "condition": {**condition, **fact.where.get("condition", {})}}
            rows.add(fact.metric, fact.value, surrogate=name, split="train", **where)
        for text, one in zip(texts, read, strict=True):
            found = text.table(surrogate.along(one).log_next)
            add_curve(rows, text, found, surrogate=name, condition=condition)


def _plan(s: dict[str, Any]) -> Iterator[tuple[str, str, VocabularySurrogate]]:
    """(name, rung, surrogate that is not fitted), in the order of the ladder."""
    for name in [name for name in registry.surrogates("vocabulary") if name in s["surrogates"]]:
        made: Any = registry.surrogate(name, "vocabulary")
        if name in LOGITS:
            yield from ((name, rung, made(every, BASE)) for rung, every in rungs(tuple(s["statistics"])).items())
        else:
            yield name, "", made(BASE) if name == "bigram" else made()
