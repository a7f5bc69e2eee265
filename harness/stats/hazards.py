"""Forecasts of events along a text: Brier score with its parts, log score, calibration.

An observation is one step of one text: a forecast p of an event, such as "a loop starts within 16 tokens", and whether
it came, y. Steps of a text depend on each other, so that every interval is over clusters: prompts, or groups of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.core.records import Interval
from harness.stats.grouped import group_mean
from harness.stats.intervals import Floats, interval_of_sums
from harness.stats.position_model import base_rate, fit_position
from harness.stats.proper import skill

BINS = 10


def from_rollouts(hits: ArrayLike, rollouts: int) -> Floats:
    """The probability of an event from short rollouts, (r + .5) / (R + 1): never 0 or 1.

    Args:
        hits: [n] in how many rollouts the event came, 0 to R.
        rollouts: R, at least 1.

    Raises:
        ValueError: no rollouts, or a number of hits outside 0 to R (its index is named).
    """
    r = np.asarray(hits, dtype=np.float64)
    if rollouts < 1:
        raise ValueError(f"a probability needs at least one rollout, got {rollouts}")
    wrong = np.flatnonzero(~((r >= 0) & (r <= rollouts)))
    if wrong.size:
        raise ValueError(f"hits[{wrong[0]}] is {r.flat[wrong[0]]}; of {rollouts} rollouts")
    return np.asarray((r + 0.5) / (rollouts + 1), dtype=np.float64)


def brier_scores(forecasts: ArrayLike, events: ArrayLike) -> Floats:
    """[n] the squared error of each forecast, in [0, 1]: what `proper.skill` compares with a reference.

    Raises:
        ValueError: as `brier`.
    """
    p, y = _checked(forecasts, events)
    scores: Floats = (p - y) ** 2
    return scores


def fair_brier_scores(hits: ArrayLike, rollouts: int, events: ArrayLike) -> Floats:
    """[n] the squared errors that the law behind the rollouts would have had, unbiased: finite R costs nothing.

    Args:
        hits: [n] in how many rollouts the event came.
        rollouts: R, at least 2.
        events: [n] whether it came in the text.

    Returns:
        (r / R - y)^2 - r (R - r) / (R^2 (R - 1)); single ones can be negative.

    Raises:
        ValueError: fewer than 2 rollouts, or as `from_rollouts` and `brier`.

    Source:
        Ferro, "Fair scores for ensemble forecasts", 2014.
    """
    if rollouts < 2:
        raise ValueError(f"fair scores need at least 2 rollouts, got {rollouts}")
    from_rollouts(hits, rollouts)
    share, y = _checked(np.asarray(hits, dtype=np.float64) / rollouts, events)
    scores: Floats = (share - y) ** 2 - share * (1 - share) / (rollouts - 1)
    return scores


def choice_scores(chosen: ArrayLike, squares: ArrayLike) -> Floats:
    """[n] Brier scores of which of several tokens came, in [0, 2]: sum over tokens of (p - [it came])^2.

    Args:
        chosen: [n] the probability that the token had which came.
        squares: [n] sum of the squared probabilities of all tokens.

    Raises:
        ValueError: other lengths, or a sum of squares below the square of the chosen probability or above 1.
    """
    p, square = np.asarray(chosen, dtype=np.float64), np.asarray(squares, dtype=np.float64)
    if p.shape != square.shape or not ((p >= 0) & (p**2 <= square + 1e-9) & (square <= 1 + 1e-9)).all():
        raise ValueError("choices need the probability of what came and the sum of squares of all, in [p^2, 1]")
    scores: Floats = 1 - 2 * p + square
    return scores


@dataclass(frozen=True)
class Brier:
    """The Brier score and its parts, each with a 95 % interval over clusters; better lower.

    value = reliability - resolution + uncertainty + within, exactly.

    Attributes:
        value: mean squared error of the forecasts.
        reliability: how far the forecasts of a bin are from how often the event came; 0 is calibrated.
        resolution: how much how often it came differs between bins; more is better.
        uncertainty: of the event itself, o (1 - o).
        within: what forecasts of one bin differ by; small with many bins, of either sign.
        n, clusters: steps, and the texts that they are steps of.
    """

    value: Interval
    reliability: Interval
    resolution: Interval
    uncertainty: Interval
    within: float
    n: int
    clusters: int


def brier(
    forecasts: ArrayLike, events: ArrayLike, clusters: ArrayLike, bins: int = BINS, seed: int = 0, level: float = 0.95
) -> Brier:
    """Brier score with the decomposition by Murphy.

    Args:
        forecasts: [n] probabilities.
        events: [n] 0 or 1.
        clusters: [n] the prompt (or group) of each step.
        bins: how many, of about equally many forecasts each.
        seed: of the cluster bootstrap that gives the parts their intervals.
        level: nominal coverage.

    Returns:
        The score and its parts. Of few clusters reliability and resolution are too large, by about
        bins / n x the design effect of the clusters.

    Raises:
        ValueError: no steps, other lengths, a forecast outside [0, 1] or an event that is not 0 or 1 (index named).

    Source:
        Murphy, "A New Vector Partition of the Probability Score", 1973; Stephenson, Coelho and Jolliffe, "Two Extra
        Components in the Brier Score Decomposition", 2008 (the part within bins).
    """
    p, y = _checked(forecasts, events)
    _, cluster = _clusters(clusters, p.size)
    place = np.searchsorted(bin_edges(p, bins)[1:-1], p, side="right")
    width, count = int(place.max()) + 1, int(cluster.max()) + 1
    sums = np.zeros((count, 3, width))
    for part, weights in enumerate((np.ones_like(p), p, y)):
        np.add.at(sums[:, part], (cluster, place), weights)
    reliability, resolution, uncertainty = murphy_intervals(sums, seed, level)
    value = group_mean((p - y) ** 2, cluster).interval(level)
    exact = [part.value or 0.0 for part in (reliability, resolution, uncertainty)]
    within = float(np.mean((p - y) ** 2)) - (exact[0] - exact[1] + exact[2])
    return Brier(value, reliability, resolution, uncertainty, within, p.size, count)


def murphy_intervals(
    sums: Floats, seed: int = 0, level: float = 0.95, parts: Sequence[int] = (0, 1, 2)
) -> tuple[Interval, ...]:
    """Reliability, resolution and uncertainty, each with an interval by resampling clusters.

    Args:
        sums: [clusters, 3, bins] of every cluster and bin the number of forecasts, their sum, and the number of events.
        seed: of the bootstrap.
        level: nominal coverage.
        parts: which of the three, by number.

    Raises:
        ValueError: no forecasts.
    """
    count, _, width = sums.shape
    flat = sums.reshape(count, -1)
    if not sums[:, 0].sum() > 0:
        raise ValueError("a calibration needs forecasts")
    of = [lambda found, part=part: murphy(found.reshape(-1, 3, width))[:, part] for part in parts]
    return tuple(interval_of_sums(statistic, flat, seed, level) for statistic in of)


def murphy(sums: Floats) -> Floats:
    """Reliability, resolution and uncertainty.

    Args:
        sums: [draws, 3, bins] of every bin the number of forecasts, their sum, and the number of events.

    Returns:
        float64 [draws, 3].
    """
    number, forecast, event = sums[:, 0], sums[:, 1], sums[:, 2]
    total = number.sum(axis=1)
    safe = np.maximum(number, 1.0)
    base = event.sum(axis=1) / total
    reliability = (number * (forecast / safe - event / safe) ** 2).sum(axis=1) / total
    resolution = (number * (event / safe - base[:, None]) ** 2).sum(axis=1) / total
    found: Floats = np.stack([reliability, resolution, base * (1 - base)], axis=1)
    return found


def bin_edges(forecasts: Floats, bins: int = BINS) -> Floats:
    """Edges of bins with about equally many forecasts; equal forecasts share a bin, so there may be fewer bins."""
    if bins < 1:
        raise ValueError(f"at least one bin, got {bins}")
    inner = np.unique(np.quantile(forecasts, np.arange(1, bins) / bins)) if bins > 1 else np.zeros(0)
    inner = inner[(inner > forecasts.min()) & (inner <= forecasts.max())]
    return np.concatenate([[0.0], inner, [1.0]])


@dataclass(frozen=True)
class LogScore:
    """Mean of -log of the probability that was given to what happened, in nats; better lower.

    Attributes:
        value: with its interval over clusters; infinite, without one, where anything that happened had probability 0.
        infinite: how many steps that was.
        n, clusters: steps, and the texts that they are steps of.
    """

    value: Interval
    infinite: int
    n: int
    clusters: int


def log_scores(forecasts: ArrayLike, events: ArrayLike) -> Floats:
    """[n] nats of each step, infinite where what happened had probability 0.

    Raises:
        ValueError: as `brier`.
    """
    p, y = _checked(forecasts, events)
    with np.errstate(divide="ignore"):
        scores: Floats = np.abs(np.log(np.where(y > 0, p, 1 - p)))
    return scores


def log_score(scores: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> LogScore:
    """The mean of log scores; an infinite one makes it infinite, and is counted.

    Args:
        scores: [n] nats, of binary events (`log_scores`) or of tokens; not NaN.
        clusters: [n] the prompt (or group) of each step.
        level: nominal coverage.

    Raises:
        ValueError: no steps, a NaN, or other lengths.
    """
    nats = np.asarray(scores, dtype=np.float64)
    if nats.size == 0 or np.isnan(nats).any():
        raise ValueError("log scores: no steps" if nats.size == 0 else "log scores hold a NaN")
    names, cluster = _clusters(clusters, nats.size)
    infinite = int(np.isinf(nats).sum())
    if infinite:
        said = f"{infinite} of {nats.size} steps had probability 0"
        return LogScore(Interval(float("inf"), None, None, len(names), said), infinite, nats.size, len(names))
    return LogScore(group_mean(nats, cluster).interval(level), 0, nats.size, len(names))


@dataclass(frozen=True)
class CalibrationBin:
    """Forecasts of one size, and how often the event came.

    Attributes:
        low, high: edges of the bin.
        forecast: mean forecast.
        observed: share of steps with the event; the interval is Wilson's, with as many steps as the clusters are worth.
        n, clusters: steps, and the texts that they are steps of.
    """

    low: float
    high: float
    forecast: float
    observed: Interval
    n: int
    clusters: int


def calibration(
    forecasts: ArrayLike, events: ArrayLike, clusters: ArrayLike, bins: int = BINS, level: float = 0.95
) -> list[CalibrationBin]:
    """The calibration table.

    Args:
        forecasts, events, clusters, bins, level: as `brier`.

    Returns:
        The bins, from low to high. The interval takes n / (design effect) for the number of steps, the design effect
        being the variance of the share over clusters in units of that of independent steps, at least 1, and that of
        all bins together where a bin has only one kind of outcome or fewer than 5 clusters.

    Raises:
        ValueError: as `brier`.

    Source:
        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927; Korn and Graubard,
        "Confidence Intervals for Proportions with Small Expected Number of Positive Counts", 1998.
    """
    p, y = _checked(forecasts, events)
    names, cluster = _clusters(clusters, p.size)
    edges = bin_edges(p, bins)
    place = np.searchsorted(edges[1:-1], p, side="right")
    overall = _design_effect(y, cluster) or float(p.size) / len(names)
    table = []
    for index in np.unique(place):
        own = place == index
        effect = _design_effect(y[own], cluster[own]) or overall
        n, held = int(own.sum()), len(np.unique(cluster[own]))
        worth = max(n / effect, 1.0)
        share = float(y[own].mean())
        low, high = wilson(share, worth, level)
        seen = Interval(share, low, high, held)
        low_edge, high_edge = float(edges[index]), float(edges[index + 1])
        table.append(CalibrationBin(low_edge, high_edge, float(p[own].mean()), seen, n, held))
    return table


def wilson(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of n independent outcomes; n need not be whole."""
    from scipy.special import ndtri

    z = float(ndtri(0.5 + level / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


@dataclass(frozen=True)
class Hazard:
    """All that is said about forecasts of one event: the Brier score first, and what it is compared with.

    Attributes:
        brier: the score with its parts.
        nats: the log score.
        table: calibration.
        over_base: skill of the Brier score against the training texts' share of steps with the event.
        over_position: the same against a logistic model of position alone, fitted to training texts.
    """

    brier: Brier
    nats: LogScore
    table: list[CalibrationBin]
    over_base: Interval
    over_position: Interval


def judge_hazard(
    forecasts: ArrayLike,
    events: ArrayLike,
    positions: ArrayLike,
    clusters: ArrayLike,
    training_positions: ArrayLike,
    training_events: ArrayLike,
    seed: int = 0,
) -> Hazard:
    """Judge forecasts of one event along held-out texts.

    Args:
        forecasts, events, positions, clusters: [n] of the held-out steps.
        training_positions, training_events: [m] of the steps of training texts, which the references are fitted to.
        seed: of the resampling that gives the parts of the Brier score their intervals.

    Raises:
        ValueError: as `brier` and `fit_position`.
    """
    told = brier(forecasts, events, clusters, seed=seed)
    own = brier_scores(forecasts, events)
    rate = np.full(own.size, base_rate(training_events))
    by_position = fit_position(training_positions, training_events).predict(positions)
    over_base, over_position = (
        skill(own, brier_scores(reference, events), clusters) for reference in (rate, by_position)
    )
    nats = log_score(log_scores(forecasts, events), clusters)
    return Hazard(told, nats, calibration(forecasts, events, clusters), over_base, over_position)


def _design_effect(events: Floats, cluster: NDArray[np.int64]) -> float | None:
    """How many times the variance of independent steps the share over clusters has; None with too few clusters."""
    share = float(events.mean())
    found = group_mean(events, cluster).found
    if found is None or share in {0.0, 1.0}:
        return None
    return max(1.0, float(found.error) ** 2 * events.size / (share * (1 - share)))


def _checked(forecasts: ArrayLike, events: ArrayLike) -> tuple[Floats, Floats]:
    p, y = np.asarray(forecasts, dtype=np.float64), np.asarray(events, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape or p.size == 0:
        raise ValueError(f"forecasts and events must be two equally long lists, got shapes {p.shape} and {y.shape}")
    for name, values, right in (("forecasts", p, (p >= 0) & (p <= 1)), ("events", y, (y == 0) | (y == 1))):
        wrong = np.flatnonzero(~right)
        if wrong.size:
            allowed = "a probability lies in [0, 1]" if name == "forecasts" else "an event is 0 or 1"
            raise ValueError(f"{name}[{wrong[0]}] is {values[wrong[0]]}; {allowed}")
    return p, y


def _clusters(clusters: ArrayLike, n: int) -> tuple[list[object], NDArray[np.int64]]:
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    if place.shape != (n,):
        raise ValueError(f"{n} steps, but clusters of shape {np.shape(clusters)}")
    return names.tolist(), place.astype(np.int64)
