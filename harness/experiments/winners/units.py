"""Experiment `winners`: which tokens win, how fast the others fade, and how well the mean field knows it.

A repetition draws a chain of one family and a prompt that holds every token, and simulates independent paths. From the
counts that each path has at time t0 the mean field is followed to the same finite length T and compared with the path.
The ceiling is a second simulation from the same state at t0: what chance alone leaves undecided. Families:

    gaussian    independent normal logits of sd 1
    dirichlet   rows of P from Dirichlet(1)
    dominant    gaussian with 2 added on the diagonal: every single token can win
    cyclic      weights 1 to itself, 1.3 to the next, .1 to all others: it may never settle
    heads       a first-layer head of a language model, with random tokens as queries: logits of rank below K
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from ccmc import CCMC, mean_field, simulate, winners
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.claims import Claims, mean, read_rows, share, values
from harness.experiments._shared.sampling import FloatArray, IntArray
from harness.runs.units import Work

# Median L1 distance at T = 1e5 that theory.md reports, by K and t0.
REPORTED = {5: {10: 0.08, 100: 0.02, 1000: 0.002, 10_000: 0.003}, 20: {10: 0.53, 100: 0.17, 1000: 0.055, 10_000: 0.014}}
WINDOW_TOKENS = 5
# Following the flow to its limit takes minutes beyond these sizes; where it circles, it never arrives.
ODDS_UP_TO, CYCLIC_ODDS_UP_TO = 100, 20
MEASURES = ("l1", "l1_ceiling", "jaccard", "jaccard_ceiling", "exponent_correlation")


def cyclic_chain(K: int) -> CCMC:
    """Weight 1 to itself, 1.3 to the next token, .1 to all others."""
    weights = np.full((K, K), 0.1)
    weights[np.arange(K), np.arange(K)] = 1.0
    weights[np.arange(K), (np.arange(K) + 1) % K] = 1.3
    return CCMC(np.log(weights))


def draw_chain(
    family: str,
    K: int,
    rng: np.random.Generator,
    model_path: str = "",
    device: str = "cpu",
    allow_mismatch: bool = False,
) -> CCMC:
    """A chain of a family; only `heads` needs a model."""
    if family == "gaussian":
        return CCMC(rng.normal(0, 1, (K, K)))
    if family == "dirichlet":
        return CCMC(np.log(np.maximum(rng.dirichlet(np.ones(K), K), 1e-12)))
    if family == "dominant":
        return CCMC(rng.normal(0, 1, (K, K)) + 2 * np.eye(K))
    if family == "cyclic":
        return cyclic_chain(K)
    return head_chain({"path": model_path, "device": device, "allow_mismatch": allow_mismatch}, K, rng)


def head_chain(local: Mapping[str, Any], K: int, rng: np.random.Generator) -> CCMC:
    """The chain of a random first-layer head over random tokens, positions left out."""
    from harness.attention import capture, static_inputs
    from harness.models import loading

    model = loading.model_of(local)
    ids = np.sort(rng.choice(int(model.config.vocab_size), K, replace=False))
    calls: list[capture.LayerCall] = []
    capture.listen(model, ids[:2], [0], calls.append)
    inputs = static_inputs.embedding_inputs(model, ids, np.array([1]))
    call = static_inputs.static_heads(model, calls[0], ids, inputs).at_start
    head = int(rng.integers(call.query.shape[0]))
    group = int(capture.key_heads(call.query.shape[0], call.key.shape[0])[head])
    scores = capture.scores(
        call.query[[head]], call.key[[group]], torch.zeros(1, dtype=torch.long), call.scaling, call.softcap
    )
    return CCMC(scores[0].double().cpu().numpy())


def frequencies(prompts: list[IntArray], made: IntArray, K: int) -> FloatArray:
    """[paths, K] frequencies of whole paths."""
    counts = np.stack(
        [np.bincount(p, minlength=K) + np.bincount(c, minlength=K) for p, c in zip(prompts, made, strict=True)]
    )
    found: FloatArray = counts / counts.sum(axis=1, keepdims=True)
    return found


def winner_set(m: FloatArray) -> set[int]:
    """The smallest set of tokens with 90 % of the frequencies; ties go to the lower token."""
    order = np.argsort(-m, kind="stable")
    return set(order[: int(np.searchsorted(np.cumsum(m[order]), 0.9 - 1e-12)) + 1].tolist())


def _jaccard(a: FloatArray, b: FloatArray) -> float:
    first, second = winner_set(a), winner_set(b)
    return len(first & second) / len(first | second)


def repetition(work: Work) -> pd.DataFrame:
    """One chain, one prompt: predictions from every t0, and the odds of the winner sets."""
    s = work.settings
    K, T, paths = s["K"], s["horizon"], s["paths"]
    seed = derive_seed(s["seed"], "winners", s["family"], K, s["repetition"])
    rng = np.random.default_rng(seed)
    where = (work.local.get("path", ""), work.local.get("device", "cpu"), work.local.get("allow_mismatch", False))
    chain = draw_chain(s["family"], K, rng, *where)
    length = max(K, 10)
    prompt = rng.permutation(np.concatenate([np.arange(K), rng.integers(0, K, length - K)]))
    made = simulate(chain, np.tile(prompt, (paths, 1)), T - length, seed=derive_seed(seed, "paths"))
    whole = np.concatenate([np.tile(prompt, (paths, 1)), made], axis=1)
    final = frequencies([prompt] * paths, made, K)
    before = np.stack([np.bincount(path[: T // 10], minlength=K) for path in whole]) / (T // 10)
    rows = Rows(experiment="winners", model="one-layer", seed=s["repetition"], n=paths)
    factors = {"family": s["family"], "K": K, "T": T}
    for t0 in s["starts"]:
        if t0 < length or t0 > T // 10:
            continue
        work.progress(0.5, f"t0 = {t0}")
        again = simulate(chain, list(whole[:, :t0]), T - t0, seed=derive_seed(seed, "ceiling", t0))
        ceiling = frequencies(list(whole[:, :t0]), again, K)
        found: dict[str, list[float]] = {name: [] for name in MEASURES}
        for path in range(paths):
            counts = np.bincount(whole[path, :t0], minlength=K).astype(float)
            flow = mean_field(chain, counts, T - t0, points=65)
            m = flow.frequencies[-1]
            found["l1"].append(float(np.abs(m - final[path]).sum()))
            found["l1_ceiling"].append(float(np.abs(ceiling[path] - final[path]).sum()))
            found["jaccard"].append(_jaccard(m, final[path]))
            found["jaccard_ceiling"].append(_jaccard(ceiling[path], final[path]))
            if K >= 5:
                at = np.exp([np.interp(np.log(T // 10), np.log(flow.times), np.log(f)) for f in flow.frequencies.T])
                seen = before[path] > 0
                if seen.sum() >= 5:
                    rank = spearmanr(np.log(m / at)[seen], np.log(final[path] / before[path])[seen]).statistic
                    found["exponent_correlation"].append(float(rank))
        for name, each in found.items():
            place = {**factors, "t0": t0}
            if each:
                rows.add(name, float(np.median(each)), condition=place)
            else:
                rows.add(name, None, missing="fewer than 5 tokens have no rank correlation", condition=place)
    if K <= ODDS_UP_TO and not (s["family"] == "cyclic" and K > CYCLIC_ODDS_UP_TO):
        _odds(rows, chain, prompt, final, T, derive_seed(seed, "odds"), factors)
    else:
        for name in ("odds", "unsettled"):
            rows.add(name, None, missing=f"limits are not followed for {K} tokens of this family", condition=factors)
    return rows.frame()


def _odds(
    rows: Rows, chain: CCMC, prompt: IntArray, final: FloatArray, T: int, seed: int, factors: dict[str, Any]
) -> None:
    """The predicted sets with their odds against the sets that paths come nearest to."""
    counts = np.bincount(prompt, minlength=chain.vocab_size).astype(float)
    predicted = winners(chain, counts, T, query=int(prompt[-1]), paths=len(final), seed=seed)
    sets = [(predicted.frequencies, predicted.odds)] + [
        (other.frequencies, other.odds) for other in predicted.alternatives
    ]
    nearest = np.argmin([np.abs(final - m).sum(axis=1) for m, _ in sets], axis=0)
    rows.add("unsettled", float(not predicted.settled), condition=factors)
    rows.add("stable_sets", len(sets), condition=factors)
    rows.add("odds", float((nearest == 0).mean()), prediction=predicted.odds, condition=factors)


def absorption(work: Work) -> pd.DataFrame:
    """With a finite window one token is left in the end: when."""
    s = work.settings
    seed = derive_seed(s["seed"], "winners", "windows", s["repetition"])
    rng = np.random.default_rng(seed)
    chain = draw_chain("gaussian", WINDOW_TOKENS, rng)
    prompt = np.tile(rng.permutation(WINDOW_TOKENS), (s["paths"], 1))
    rows = Rows(experiment="winners", model="one-layer", seed=s["repetition"], n=s["paths"])
    for window in s["windows"]:
        made = simulate(chain, prompt, s["horizon"], seed=derive_seed(seed, window), window=window)
        times = [absorbed_at(path, window) for path in np.concatenate([prompt, made], axis=1)]
        done = [t for t in times if t is not None]
        condition = {"window": window, "K": WINDOW_TOKENS, "T": s["horizon"]}
        rows.add("absorbed", len(done), condition=condition)
        if done:
            rows.add("absorption_time", float(np.median(done)), condition=condition)
        else:
            rows.add("absorption_time", None, missing="no path was absorbed", condition=condition)
    return rows.frame()


def absorbed_at(path: IntArray, window: int) -> int | None:
    """The first length at which the last `window` tokens are all equal; None where that never happens."""
    change = np.flatnonzero(np.concatenate([[True], path[1:] != path[:-1]]))
    run = np.diff(np.concatenate([change, [len(path)]]))
    long = np.flatnonzero(run >= window)
    return int(change[long[0]] + window) if len(long) else None


def pool(work: Work) -> pd.DataFrame:
    """Verdicts over all repetitions."""
    frame, claims = read_rows(work), Claims("winners")
    sized = frame[frame["metric"].isin([*MEASURES])]
    labels = {
        "l1": "L1 distance of the mean field from the path at T",
        "l1_ceiling": "L1 distance of a second simulation from the path at T",
        "jaccard": "winner set of the mean field and of the path, Jaccard",
        "jaccard_ceiling": "winner set of a second simulation and of the path, Jaccard",
        "exponent_correlation": "decay over the last decade, mean field against path, rank correlation",
    }
    for (family, K, t0), part in _groups(sized, ["at_family", "at_K", "at_t0"]):
        factors: dict[str, Any] = {"family": str(family), "K": int(K), "t0": int(t0)}
        for metric, label in labels.items():
            found = values(part, metric=metric)
            known = REPORTED.get(int(K), {}).get(int(t0)) if metric == "l1" and family == "gaussian" else None
            if len(found):
                claims.compare(metric, label, mean(found), known, **factors)
        gap = values(part, metric="l1") - values(part, metric="l1_ceiling")
        claims.compare(
            "l1_over_ceiling", "L1 of the mean field less that of a second simulation", mean(gap), None, **factors
        )
    for (family, K), part in _groups(frame[frame["metric"] == "odds"], ["at_family", "at_K"]):
        both = part[part["value"].notna()]
        gap = (both["value"] - both["prediction"]).to_numpy(dtype=float)
        claims.compare(
            "odds_gap", "share of paths that reach the likeliest set less its predicted odds", mean(gap), 0.0,
            family=str(family), K=int(K),
        )  # fmt: skip
    for family, part in frame[frame["metric"] == "unsettled"].groupby("at_family", sort=False):
        none = part["value"].dropna().to_numpy(dtype=float)
        claims.compare(
            "unsettled", "share of chains whose flow does not settle", share(int(none.sum()), len(none)), None,
            family=str(family),
        )  # fmt: skip
    for window, part in frame[frame["metric"] == "absorbed"].groupby("at_window"):
        total = int(part["n"].sum())
        claims.compare(
            "absorbed", "share of paths that a finite window leaves one token", share(int(part["value"].sum()), total),
            1.0, window=int(float(str(window))), K=WINDOW_TOKENS,
        )  # fmt: skip
        times = values(frame, metric="absorption_time", at_window=window)
        claims.compare(
            "absorption_time", "median time to absorption, tokens", mean(times), None,
            window=int(float(str(window))), K=WINDOW_TOKENS,
        )  # fmt: skip
    return claims.frame()


def _groups(frame: pd.DataFrame, columns: list[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    return [(key, part) for key, part in frame.groupby(columns, sort=False) if isinstance(key, tuple)]
