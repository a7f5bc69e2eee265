"""Experiment `positions`: positions in the one-layer model, in what it predicts and in who wins.

Three kinds of positions, each with the chain that should equal it: a score per distance (`additive`), position
embeddings added where scores are formed (`learned`), rotated queries and keys (`rotary`). A teacher of each kind emits
one token after each prompt; a student of its kind is trained on them, a position-blind chain is fitted to the counts.

Recency: a chain whose contexts fade by exp(-rate) per token is simulated from one prompt. At rate 0 it is the ordinary
walk; with any other rate the memory is finite, and theory expects a single token in the end, as with a finite window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from ccmc import (
    CCMC,
    Contexts,
    DistanceChain,
    EmbeddedPositionChain,
    NoMaximumLikelihoodEstimate,
    Observations,
    PositionalChain,
    RotaryChain,
    fit_mle,
)
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.claims import Claims, mean, read_rows, values
from harness.experiments._shared.sampling import FloatArray, IntArray, count_tokens, excess_risk, sample_rows
from harness.models.one_layer_config import OneLayerConfig, rotary_frequencies
from harness.models.one_layer_hf import OneLayerForCausalLM
from harness.models.training import Examples, Recipe, train
from harness.runs.units import Work

KINDS = ("additive", "learned", "rotary")
RATES = (0.0, 0.02, 0.1, 0.5)
LOGIT_SD = 0.5
TAIL = 128
EXACT = 1e-10
_CHECKED = 100


def teacher_model(kind: str, K: int, length: int, rng: np.random.Generator) -> OneLayerForCausalLM:
    """A model with random scores; its embeddings are orthonormal, its distance profile prefers the near past."""
    model = blank_model(kind, K, length, rng)
    d = model.config.dimension
    layer: Any = model.layers[0]
    layer.W.data = torch.as_tensor(rng.normal(0, LOGIT_SD, (1, d, d)))
    if kind == "additive":
        layer.scores.distance.data = torch.as_tensor(-np.log1p(np.arange(length)))
    elif kind == "learned":
        model.U.data = torch.as_tensor(rng.normal(0, d**-0.5, (length, d)))
    return model


def blank_model(kind: str, K: int, length: int, rng: np.random.Generator) -> OneLayerForCausalLM:
    """A model of a kind with W = 0, its embeddings orthonormal."""
    model: OneLayerForCausalLM = OneLayerForCausalLM(
        OneLayerConfig(vocab_size=K, dimension=2 * K, positions=kind, max_positions=length)
    )
    model.double()
    model.E.data = torch.as_tensor(np.ascontiguousarray(np.linalg.qr(rng.normal(size=(2 * K, K)))[0].T))
    return model.eval()  # type: ignore[no-any-return]


def chain_off(model: OneLayerForCausalLM) -> PositionalChain:
    """The position-aware chain read off a model's weights."""
    E = model.E.detach().numpy()
    layer: Any = model.layers[0]
    W = layer.W.detach()[0].numpy()
    if model.config.positions == "additive":
        return DistanceChain((E @ W @ E.T).T, layer.scores.distance.detach().numpy())
    if model.config.positions == "learned":
        return EmbeddedPositionChain(E, model.U.detach().numpy(), W)
    return RotaryChain(E, E @ W, rotary_frequencies(E.shape[1] // 2).numpy())


@torch.no_grad()
def model_rows(model: OneLayerForCausalLM, prompts: IntArray) -> FloatArray:
    """Next-token probabilities [n, K] of a model."""
    found: FloatArray = torch.softmax(model(torch.as_tensor(prompts), logits_to_keep=1).logits[:, 0], -1).numpy()
    return found


def repetition(work: Work) -> pd.DataFrame:
    """Teachers, students and blind fits of every kind, then walks with recency."""
    s = work.settings
    K, L, n = s["vocab_size"], s["prompt_length"], s["observations"]
    seed = derive_seed(s["seed"], "positions", s["repetition"])
    rng = np.random.default_rng(seed)
    rows = Rows(experiment="positions", model="one-layer", split="held_out", seed=s["repetition"], n=s["prompts"])
    held_out = rng.integers(0, K, (s["prompts"], L))
    held_counts = count_tokens(held_out, K)
    for step, kind in enumerate(KINDS):
        work.progress(step / 4, f"training with {kind} positions")
        teacher = teacher_model(kind, K, L, rng)
        prompts = rng.integers(0, K, (n, L))
        targets = sample_rows(model_rows(teacher, prompts), rng)
        student = blank_model(kind, K, L, rng)
        student.E.data = teacher.E.data.clone()
        if kind == "learned":  # at U = 0 = W nothing would ever move
            student.U.data = torch.as_tensor(rng.normal(0, 0.1, tuple(student.U.shape)))
        examples = Examples(torch.as_tensor(prompts), mass=torch.as_tensor(np.eye(K)[targets]))
        recipe = Recipe(optimiser="lbfgs", steps=s["steps_of_training"], tolerance=1e-7)
        outcome = train(student, examples, recipe, seed=seed, folder=_folder(work, kind))
        condition = {"positions": kind, "K": K, "prompt_length": L, "observations": n}
        rows.add("gradient", outcome.gradient, surrogate="model", condition=condition, n=n)
        for name, model in (("teacher", teacher), ("trained", student)):
            gap = np.abs(model_rows(model, held_out[:_CHECKED]) - chain_off(model).next_token(held_out[:_CHECKED]))
            rows.add(
                "equivalence_error",
                float(gap.max()),
                surrogate="pccmc-weights",
                condition={**condition, "weights": name},
            )
        truth = model_rows(teacher, held_out)
        predicted = (K * (K - 1) + L - 1) / (2 * n) if kind == "additive" else None
        found = excess_risk(truth, model_rows(student, held_out))
        rows.add("excess_risk", found, surrogate="pccmc-weights", condition=condition, prediction=predicted)
        flat = held_counts / held_counts.sum(axis=1, keepdims=True)
        rows.add("excess_risk", excess_risk(truth, flat), surrogate="counts", condition=condition)
        try:
            blind = fit_mle(Observations(Contexts(count_tokens(prompts, K), prompts[:, -1]), targets)).chain
        except NoMaximumLikelihoodEstimate as error:
            rows.add("excess_risk", None, missing=str(error), surrogate="ccmc-fit", condition=condition)
        else:
            of_blind = blind.next_token(held_counts, held_out[:, -1])
            rows.add("excess_risk", excess_risk(truth, of_blind), surrogate="ccmc-fit", condition=condition)
    work.progress(0.8, "walks with recency")
    _recency(rows, s, seed)
    return rows.frame()


def _folder(work: Work, kind: str) -> Any:
    folder = work.folder / f"trained-{kind}"
    folder.mkdir()
    return folder


def fading_walk(chain: CCMC, prompt: IntArray, rate: float, steps: int, paths: int, seed: int) -> IntArray:
    """[paths, steps] continuations of one prompt when the count of a token fades by exp(-rate) with every step."""
    rng = np.random.default_rng(seed)
    age = np.arange(len(prompt))[::-1]
    start = np.bincount(prompt, weights=np.exp(-rate * age), minlength=chain.vocab_size)
    weight: FloatArray = np.tile(start, (paths, 1))
    query: IntArray = np.full(paths, prompt[-1])
    P, out, every = chain.transition, np.empty((paths, steps), dtype=np.int64), np.arange(paths)
    for step in range(steps):
        query = sample_rows(weight * P[query], rng)
        weight *= np.exp(-rate)
        np.add.at(weight, (every, query), 1.0)
        out[:, step] = query
    return out


def _recency(rows: Rows, s: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(derive_seed(seed, "recency"))
    K = 5
    chain, prompt = CCMC(rng.normal(0, 1, (K, K))), rng.permutation(np.repeat(np.arange(K), 2))
    for rate in RATES:
        made = fading_walk(chain, prompt, rate, s["steps"], s["paths"], derive_seed(seed, "walk", rate))
        tail = made[:, -TAIL:]
        shares = np.stack([np.bincount(path, minlength=K) for path in tail]) / TAIL
        condition = {"rate": rate, "T": s["steps"], "K": K}
        rows.add("top_share", float(shares.max(axis=1).mean()), n=s["paths"], condition=condition)
        rows.add("one_left", float((shares.max(axis=1) == 1).mean()), n=s["paths"], condition=condition)
        winners = np.bincount(shares.argmax(axis=1), minlength=K) / s["paths"]
        rows.add(
            "winner_entropy", float(-(winners[winners > 0] * np.log(winners[winners > 0])).sum()), condition=condition
        )


def pool(work: Work) -> pd.DataFrame:
    """Verdicts over all repetitions."""
    frame, claims = read_rows(work), Claims("positions")
    for kind in KINDS:
        of = frame[frame["at_positions"] == kind]
        for weights in ("teacher", "trained"):
            found = values(of, metric="equivalence_error", at_weights=weights)
            claims.bound(
                "equivalence_error", "model = position-aware chain off its weights, largest error", float(found.max()),
                EXACT, len(found), positions=kind, weights=weights,
            )  # fmt: skip
        claims.compare(
            "gradient", "largest gradient entry when training stopped, nats", mean(values(of, metric="gradient")), None,
            positions=kind,
        )  # fmt: skip
        for surrogate in ("counts", "ccmc-fit", "pccmc-weights"):
            risk = of[(of["metric"] == "excess_risk") & (of["surrogate"] == surrogate)]
            claims.compare(
                "excess_risk", "excess risk, teacher with positions, nats", mean(values(risk)), None, surrogate,
                positions=kind,
            )  # fmt: skip
            expected = risk["prediction"].dropna()
            if len(expected):
                claims.compare(
                    "excess_risk_ratio", "excess risk x 2n/(K(K-1) + L - 1), with distance scores",
                    mean(values(risk) / float(expected.iloc[0])), 1.0, surrogate, positions=kind,
                )  # fmt: skip
    for rate in RATES:
        of = frame[frame["at_rate"] == rate]
        T = int(of["at_T"].iloc[0])
        claims.compare(
            "one_left", "share of paths whose last 128 tokens are one token, with a fading memory",
            mean(values(of, metric="one_left")), 1.0 if rate > 0 else None, rate=rate, T=T,
        )  # fmt: skip
        for metric, label in (
            ("top_share", "share of the last 128 tokens that the most frequent has"),
            ("winner_entropy", "entropy over paths of who that is, nats"),
        ):
            claims.compare(metric, label, mean(values(of, metric=metric)), None, rate=rate, T=T)
    return claims.frame()
