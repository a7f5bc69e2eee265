"""Equilibria of the mean field, and which of them attract.

Frequencies m with support S rest where mu(m) = m, that is where

    rho_j := sum_i m_i P[i, j] / (P m)_i = 1        for every j in S.

Outside S rho_j is the rate at which an invader grows: N_j(t) ~ t^rho_j, so its frequency falls like t^-(1 - rho_j) and
it is driven out iff rho_j < 1. Inside S the Jacobian of mu(m) - m decides: with K the chain K_m at m and
B[j, l] = m_j sum_i m_i P[i, j] P[i, l] / (P m)_i^2, differentiating mu = mu K gives

    (I - K^T + m 1^T) dmu = (I - B) dm        for dm that sums to 0,

and m is stable within its face iff the eigenvalues of dm -> dmu - dm have negative real parts. For a single token this
leaves P[i, i] > P[i, j] for all j != i.

Source: derived here from the mean field (`mean_field.py`); Benaim 1997, for stability of reinforced walks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.types import FloatArray, IntArray
from ccmc.chain import Chain
from ccmc.mean_field import base_weights, follow

# Growth rates this close to 0 count as neither stable nor unstable (an urn of equal rows rests everywhere).
NEUTRAL = 1e-7
# Two equilibria nearer than this in total variation are the same.
_SAME = 1e-5
# Log time to follow the flow for at once, at first and as a share of what is behind.
_STRETCH, _GROWTH = 3.0, 0.1
# The flow counts as unsettled once it has wandered this far in total variation, or for this much log time: slow flows
# have all the time they need, restless ones end soon.
_FARTHEST, _LONGEST = 5.0, 2000.0
# A stable equilibrium this near, in total variation, is taken for the limit.
_NEAR = 0.005
# An equilibrium is looked for where the flow moves less than this per unit of log time, in total variation.
_SLOW = 0.005
# Frequencies below this count as gone when an equilibrium is polished.
_GONE = 1e-12
_SMALLEST = 1e-250
# Frequencies below this act on nothing that the flow's tolerance would show; worth a flow of its own for the others
# where they are so large a share of the tokens.
_FADED, _MANY_FADED = 1e-9, 0.2
# Error of one integration step on the way to a limit, in total variation: which limit it is needs no more.
_COARSE = 2e-3


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """Frequencies at which the mean field rests."""

    frequencies: FloatArray
    """[K] frequencies; 0 outside the support."""
    support: list[int]
    """Tokens of positive frequency, ascending."""
    rho: FloatArray
    """[K] growth exponent of each token's count: 1 on the support, NaN for tokens outside the context."""
    inside: float
    """Largest real part of the eigenvalues within the face; minus infinity for a single token."""
    invasion: float
    """max over tokens of the context that are outside the support of rho - 1; minus infinity where there are none."""

    @property
    def stable(self) -> bool:
        """Whether nearby frequencies flow back: stable within its face, and every other token is driven out."""
        return max(self.inside, self.invasion) < -NEUTRAL

    @property
    def unstable(self) -> bool:
        """Whether some nearby frequencies flow away; an urn of equal rows is neither stable nor unstable."""
        return max(self.inside, self.invasion) > NEUTRAL


def equilibria(chain: Chain, tokens: ArrayLike | None = None, *, starts: int = 32, seed: int = 0) -> list[Equilibrium]:
    """Equilibria found from many starts: every single token, and `starts` random frequencies.

    A random start has all tokens or, every other time, a random part of them. It is followed along the flow to a
    stable equilibrium where it finds one, and is polished by Newton's method on the spot too, which finds unstable
    ones. Nothing promises that all are found.

    Args:
        chain: over K tokens.
        tokens: the tokens of the context; all K if None. Others count neither as members nor as invaders.
        starts: number of random starts.
        seed: seed of the random starts.

    Returns:
        Equilibria, the stable ones first, then by support.

    Raises:
        ValueError: tokens are malformed.

    Source: derived here from the mean field; Benaim 1997.
    """
    face = np.arange(chain.vocab_size) if tokens is None else np.unique(np.asarray(tokens, np.int64))
    if len(face) == 0 or face[0] < 0 or face[-1] >= chain.vocab_size:
        raise ValueError(f"tokens must be some of 0 ... {chain.vocab_size - 1}, got {np.asarray(tokens).tolist()}")
    landscape = Landscape(chain, face)
    rng = np.random.default_rng(seed)
    size = len(face)
    for token in range(size):
        landscape.add(np.eye(1, size, token)[0])
    for k in range(starts if size > 1 else 0):
        m = rng.dirichlet(np.full(size, (1.0, 0.2)[k // 2 % 2])) + 1e-12
        if k % 2:
            m[rng.permutation(size)[rng.integers(2, size + 1) :]] = 0.0
        else:
            landscape.limit(m / m.sum())
        landscape.add(m / m.sum())
    return sorted(landscape.found, key=lambda e: (not e.stable, e.support))


class Landscape:
    """The equilibria found so far among the tokens of one context."""

    def __init__(self, chain: Chain, face: IntArray) -> None:
        self.face = face
        self.size = chain.vocab_size
        self.weights = base_weights(chain, face)
        self.found: list[Equilibrium] = []

    def spread(self, values: FloatArray, elsewhere: float) -> FloatArray:
        """[K] the values [n] of the context's tokens, and `elsewhere` for all others."""
        everywhere = np.full(self.size, elsewhere)
        everywhere[self.face] = values
        return everywhere

    def add(self, m: FloatArray) -> Equilibrium | None:
        """Polish m [n] within its support and keep the equilibrium there, if there is one."""
        rest = polish(self.weights, m)
        if rest is None:
            return None
        for known in self.found:
            if _distance(known.frequencies[self.face], rest) < _SAME:
                return known
        inside = rest > 0
        rho = growth_rates(self.weights, rest)
        equilibrium = Equilibrium(
            frequencies=self.spread(rest, 0.0),
            support=self.face[inside].tolist(),
            rho=self.spread(rho, np.nan),
            inside=growth_inside(self.weights[np.ix_(inside, inside)], rest[inside]),
            invasion=-np.inf if inside.all() else float(rho[~inside].max() - 1),
        )
        self.found.append(equilibrium)
        return equilibrium

    def limit(self, m: FloatArray) -> Equilibrium | None:
        """Follow the flow from m [n] to the equilibrium it tends to; None where it does not settle.

        The equilibrium is stable, or neutral where the flow rests wherever it is. Not settling means to wander on, as
        on the way round an attracting cycle, or to circle about an unstable equilibrium for longer than any trajectory.
        """
        passed = travelled = 0.0
        while passed < _LONGEST and travelled < _FARTHEST:
            for known in self.found:
                if known.stable and _distance(known.frequencies[self.face], m) < _NEAR:
                    return known
            near = self._resting_near(m)
            if near is not None:
                return near
            stretch = max(_STRETCH, _GROWTH * passed)
            last, m = m, np.maximum(self._onwards(m, stretch), _SMALLEST)
            passed += stretch
            travelled += _distance(last, m)
        return None

    def _onwards(self, m: FloatArray, stretch: float) -> FloatArray:
        """Where the flow takes m [n] within `stretch` of log time.

        Tokens that have all but died out act on nothing. The flow of the others is followed alone, as long as none of
        those grows back meanwhile; their own frequencies change at the mean of their rates at both ends.
        """
        faded = m < _FADED
        if faded.mean() < _MANY_FADED:
            return self._whole(m, stretch)
        rates = self._rates(m)
        # Those that may come back in time take part.
        faded &= np.log(m) + stretch * (1.5 * rates - 1) < np.log(_FADED)
        alive = np.flatnonzero(~faded)
        within = self.weights[np.ix_(alive, alive)]
        after = m.copy()
        after[alive] = follow(within, m[alive] / m[alive].sum(), np.array([stretch]), _COARSE)[0]
        begin, end = rates[faded], self._rates(after)[faded]
        if (np.log(m[faded]) + stretch * (np.maximum(begin, end) - 1) > np.log(_FADED)).any():
            return self._whole(m, stretch)
        after[faded] = m[faded] * np.exp(stretch * (0.5 * (begin + end) - 1))
        grown: FloatArray = after / after.sum()
        return grown

    def _whole(self, m: FloatArray, stretch: float) -> FloatArray:
        end: FloatArray = follow(self.weights, m, np.array([stretch]), _COARSE)[0]
        return end

    def _rates(self, m: FloatArray) -> FloatArray:
        """mu / m, by which counts grow where frequencies are m [n]."""
        from ccmc._sim.flow import relative_rates

        rates = np.empty(len(m))
        relative_rates(self.weights, m, m.copy(), rates, _COARSE)
        return rates

    def _resting_near(self, m: FloatArray) -> Equilibrium | None:
        """An equilibrium close to m that does not repel, on the support of the tokens that are not dying out."""
        if 0.5 * np.abs(m * (growth_rates(self.weights, m) - 1)).sum() > _SLOW:
            return None
        size = 0
        for least in (1e-2, 1e-4, 1e-8):
            start = np.where(m >= least * m.max(), m, 0.0)
            if np.count_nonzero(start) == size:
                continue
            size = int(np.count_nonzero(start))
            rest = polish(self.weights, start / start.sum(), 4 * _NEAR)
            if rest is not None and _distance(rest, m) < _NEAR:
                candidate = self.add(rest)
                if candidate is not None and not candidate.unstable:
                    return candidate
        return None


def growth_rates(P: FloatArray, m: FloatArray) -> FloatArray:
    """rho_j = sum_i m_i P[i, j] / (P m)_i for weights P [n, n], rows up to a factor, and frequencies m [n]."""
    rates: FloatArray = (m / (P @ m)) @ P
    return rates


def polish(P: FloatArray, m: FloatArray, within: float = np.inf) -> FloatArray | None:
    """Newton's method for rho = 1 on the support of m; None where it leads nowhere inside the face.

    It is given up once it is farther than `within` from m, in total variation.

    In relative changes of m, rho has derivative D[j, l] = (P[l, j] / u_l - sum_i m_i P[i, j] P[i, l] / u_i^2) m_l with
    u = P m. Scaling m changes nothing (D 1 = 0) and sum_j m_j rho_j is 1 whatever m is, so D + 1 m^T is solved instead.
    """
    support = np.flatnonzero(m > 0)
    weights = P[np.ix_(support, support)]
    begin = x = m[support] / m[support].sum()
    for _ in range(40):
        ratio = weights / (weights @ x)[:, None]
        error = x @ ratio - 1
        if np.abs(error).max() < 1e-11:
            result = np.zeros(len(m))
            result[support] = x
            return result
        derivative = (ratio.T - (ratio.T * x) @ ratio) * x
        try:
            step = np.linalg.solve(derivative + x, -error)
        except np.linalg.LinAlgError:
            return None
        x = x * np.exp(step * min(1.0, 1.0 / np.abs(step).max()))
        x /= x.sum()
        if not x.min() > _GONE or _distance(x, begin) > within:
            return None
    return None


def growth_inside(P: FloatArray, m: FloatArray) -> float:
    """Largest real part of the eigenvalues of the flow's Jacobian at the equilibrium m [n] > 0, within the simplex."""
    n = len(m)
    if n == 1:
        return -np.inf
    ratio = P / (P @ m)[:, None]
    mixing = np.eye(n) - (ratio * m).T + np.outer(m, np.ones(n))
    moved = np.linalg.solve(mixing, np.eye(n) - (ratio.T * m) @ ratio * m[:, None])
    # Columns of an orthonormal basis of the vectors that sum to 0.
    basis = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0][:, 1:]
    return float(np.linalg.eigvals(basis.T @ (moved - np.eye(n)) @ basis).real.max())


def _distance(a: FloatArray, b: FloatArray) -> float:
    """Total variation."""
    return float(0.5 * np.abs(a - b).sum())
