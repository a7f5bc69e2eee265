"""Speed and memory of the context logit: a fit over a whole vocabulary, and its walks.

Run with: python -m pytest tests/benchmarks/test_context_logit_speed.py --benchmark-enable. Bars are asserted only then;
without it the same is done small, and what it gives is checked.
"""

from __future__ import annotations

import time

import numpy as np
from ratios import record

from ccmc import BaseTransition, ContextLogit, ContextTable, fit_context_logit
from ccmc.context_logit import statistics_weights
from harness.core.memory import peak_memory

CASE = "context logit"
STATISTICS = (
    "counts", "recency", *(f"followed-by-{k}" for k in (1, 2, 3, 4, 6, 8)),
    *(f"log-followed-by-{k}" for k in (1, 2, 3, 4)), "longest-match", "log-longest-match", "recent-8",
    "recent-32", "recent-128", "suffix", "unigram", "base-by-match", "recency-squared", "match-squared",
)  # fmt: skip


def made_base(vocab, rows, top, rng):
    """Base transitions of a made-up model: the likeliest tokens of some rows, and a Zipf tail."""
    unigram = 1.0 / (np.arange(vocab) + 3.0)
    tokens = np.stack([rng.choice(vocab, top, replace=False) for _ in range(rows)]).astype(np.int32)
    p = -np.sort(-rng.dirichlet(np.full(top, 0.2), rows), axis=1) * 0.85 + 1e-9
    log_unigram = np.log(unigram / unigram.sum())
    scale = np.log(1 - p.sum(axis=1)) - np.log(1 - np.exp(log_unigram[tokens]).sum(axis=1))
    row = np.full(vocab, -1)
    row[:rows] = np.arange(rows)
    return BaseTransition(row, tokens, np.log(p), scale, log_unigram)


def test_fit_over_a_whole_vocabulary(enabled: bool) -> None:
    prompts, length, vocab, rows = (200, 256, 49_152, 5_000) if enabled else (6, 40, 500, 100)
    rng = np.random.default_rng(0)
    base = made_base(vocab, rows, 256 if enabled else 16, rng)
    names = statistics_weights(STATISTICS)
    true = ContextLogit({"present": 1.0, "log-count": 0.7, "recency": -0.2, "followed-by-1": 2.0}, base)
    start = time.perf_counter()
    paths = true.rollout([rng.integers(0, rows, 40) for _ in range(prompts)], length, 0)
    walked = time.perf_counter() - start
    texts = [np.concatenate([rng.integers(0, rows, 40), path]) for path in paths]
    start = time.perf_counter()
    table = ContextTable.of(texts, names, base, 40, np.float32)
    computed = time.perf_counter() - start
    fit = fit_context_logit(table.rows(), np.repeat(np.arange(prompts), length), ridge=1e-6)
    spent = time.perf_counter() - start
    start = time.perf_counter()
    below = fit_context_logit(table.rows(names[:3]), ridge=1e-6)
    rung = time.perf_counter() - start
    assert fit.converged
    assert below.converged
    assert abs(below.weights[below.names.index("log-count")]) < 3
    if enabled:
        peak = (peak_memory() or 0) / 2**30
        what = f"{prompts} prompts x {length} tokens x {vocab} vocabulary, {len(fit.names)} weights"
        record(CASE, "rows and fit, seconds", spent, "<= 35")
        record(CASE, "of that, rows", computed, "")
        record(CASE, "a fit of four weights with rows that are there, seconds", rung, "")
        record(CASE, "peak memory of the process, GiB", peak, "<= 4")
        record(CASE, "walks, microseconds a step", 1e6 * walked / (prompts * length), "")
        assert spent <= 35, what
        assert peak <= 4


def test_a_step_does_not_grow_with_the_vocabulary(enabled: bool) -> None:
    steps = 400 if enabled else 20
    weights = {"present": 3.0, "log-count": 0.7, "recency": -0.2, "followed-by-1": 2.0}
    spent = []
    for vocab in (5_000, 50_000):
        rng = np.random.default_rng(0)
        model = ContextLogit(weights, made_base(vocab, 500, 64, rng))
        prompts = [rng.integers(0, 500, 30) for _ in range(20)]
        model.rollout(prompts, 2, 0)
        rounds = []
        for _ in range(5):
            start = time.perf_counter()
            paths = model.rollout(prompts, steps, 0)
            rounds.append(time.perf_counter() - start)
        assert paths.shape == (20, steps)
        spent.append(float(np.median(rounds)))
    if enabled:
        record(CASE, "walk, vocabulary of 50,000 / 5,000", spent[1] / spent[0], "<= 2")
        assert spent[1] / spent[0] <= 2


def test_paths_of_one_prompt_share_its_beginning(enabled: bool) -> None:
    """Forecasts roll 64 paths of 16 tokens from one context; with another prompt between them nothing is shared."""
    paths, steps, size = (64, 16, 170) if enabled else (3, 4, 20)
    rng = np.random.default_rng(0)
    model = ContextLogit({"present": 3.0, "log-count": 0.7, "followed-by-1": 2.0}, made_base(5_000, 500, 64, rng))
    prompt, other = rng.integers(0, 60, size), rng.integers(0, 60, 1)
    model.rollout([prompt], 2, 0)
    spent: dict[str, list[float]] = {"together": [], "apart": []}
    orders = {"together": [prompt] * paths + [other] * paths, "apart": [prompt, other] * paths}
    for _ in range(5):
        for name, given in orders.items():
            start = time.perf_counter()
            assert model.rollout(given, steps, 0).shape == (2 * paths, steps)
            spent[name].append(time.perf_counter() - start)
    if enabled:
        ratio = float(np.median(spent["apart"]) / np.median(spent["together"]))
        record(CASE, "the same short paths, each from its beginning / from one they share", ratio, ">= 1")
        assert ratio >= 1
