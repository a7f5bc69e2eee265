"""Experiment `coverage`: which prompts determine the chain, and what is left free where they do not.

Four prompt distributions over a vocabulary cut into two halves:

    connected      every token independently uniform
    disconnected   the whole prompt inside one half
    rare           as disconnected, but a small share of the prompts as connected
    silent         as connected, but the last token of the vocabulary never comes last

The dimension of the solution set is measured without the co-occurrence graph: as the null space of the Hessian, less
one direction for each query (a constant added to a row changes nothing).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ccmc import CCMC, Contexts, NoMaximumLikelihoodEstimate, Observations, fit_mle, identifiability
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.claims import (
    Claims,
    mean,
    ratio_of_sums,
    read_rows,
    share,
    statistic_interval,
    values,
)
from harness.experiments._shared.sampling import FloatArray, IntArray, count_tokens, excess_risk, sample_rows
from harness.experiments._shared.teachers import attention_trained_on, hessians
from harness.runs.units import Work

DESIGNS = ("connected", "disconnected", "rare", "silent")
HELD_OUT = 4000
# Nothing ever pulls on a free direction, so trained model and fit leave it where they start, up to round-off.
STILL = 1e-6
TRAINED_AT_MOST = 25_600


def draw_prompts(design: str, n: int, K: int, length: int, rare: float, rng: np.random.Generator) -> IntArray:
    """Prompts [n, length] of a design."""
    everywhere = rng.integers(0, K, (n, length))
    if design == "silent":
        everywhere[:, -1] = rng.integers(0, K - 1, n)
    if design in {"connected", "silent"}:
        return everywhere
    half = K // 2
    upper = rng.random((n, 1)) < 0.5
    inside = np.where(upper, half + rng.integers(0, K - half, (n, length)), rng.integers(0, half, (n, length)))
    if design == "disconnected":
        return inside
    return np.where(rng.random((n, 1)) < rare, everywhere, inside)


def trained_size(sizes: Sequence[int]) -> int:
    """The sample size at which an attention model is trained beside the fit: large, but affordable."""
    return max([n for n in sizes if n <= TRAINED_AT_MOST], default=min(sizes))


def free_by_design(design: str, K: int) -> int:
    """Dimension of the solution set that a design leaves with endless data."""
    half = K // 2
    return {"connected": 0, "rare": 0, "silent": K - 1, "disconnected": 2 * half * (K - half)}[design]


def nullity(blocks: FloatArray) -> int:
    """Free directions of logits with Hessian blocks [K, K, K]: null space less one constant per query."""
    eigenvalues = np.linalg.eigvalsh(blocks)
    cut = 1e-9 * np.maximum(eigenvalues[:, -1:], 1e-12)
    return int((eigenvalues < cut).sum()) - len(blocks)


def split(theta: FloatArray, components: Any) -> tuple[FloatArray, FloatArray]:
    """Row-centred logits as (identified, free) parts: within components, and between them."""
    centred = theta - theta.mean(axis=1, keepdims=True)
    free = np.zeros_like(centred)
    for query, groups in enumerate(components):
        for group in groups:
            free[query, group] = centred[query, group].mean()
    return centred - free, free


def repetition(work: Work) -> pd.DataFrame:
    """One teacher, all designs and sample sizes."""
    s = work.settings
    K = s["vocab_size"]
    seed = derive_seed(s["seed"], "coverage", s["repetition"])
    rng = np.random.default_rng(seed)
    teacher = CCMC(rng.normal(0.0, s["logit_sd"], (K, K)))
    rows = Rows(experiment="coverage", model="one-layer", seed=s["repetition"])
    everything = rng.integers(0, K, (HELD_OUT, s["prompt_length"]))
    for step, design in enumerate(DESIGNS):
        own = draw_prompts(design, HELD_OUT, K, s["prompt_length"], s["rare"], rng)
        for n in s["observations"]:
            work.progress(step / len(DESIGNS), f"{design}, n = {n}")
            prompts = draw_prompts(design, n, K, s["prompt_length"], s["rare"], rng)
            train_too = s["repetition"] < s["trained_repetitions"] and n == trained_size(s["observations"])
            condition = {"K": K, "design": design, "n": n}
            _sample_of(rows, teacher, prompts, {"own": own, "all": everything}, condition, train_too, rng)
    return rows.frame()


def _sample_of(
    rows: Rows,
    teacher: CCMC,
    prompts: IntArray,
    held_out: dict[str, IntArray],
    condition: dict[str, Any],
    train_too: bool,
    rng: np.random.Generator,
) -> None:
    K, n = teacher.vocab_size, len(prompts)
    counts, query = count_tokens(prompts, K), prompts[:, -1]
    truth = teacher.next_token(counts, query)
    targets = sample_rows(truth, rng)
    observations = Observations(Contexts(counts, query), targets)
    found = identifiability(observations)
    blocks = hessians(truth, query, np.ones(n))
    rows.add("free_directions", found.free_directions, condition=condition, n=n)
    rows.add("nullity", nullity(blocks), condition=condition, n=n, prediction=found.free_directions)
    rows.add("no_mle", float(not found.mle_exists), condition=condition, n=n)
    try:
        fit = fit_mle(observations)
    except NoMaximumLikelihoodEstimate as error:
        for metric in ("identified_error", "free_error", "excess_risk"):
            rows.add(metric, None, missing=str(error), condition=condition, surrogate="ccmc-fit")
        return
    true = split(teacher.logits, found.components)
    fitted = split(fit.chain.logits, found.components)
    predicted = float(np.trace(np.linalg.pinv(blocks, rcond=1e-9, hermitian=True), axis1=1, axis2=2).sum())
    shared: dict[str, Any] = {"condition": condition, "surrogate": "ccmc-fit", "n": n}
    rows.add("identified_error", float(((fitted[0] - true[0]) ** 2).sum()), prediction=predicted, **shared)
    rows.add("free_error", float(((fitted[1] - true[1]) ** 2).sum()), prediction=float((true[1] ** 2).sum()), **shared)
    for name, of in held_out.items():
        c, q = count_tokens(of, K), of[:, -1]
        risk = excess_risk(teacher.next_token(c, q), fit.chain.next_token(c, q))
        expected = (K * (K - 1) - found.free_directions) / (2 * n) if name == "own" else None
        place = {**condition, "prompts": name}
        rows.add("excess_risk", risk, condition=place, surrogate="ccmc-fit", n=n, prediction=expected)
    if train_too:
        mass = np.eye(K)[targets]
        # contexts that repeat are trained on once, with all that came after them
        _, first, same = np.unique(np.column_stack([counts, query]), axis=0, return_index=True, return_inverse=True)
        grouped = np.zeros((len(first), K))
        np.add.at(grouped, same.ravel(), mass)
        trained, _ = attention_trained_on(prompts[first], grouped, K, seed=int(rng.integers(2**31)))
        parts = split(trained.logits, found.components)
        rows.add("trained_free", float(np.abs(parts[1]).max()), condition=condition, surrogate="model", n=n)
        gap = float(np.abs(parts[0] - fitted[0]).max() / np.sqrt(predicted / max(K * (K - 1), 1)))
        rows.add("trained_gap", gap, condition=condition, surrogate="model", n=n)
        rows.add("fit_free", float(np.abs(fitted[1]).max()), condition=condition, surrogate="ccmc-fit", n=n)


def pool(work: Work) -> pd.DataFrame:
    """Verdicts over all repetitions."""
    frame, claims = read_rows(work), Claims("coverage")
    K, largest = work.settings["vocab_size"], max(work.settings["observations"])
    for design in DESIGNS:
        of = frame[frame["at_design"] == design]
        both = of[of["metric"] == "nullity"]
        gap = (both["value"] - both["prediction"]).abs().astype(float)
        claims.bound(
            "nullity_gap",
            "null space of the Hessian = sum of (components - 1), largest difference",
            float(gap.max()),
            0.0,
            len(gap),
            K=K,
            design=design,
        )
        free = values(of, metric="free_directions", at_n=largest)
        claims.compare(
            "free_directions", "dimension of the solution set", mean(free), free_by_design(design, K),
            K=K, design=design, n=largest,
        )  # fmt: skip
        for n in work.settings["observations"]:
            none = values(of, metric="no_mle", at_n=n)
            claims.compare(
                "no_mle", "share of samples without an MLE", share(int(none.sum()), len(none)), None,
                design=design, n=n,
            )  # fmt: skip
        _errors(claims, of, design, largest)
    return claims.frame()


def _ratio(of: pd.DataFrame) -> FloatArray:
    """[R, 2] values and predictions of the repetitions that have both."""
    kept = of[of["value"].notna() & of["prediction"].notna()]
    pairs: FloatArray = kept[["value", "prediction"]].to_numpy(dtype=float)
    return pairs


def _errors(claims: Claims, of: pd.DataFrame, design: str, n: int) -> None:
    at = of[of["at_n"] == n]
    pairs = _ratio(at[at["metric"] == "identified_error"])
    claims.compare(
        "identified_error_ratio", "squared error of identified logits / tr(H^+)",
        statistic_interval(pairs, ratio_of_sums), 1.0, "ccmc-fit", design=design, n=n,
    )  # fmt: skip
    pairs = _ratio(at[(at["metric"] == "excess_risk") & (at["at_prompts"] == "own")])
    claims.compare(
        "excess_risk_ratio", "excess risk x 2n / identified directions, on prompts of the design",
        statistic_interval(pairs, ratio_of_sums), 1.0, "ccmc-fit", design=design, n=n,
    )  # fmt: skip
    risk = values(at, metric="excess_risk", at_prompts="all")
    claims.compare(
        "excess_risk", "excess risk on prompts of all tokens, nats", mean(risk), None, "ccmc-fit", design=design, n=n
    )
    pairs = _ratio(at[at["metric"] == "free_error"])
    if free_by_design(design, 4):
        claims.compare(
            "free_error_ratio", "squared error of free directions / the teacher's own square there",
            statistic_interval(pairs, ratio_of_sums), 1.0, "ccmc-fit", design=design, n=n,
        )  # fmt: skip
    n = trained_size([int(size) for size in of["at_n"].unique()])
    at = of[of["at_n"] == n]
    moved = np.concatenate([values(at, metric="trained_free"), values(at, metric="fit_free")])
    if len(moved):
        claims.bound(
            "free_moved", "trained model and fit leave free directions at 0, largest move",
            float(moved.max()), STILL, len(moved), design=design, n=n,
        )  # fmt: skip
        gap = values(at, metric="trained_gap")
        claims.bound(
            "trained_gap", "trained model = fit in identified logits, largest gap in standard errors",
            float(gap.max()), 0.01, len(gap), "model", design=design, n=n,
        )  # fmt: skip
