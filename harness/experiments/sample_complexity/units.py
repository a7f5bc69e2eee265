"""Experiment `sample-complexity`: what n observations teach about K(K-1) logits.

The prompts of a repetition are a fixed pool, drawn anew for each repetition; an observation is a prompt of the pool,
uniformly drawn, and a token from the teacher. The n observations then enter as how often each token came after each
prompt, which is all that the likelihood knows, so five million cost no more than a thousand, and excess risk is a sum
over the pool: exact, with no held-out sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from ccmc import CCMC, Contexts, NoMaximumLikelihoodEstimate, Observations, fit_mle
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.claims import (
    Claims,
    ratio_of_sums,
    read_rows,
    share,
    slope,
    statistic_interval,
)
from harness.experiments._shared.sampling import FloatArray, IntArray, count_tokens, excess_risk
from harness.experiments._shared.teachers import attention_trained_on, dirichlet_chain, gaussian_chain, hessians
from harness.runs.units import Work

FAMILIES = ("gaussian", "dirichlet")


def repetition(work: Work) -> pd.DataFrame:
    """One pool of prompts, one teacher of each family, all sample sizes."""
    s = work.settings
    K = s["vocab_size"]
    seed = derive_seed(s["seed"], "sample-complexity", K, s["repetition"])
    rng = np.random.default_rng(seed)
    prompts = rng.integers(0, K, (s["prompts"], s["prompt_length"]))
    teachers = {"gaussian": gaussian_chain(K, s["logit_sd"], rng), "dirichlet": dirichlet_chain(K, rng)}
    rows = Rows(experiment="sample-complexity", model="one-layer", split="held_out", seed=s["repetition"])
    sizes = s["per_square"]
    for step, (family, teacher) in enumerate(teachers.items()):
        for index, per_square in enumerate(sizes):
            work.progress((step + index / len(sizes)) / 2, f"{family}, n = {per_square} K^2")
            train_too = (
                family == "gaussian" and s["repetition"] < s["trained_repetitions"] and index in {0, len(sizes) - 1}
            )
            n = per_square * K * K
            condition = {"family": family, "K": K, "n": n, "per_square": per_square}
            folder = work.folder / f"trained-{per_square}" if train_too else None
            _sample_of(rows, teacher, prompts, n, condition, folder, rng)
    return rows.frame()


def _sample_of(
    rows: Rows,
    teacher: CCMC,
    prompts: IntArray,
    n: int,
    condition: dict[str, Any],
    folder: Path | None,
    rng: np.random.Generator,
) -> None:
    K, pool = teacher.vocab_size, len(prompts)
    counts, query = count_tokens(prompts, K), prompts[:, -1]
    truth = teacher.next_token(counts, query)
    drawn = rng.multinomial(n, np.full(pool, 1 / pool))
    mass = rng.multinomial(drawn, truth / truth.sum(axis=1, keepdims=True)).astype(float)
    seen = drawn > 0
    observations = Observations(
        Contexts(counts[seen], query[seen]), mass[seen] / drawn[seen, None], drawn[seen].astype(float)
    )
    blocks = hessians(truth, query, np.full(pool, 1 / pool))
    predicted = {
        "excess_risk": K * (K - 1) / (2 * n),
        "logit_error": float(np.trace(np.linalg.pinv(blocks, rcond=1e-9, hermitian=True), axis1=1, axis2=2).sum()) / n,
    }
    shared: dict[str, Any] = {"condition": condition, "n": n}

    def measured(chain: CCMC, surrogate: str) -> None:
        risk = excess_risk(truth, chain.next_token(counts, query))
        rows.add("excess_risk", risk, surrogate=surrogate, prediction=predicted["excess_risk"], **shared)
        centred = chain.logits - chain.logits.mean(axis=1, keepdims=True)
        true = teacher.logits - teacher.logits.mean(axis=1, keepdims=True)
        error = float(((centred - true) ** 2).sum())
        rows.add("logit_error", error, surrogate=surrogate, prediction=predicted["logit_error"], **shared)

    try:
        fit = fit_mle(observations)
    except NoMaximumLikelihoodEstimate as error:
        reason = f"no maximum likelihood estimate: {len(error.diverging)} logits run to minus infinity"
        rows.add("no_mle", 1.0, surrogate="ccmc-fit", **shared)
        for metric in predicted:
            rows.add(metric, None, missing=reason, surrogate="ccmc-fit", **shared)
        return
    rows.add("no_mle", 0.0, surrogate="ccmc-fit", **shared)
    measured(fit.chain, "ccmc-fit")
    if folder is not None:
        folder.mkdir()
        chain, outcome = attention_trained_on(prompts[seen], mass[seen], K, int(rng.integers(2**31)), folder=folder)
        measured(chain, "model")
        gap = outcome.loss + fit.log_likelihood / n
        rows.add("training_gap", gap, surrogate="model", prediction=0.0, **shared)


def _table(frame: pd.DataFrame, surrogate: str, metric: str, column: str = "value") -> pd.DataFrame:
    """Repetitions down, (K, per_square) across; NaN where there is no value."""
    of = frame[(frame["metric"] == metric) & (frame["surrogate"] == surrogate)]
    return of.astype({column: float}).pivot_table(
        index="seed", columns=["at_K", "at_per_square"], values=column, dropna=False
    )


def _cells(table: pd.DataFrame) -> list[tuple[int, int]]:
    """The columns of a table, as (K, per_square)."""
    cells: Any = table.columns.to_flat_index()
    return [(int(cell[0]), int(cell[1])) for cell in cells]


def pool(work: Work) -> pd.DataFrame:
    """Verdicts over all repetitions."""
    frame, claims = read_rows(work), Claims("sample-complexity")
    for family in FAMILIES:
        of = frame[frame["at_family"] == family]
        for surrogate in ("ccmc-fit", "model"):
            _ratios(claims, of, family, surrogate)
        _slopes(claims, of, family)
    _shares(claims, frame)
    gaps = frame[frame["metric"] == "training_gap"]["value"].dropna().to_numpy(dtype=float)
    if len(gaps):
        claims.bound(
            "training_gap", "trained model reaches the likelihood of the fit, nats", float(gaps.max()), 1e-8, len(gaps),
            "model",
        )  # fmt: skip
    return claims.frame()


def _ratios(claims: Claims, of: pd.DataFrame, family: str, surrogate: str) -> None:
    for metric, claim in (
        ("excess_risk", "excess risk x 2n/(K(K-1))"),
        ("logit_error", "squared error of the logits x n / tr(H^+)"),
    ):
        found, predicted = (_table(of, surrogate, metric, column) for column in ("value", "prediction"))
        for K, per_square in _cells(found):
            pair = np.stack([found[K, per_square], predicted[K, per_square]], axis=1).astype(float)
            pair = pair[np.isfinite(pair).all(axis=1)]
            if len(pair):
                claims.compare(
                    f"{metric}_ratio", claim, statistic_interval(pair, ratio_of_sums), 1.0, surrogate,
                    family=family, K=int(K), per_square=int(per_square), n_observations=int(K * K * per_square),
                )  # fmt: skip


def _slopes(claims: Claims, of: pd.DataFrame, family: str) -> None:
    """Log-log slopes of means over repetitions, in n for each K and in K at n = constant x K^2 put back to one n."""
    found, expected = _table(of, "ccmc-fit", "excess_risk"), _table(of, "ccmc-fit", "logit_error")
    for K in found.columns.get_level_values(0).unique():
        x = np.log(found[K].columns.to_numpy(dtype=float))

        def in_n(tables: FloatArray, x: FloatArray = x) -> FloatArray:
            return slope(x, _log_mean(tables))

        claims.compare(
            "slope_in_n", "log-log slope of the excess risk in n",
            statistic_interval(found[K].to_numpy(dtype=float), in_n), -1.0, "ccmc-fit", family=family, K=int(K),
        )  # fmt: skip
    largest = max(found.columns.get_level_values(1))
    sizes = np.array(sorted(found.columns.get_level_values(0).unique()), dtype=float)
    for metric, table, power, claim in (
        ("slope_in_K", found, 2.0, "log-log slope of the excess risk in sqrt(K(K-1)), at one n"),
        ("slope_in_K_logits", expected, 4.0, "log-log slope of the squared error of the logits in K, at one n"),
    ):
        x = 0.5 * np.log(sizes * (sizes - 1)) if metric == "slope_in_K" else np.log(sizes)
        at = np.stack([table[K, largest].to_numpy(dtype=float) for K in sizes], axis=1) * (largest * sizes**2)

        def in_tokens(tables: FloatArray, x: FloatArray = x) -> FloatArray:
            return slope(x, _log_mean(tables))

        claims.compare(
            metric, claim, statistic_interval(at, in_tokens), power, "ccmc-fit", family=family, per_square=int(largest)
        )


def _log_mean(tables: FloatArray) -> FloatArray:
    """Logs [..., m] of the means of tables [..., R, m] over the repetitions that have a value; NaN where none has."""
    kept = np.isfinite(tables)
    count = kept.sum(axis=-2)
    total = np.where(kept, tables, 0.0).sum(axis=-2)
    logs: FloatArray = np.log(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return logs


def _shares(claims: Claims, frame: pd.DataFrame) -> None:
    none = frame[frame["metric"] == "no_mle"]
    for key, part in none.groupby(["at_family", "at_K", "at_per_square"], sort=True):
        family, K, per_square = cast("tuple[str, int, int]", key)
        claims.compare(
            "no_mle", "share of samples without an MLE", share(int(part["value"].sum()), len(part)), None,
            family=str(family), K=int(K), per_square=int(per_square),
        )  # fmt: skip
