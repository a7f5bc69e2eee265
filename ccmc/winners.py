"""Winner sets: which tokens a trajectory ends up repeating, how likely, and how fast the others fade.

A short prompt is first continued by simulation, since early chance decides; the mean field then carries every path on
to the horizon and beyond it to its limit. Where several stable sets attract, the winner is random, and the shares of
the paths are their odds. Where the flow never settles (cyclic weights have an attracting cycle between single tokens
that slows down for ever) or rests wherever it is (an urn), that is said instead of a limit.

Source: derived here from the mean field (`mean_field.py`, `equilibria.py`) of the model of Ildiz et al. 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.html import table
from ccmc._data.types import FloatArray
from ccmc.chain import Chain
from ccmc.equilibria import Equilibrium, Landscape
from ccmc.mean_field import checked_counts, follow, simulated_prefix

if TYPE_CHECKING:
    import pandas as pd

# The mean field takes over at this length and at this many tokens of each kind, whichever comes later.
_ENOUGH, _ENOUGH_EACH = 1000, 50
_SHARE = 0.9
# Where there is no limit to report, frequencies are those at this time.
_FAR = 1e7
# Random starts from which stable sets are looked for beside the paths' own, in contexts of up to so many tokens.
_STARTS, _FEW_TOKENS = 16, 200


@dataclass(frozen=True, eq=False)
class Alternative:
    """Another set of tokens that may win."""

    tokens: list[int]
    """Smallest set with 90 % of the frequencies."""
    frequencies: FloatArray
    """[K] frequencies: the mean over its paths at the horizon, or the equilibrium where no path led to it."""
    odds: float
    """Share of the paths that led to it; 0 for a stable set that none reached."""


@dataclass(frozen=True, eq=False)
class Winners:
    """The most likely winner set of a trajectory."""

    tokens: list[int]
    """Smallest set with 90 % of the predicted mass at the horizon, ascending."""
    frequencies: FloatArray
    """[K] predicted frequencies at the horizon, the mean over the paths that lead to this set."""
    exponents: FloatArray
    """[K] decay exponent gamma_j of each frequency, as in t^-gamma: 0 for tokens that stay, NaN for tokens outside the
    prompt. Those of the limit where these paths have one, else those at the horizon."""
    settled: bool
    """Whether every path comes to rest at a stable equilibrium, and does not go round and round before (more than 5 in
    total variation, which takes longer than any trajectory lasts)."""
    odds: float
    """Share of the paths that lead to this set."""
    alternatives: list[Alternative]
    """Other sets that paths led to or that are stable, the likeliest first."""

    def __repr__(self) -> str:
        others = f"{len(self.alternatives)} alternative{'' if len(self.alternatives) == 1 else 's'}"
        return f"Winners(tokens={self.tokens}, odds={self.odds:.3g}, settled={self.settled}, {others})"

    def _repr_html_(self) -> str:
        """What notebooks show: the winners, and the other sets that may win."""
        rows = [
            (f"{token}", f"{self.frequencies[token]:.3g}", f"{self.exponents[token]:.3g}")
            for token in sorted(self.tokens, key=lambda token: -self.frequencies[token])
        ]
        others = "; ".join(f"{one.tokens}, odds {one.odds:.3g}" for one in self.alternatives[:3])
        note = f"odds {self.odds:.3g}, {'settled' if self.settled else 'not settled'}"
        note += f". Other sets: {others}" if others else ""
        return table("Winner tokens", ("token", "frequency", "decay exponent"), rows, note)

    def to_frame(self) -> pd.DataFrame:
        """The predictions as a table, one row for each token of the prompt and each set that may win.

        Returns:
            Columns set (0 for the likeliest), odds, token, frequency, winner (whether the token is in the set) and
            exponent (NaN for alternatives). Needs pandas.
        """
        import pandas as pd

        inside = np.flatnonzero(~np.isnan(self.exponents))
        nothing = np.full(len(inside), np.nan)
        parts = []
        sets: list[Winners | Alternative] = [self, *self.alternatives]
        for number, one in enumerate(sets):
            columns = {"set": number, "odds": one.odds, "token": inside, "frequency": one.frequencies[inside]}
            exponent = self.exponents[inside] if number == 0 else nothing
            parts.append(pd.DataFrame(columns | {"winner": np.isin(inside, one.tokens), "exponent": exponent}))
        return pd.concat(parts, ignore_index=True)


def winners(
    chain: Chain,
    counts: ArrayLike | None = None,
    horizon: float | None = None,
    *,
    query: int | None = None,
    prefix: int | None = None,
    paths: int = 64,
    seed: int = 0,
) -> Winners:
    """Predict which tokens take over when the chain continues a prompt.

    Args:
        chain: over K tokens.
        counts: [K] counts of the prompt; every token once if None.
        horizon: length of the whole trajectory, prompt included, at which frequencies are predicted; None for the
            limit (or a length of 1e7 where the flow has none).
        query: last token of the prompt; drawn from the counts for each path if None.
        prefix: tokens to simulate before the mean field takes over; None for as many as make the prompt 1,000 long and
            50 times as long as it has different tokens (none where the counts are not whole), 0 for the mean field
            alone.
        paths: simulated prefixes.
        seed: seed of the simulation.

    Returns:
        Winners.

    Raises:
        ValueError: counts, horizon, query, prefix or paths are malformed.

    Source: derived here from the mean field of the model of Ildiz et al. 2024.
    """
    start = checked_counts(chain, np.ones(chain.vocab_size) if counts is None else counts)
    t0 = float(start.sum())
    if horizon is not None and not t0 <= horizon < np.inf:
        raise ValueError(f"horizon is {horizon}: it is a finite length of at least that of the prompt, {t0:g}")
    face = np.flatnonzero(start)
    if prefix is None:
        enough = max(_ENOUGH, _ENOUGH_EACH * len(face))
        prefix = max(0, int(enough - t0)) if (start == np.floor(start)).all() else 0
    if int(prefix) != prefix or prefix < 0 or int(paths) != paths or paths < 1:
        raise ValueError(f"prefix must be at least 0 and paths at least 1, got {prefix} and {paths}")
    if horizon is not None:
        prefix = min(prefix, int(horizon - t0))
    begun = [start[face]]
    if prefix > 0 and len(face) > 1:
        walked = np.searchsorted(face, simulated_prefix(chain, start, prefix, paths, seed, query))
        begun = [start[face] + np.bincount(path, minlength=len(face)) for path in walked]
    landscape = Landscape(chain, face)
    _add_single_tokens(landscape)
    outcomes = [_outcome(landscape, counts, horizon) for counts in begun]
    if 1 < len(face) <= _FEW_TOKENS:
        for m in np.random.default_rng([seed, 2]).dirichlet(np.ones(len(face)), _STARTS):
            landscape.limit((m + 1e-12) / (m + 1e-12).sum())
    return _summary(landscape, outcomes)


@dataclass(frozen=True, eq=False)
class _Outcome:
    frequencies: FloatArray
    """[n] at the horizon."""
    limit: Equilibrium | None
    """The stable equilibrium beyond it."""


def _outcome(landscape: Landscape, counts: FloatArray, horizon: float | None) -> _Outcome:
    total = counts.sum()
    m = counts / total
    if horizon is not None:
        m = follow(landscape.weights, m, np.array([np.log(horizon / total)]))[0]
    # Past the horizon from there; no frequency may be 0 for good.
    begin = np.maximum(m, 1e-250)
    limit = landscape.limit(begin / begin.sum())
    if limit is None or not limit.stable:
        limit = None
    if horizon is None and limit is not None:
        m = limit.frequencies[landscape.face]
    elif horizon is None:
        m = follow(landscape.weights, m, np.array([max(0.0, np.log(_FAR / total))]))[0]
    return _Outcome(m, limit)


def _summary(landscape: Landscape, outcomes: list[_Outcome]) -> Winners:
    """Outcomes with one limit belong together; without a limit, those that have one winner set at the horizon do."""
    groups: dict[tuple[int, ...], list[_Outcome]] = {}
    for outcome in outcomes:
        limit = outcome.limit
        key = tuple(smallest_set(outcome.frequencies)) if limit is None else (-1, landscape.found.index(limit))
        groups.setdefault(key, []).append(outcome)
    ranked = sorted(groups.values(), key=lambda group: -len(group))
    means = [landscape.spread(np.mean([outcome.frequencies for outcome in group], axis=0), 0.0) for group in ranked]
    odds = [len(group) / len(outcomes) for group in ranked]
    others = [Alternative(smallest_set(m), m, odd) for m, odd in zip(means[1:], odds[1:], strict=True)]
    reached = {outcome.limit for outcome in outcomes}
    others += [
        Alternative(smallest_set(rest.frequencies), rest.frequencies, 0.0)
        for rest in landscape.found
        if rest.stable and rest not in reached
    ]
    limit = ranked[0][0].limit
    return Winners(
        tokens=smallest_set(means[0]),
        frequencies=means[0],
        exponents=_decay_now(landscape, means[0]) if limit is None else _decay(limit.rho),
        settled=all(outcome.limit is not None for outcome in outcomes),
        odds=odds[0],
        alternatives=others,
    )


def _decay(rho: FloatArray) -> FloatArray:
    """1 - rho, with what is 0 but for rounding set to 0."""
    return np.where(np.abs(1 - rho) < 1e-9, 0.0, 1 - rho)


def _decay_now(landscape: Landscape, frequencies: FloatArray) -> FloatArray:
    """Decay exponent 1 - mu_j / m_j of each token while frequencies are `frequencies` [K]; NaN outside the context."""
    from ccmc._sim.flow import relative_rates

    m = np.maximum(frequencies[landscape.face], 1e-250)
    rates = np.empty(len(m))
    relative_rates(landscape.weights, m, m.copy(), rates, 1e-10)
    return _decay(landscape.spread(rates, np.nan))


def smallest_set(frequencies: FloatArray, share: float = _SHARE) -> list[int]:
    """Tokens of the smallest set that holds `share` of the frequencies, ascending; ties go to the lower token."""
    order = np.argsort(-frequencies, kind="stable")
    held = np.cumsum(frequencies[order]) / frequencies.sum()
    size = int(np.searchsorted(held, share - 1e-12)) + 1
    return sorted(order[:size].tolist())


def _add_single_tokens(landscape: Landscape) -> None:
    """Single tokens with P[i, i] > P[i, j] within the context are stable: known without any flow."""
    P = landscape.weights
    rest = P.copy()
    np.fill_diagonal(rest, 0)
    for token in np.flatnonzero(np.diag(P) > rest.max(axis=1)):
        landscape.add(np.eye(1, len(P), int(token))[0])
