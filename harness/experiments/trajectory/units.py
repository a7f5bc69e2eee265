"""Experiment `trajectory`: one long path, what wins on it, how its pairs grow, and what it teaches of P.

Three parts, each of them units whose intervals are over independent paths:

    phase     two tokens, a = P[0, 0] and b = P[1, 1] on a grid: winner, bistable, coexistence, urn
    loser     two tokens with b = .3: how fast the loser's frequency falls
    equal     two tokens with equal rows (1 - p, p): growth of the pairs, and the fit of P on the path
    ladder    four tokens around a stable winner: growth of all pairs

Tokens are numbered from 0: where theory speaks of tokens 1 and 2, these are 0 and 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ccmc import CCMC, simulate
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.claims import Claims, mean, read_rows, share, slope, statistic_interval, values
from harness.experiments._shared.sampling import FloatArray, IntArray
from harness.experiments._shared.two_tokens import two_token_fit
from harness.runs.units import Work
from harness.stats.intervals import median_interval

LOSER_B = 0.3
# Row 0 decides: around the winner 0 the exponents are P[0, j] / P[0, 0] = 1, .75, .5, .25.
LADDER = np.array(
    [[0.4, 0.3, 0.2, 0.1], [0.4, 0.2, 0.2, 0.2], [0.4, 0.2, 0.15, 0.25], [0.4, 0.1, 0.3, 0.2]],
)
# What theory.md reports of equal rows: share of paths without an MLE, and error of log P along T.
REPORTED_NO_MLE = {0.2: 0.71}
REPORTED_ERROR = {0.45: {1000: 0.12, 10_000: 0.04, 100_000: 0.03, 1_000_000: 0.007}}


def two_tokens(a: float, b: float) -> CCMC:
    """The chain with P[0, 0] = a and P[1, 1] = b."""
    return CCMC.from_transition([[a, 1 - a], [1 - b, b]])


def both_ways(paths: int) -> IntArray:
    """Prompts 0 1 and 1 0 in turn, so that neither token has the first word."""
    return np.array([[0, 1], [1, 0]])[np.arange(paths) % 2]


def phase_of(a: float, b: float) -> str:
    """What theory says of the point (a, b)."""
    if abs(a - 0.5) < 1e-9 or abs(b - 0.5) < 1e-9:
        return "urn" if abs(a - b) < 1e-9 else "boundary"
    if a > 0.5 and b > 0.5:
        return "bistable"
    return "coexistence" if a < 0.5 and b < 0.5 else "winner 0" if a > 0.5 else "winner 1"


def coexisting_share(a: float, b: float) -> float:
    """Frequency of token 0 in coexistence."""
    ratio = (1 - b) * (1 - 2 * a) / ((1 - a) * (1 - 2 * b))  # m of token 1 over m of token 0
    return 1 / (1 + ratio)


def phase(work: Work) -> pd.DataFrame:
    """One row of the phase diagram."""
    s = work.settings
    a, paths = s["a"], s["phase_paths"]
    rows = Rows(experiment="trajectory", model="one-layer", split="paths")
    for index in range(s["grid"]):
        b = (index + 1) / (s["grid"] + 1)
        seed = derive_seed(s["seed"], "trajectory", "phase", a, b)
        made = simulate(two_tokens(a, b), both_ways(paths), s["phase_steps"], seed=seed)
        first = ((made == 0).sum(axis=1) + 1) / (s["phase_steps"] + 2)
        condition = {"part": "phase", "a": a, "b": b, "phase": phase_of(a, b), "T": s["phase_steps"]}
        middle, won = median_interval(first), share(int((first > 0.5).sum()), paths)
        for metric, found in (("median_share", middle), ("won", won), ("mean_share", mean(first))):
            rows.add(metric, found.value, low=found.low, high=found.high, n=paths, condition=condition)
        rows.add("square_share", float((first**2).mean()), n=paths, condition=condition)
        for path, value in enumerate(first):
            rows.add("share", float(value), n=1, seed=path, condition=condition)
    return rows.frame()


def counts_at(path: IntArray, prompt: IntArray, times: IntArray, K: int) -> FloatArray:
    """[times, K] token counts, prompt included, when the path has so many tokens."""
    hits = path[:, None] == np.arange(K)
    total = np.cumsum(hits, axis=0)[times - 1] + np.bincount(prompt, minlength=K)
    return np.asarray(total, dtype=float)


def pairs_at(path: IntArray, last: int, times: IntArray, K: int) -> FloatArray:
    """[times, K, K] how often j came after i, when the path has so many tokens."""
    code = np.concatenate([[last], path[:-1]]) * K + path
    found = np.empty((len(times), K, K))
    for index, time in enumerate(times):
        found[index] = np.bincount(code[:time], minlength=K * K).reshape(K, K)
    return found


def growth(tables: FloatArray) -> FloatArray:
    """Exponents [...] of growth over one decade of time, from tables [..., paths, 2] of counts at T/10 and T."""
    before, after = np.moveaxis(tables.mean(axis=-2), -1, 0)
    grown: FloatArray = np.divide(after, before, out=np.full_like(before, np.nan), where=(before > 0) & (after > 0))
    return np.log10(grown)


def loser(work: Work) -> pd.DataFrame:
    """How fast the frequency of a loser falls: theory says like t^-(2a - 1)/a."""
    s, claims = work.settings, Claims("trajectory")
    a, T = s["a"], s["steps"]
    seed = derive_seed(s["seed"], "trajectory", "loser", a)
    prompts = both_ways(s["paths"])
    made = simulate(two_tokens(a, LOSER_B), prompts, T, seed=seed)
    times = np.array([T // 10, T])
    counts = np.stack([counts_at(p, x, times, 2)[:, 1] for p, x in zip(made, prompts, strict=True)])
    found = statistic_interval(counts, lambda tables: 1 - growth(tables))
    claims.compare(
        "loser_exponent", "exponent of the loser's frequency, (2a - 1)/a", found, (2 * a - 1) / a, a=a, b=LOSER_B, T=T
    )
    return claims.frame()


def _pair_claims(claims: Claims, pairs: FloatArray, rho: FloatArray, judged: bool, **factors: Any) -> None:
    """Growth of N_ij from T/10 to T, pairs [paths, 2, K, K], against rho_i + rho_j - 1 where that is positive.

    Earlier decades are shown without a verdict: the law is one of late times.
    """
    for i in range(len(rho)):
        for j in range(len(rho)):
            exponent = float(rho[i] + rho[j] - 1)
            if exponent > 0:
                claims.compare(
                    "pair_growth", "N_ij grows like t^(rho_i + rho_j - 1)",
                    statistic_interval(pairs[:, :, i, j], growth), exponent if judged else None,
                    i=i, j=j, **factors,
                )  # fmt: skip


def equal(work: Work) -> pd.DataFrame:
    """Equal rows (1 - p, p): pairs, existence of the MLE, error of log P along the path."""
    s, claims = work.settings, Claims("trajectory")
    p, T = s["p"], s["steps"]
    rho = p / (1 - p)
    learnable = 2 * rho - 1  # of the rarest pair, 1 after 1
    seed = derive_seed(s["seed"], "trajectory", "equal", p)
    prompts = both_ways(s["paths"])
    times = (10 ** np.arange(3, int(np.log10(T)) + 1)).astype(np.int64)
    made = simulate(two_tokens(1 - p, p), prompts, T, seed=seed)
    pairs = np.empty((len(made), len(times), 2, 2))
    errors = np.full((len(made), len(times)), np.nan)
    for index, (path, prompt) in enumerate(zip(made, prompts, strict=True)):
        work.progress(index / len(made), "fitting along paths")
        pairs[index] = pairs_at(path, int(prompt[-1]), times, 2)
        for column, time in enumerate(times):
            if (pairs[index, column] > 0).all():
                logits = two_token_fit(np.concatenate([prompt, path[:time]]), start=2)
                # log P[1, j] with rows normalised: the row that is seen least
                fitted = -np.logaddexp(0.0, np.array([logits[1], -logits[1]]))
                errors[index, column] = float(np.abs(fitted - np.log([1 - p, p])).max())
    factors = {"p": p}
    for column, time in enumerate(times):
        none = share(int(np.isnan(errors[:, column]).sum()), len(made))
        last = column == len(times) - 1
        claims.compare(
            "no_mle", "share of paths without an MLE", none, REPORTED_NO_MLE.get(p) if last else None, **factors,
            T=int(time),
        )  # fmt: skip
        kept = errors[:, column][~np.isnan(errors[:, column])]
        claims.compare(
            "log_p_error", "median error of log P[1, :] where the MLE exists", median_interval(kept),
            REPORTED_ERROR.get(p, {}).get(int(time)), **factors, T=int(time),
        )  # fmt: skip
    whole = errors[~np.isnan(errors).any(axis=1)]
    if len(times) >= 2 and len(whole) >= 2:
        x = np.log(times.astype(float))

        def rate(tables: FloatArray) -> FloatArray:
            return slope(x, np.log(np.median(tables, axis=-2)))

        claims.compare(
            "error_rate", "log-log slope of the error of log P in T, -max(0, rho_i + rho_j - 1)/2",
            statistic_interval(whole, rate), -max(0.0, learnable) / 2, **factors,
        )  # fmt: skip
    for column in range(1, len(times)):
        last = column == len(times) - 1
        decade = pairs[:, column - 1 : column + 1]
        _pair_claims(claims, decade, np.array([1.0, rho]), last, **factors, T=int(times[column]))
    return claims.frame()


def ladder(work: Work) -> pd.DataFrame:
    """Four tokens around a winner: growth of every pair that grows."""
    s, claims = work.settings, Claims("trajectory")
    T = s["steps"]
    seed = derive_seed(s["seed"], "trajectory", "ladder")
    prompts = np.tile(np.arange(4), (s["paths"], 1))
    made = simulate(CCMC.from_transition(LADDER), prompts, T, seed=seed)
    times = np.array([T // 10, T])
    pairs = np.stack([pairs_at(path, 3, times, 4) for path in made])
    _pair_claims(claims, pairs, LADDER[0] / LADDER[0, 0], True, T=T, K=4)
    return claims.frame()


def pool(work: Work) -> pd.DataFrame:
    """Verdicts on the phase diagram."""
    frame, claims = read_rows(work), Claims("trajectory")
    frame = frame[frame["at_part"] == "phase"]
    T = int(frame["at_T"].iloc[0])
    for name, part in (("winner 0", 0), ("winner 1", 1)):
        shares_here = values(frame, metric="share", at_phase=name)
        won = (shares_here > 0.5) if part == 0 else (shares_here < 0.5)
        claims.compare(
            "won", "share of paths that the only stable token leads", share(int(won.sum()), len(won)), 1.0,
            phase=name, T=T,
        )  # fmt: skip
    of = frame[(frame["at_phase"] == "bistable") & (frame["metric"] == "won")]
    both = (of["value"] > 0.0) & (of["value"] < 1.0)
    claims.compare(
        "both_win", "share of bistable points where each token leads some path", share(int(both.sum()), len(both)), 1.0,
        T=T,
    )  # fmt: skip
    shares = frame[frame["metric"] == "share"]
    square = shares[shares["at_phase"] == "coexistence"]
    gaps = square["value"].astype(float) - [
        coexisting_share(a, b) for a, b in zip(square["at_a"], square["at_b"], strict=True)
    ]
    by_path = np.asarray(gaps.groupby(square["seed"]).mean(), dtype=np.float64)
    claims.compare(
        "coexistence_gap", "frequency of token 0 less (its share in coexistence), over all points", mean(by_path), 0.0,
        T=T,
    )  # fmt: skip
    spread = np.asarray(gaps.abs().groupby(square["seed"]).mean(), dtype=np.float64)
    claims.compare("coexistence_spread", "the same, mean of the absolute value", mean(spread), None, T=T)
    urn = values(shares, at_phase="urn")
    if len(urn):
        for power, expected in ((1, 0.5), (2, 1 / 3), (3, 0.25)):
            claims.compare(
                f"urn_moment_{power}", f"urn: moment {power} of the limit, uniform", mean(urn**power), expected,
                T=T,
            )  # fmt: skip
    return claims.frame()
