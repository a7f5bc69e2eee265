"""Speed of the simulation against numpy's Generator.choice, step by step on the same chain and prompt."""

import time

import numpy as np
import pytest
from ratios import in_turn, median_ratio, median_seconds, record

from ccmc import CCMC, AttentionCCMC, simulate
from ccmc._data.compiled import thread_count

# Kind, spread of the logits, K, steps, and the bar for one call with several prompts.
CASES = [
    ("flat", 0.3, 33, 300_000, 400),
    ("flat", 0.3, 1000, 300_000, 150),
    ("flat", 0.3, 50_000, 100_000, 500),
    ("peaked", 3.0, 33, 300_000, 400),
    ("peaked", 3.0, 1000, 300_000, 150),
    ("peaked", 3.0, 50_000, 100_000, 140),
]
PROMPTS = 4


def make(kind, spread, K, rng):
    """A chain and a prompt; with K = 50,000 logits are products, and the prompt holds 4,096 tokens."""
    if K <= 2000:
        return CCMC(spread * rng.normal(size=(K, K))), np.concatenate([np.arange(K), rng.integers(0, K, K)])
    width = 16
    scale = spread**0.5 / width**0.25
    chain = AttentionCCMC(scale * rng.normal(size=(K, width)), scale * rng.normal(size=(K, width)))
    return chain, rng.integers(0, K, 4096)


def by_choice(chain, prompt, steps):
    """The same law, with the row's weights and numpy's choice at every step."""
    rng = np.random.default_rng(0)
    counts = np.bincount(prompt, minlength=chain.vocab_size).astype(float)
    transition = chain.transition if isinstance(chain, CCMC) else None
    query, path = int(prompt[-1]), []
    for _ in range(steps):
        row = transition[query] if transition is not None else np.exp(chain.rows(np.array([query]))[0])
        p = counts * row
        query = int(rng.choice(len(p), p=p / p.sum()))
        counts[query] += 1
        path.append(query)
    return path


@pytest.mark.parametrize(("kind", "spread", "K", "steps", "bar"), CASES)
def test_against_numpy_choice(enabled, benchmark, kind, spread, K, steps, bar):
    rng = np.random.default_rng(1)
    if not enabled:
        K, steps = min(K, 300), 2000
    chain, prompt = make(kind, spread, K, rng)
    path = benchmark.pedantic(lambda: simulate(chain, [prompt], steps, seed=0), rounds=1, warmup_rounds=1)[0]
    assert set(path.tolist()) <= set(prompt.tolist())
    slow = 100 if K > 2000 or not enabled else 3000
    assert set(by_choice(chain, prompt, slow)) <= set(prompt.tolist())
    if enabled:
        theirs = median_seconds(lambda: by_choice(chain, prompt, slow), 3) / slow
        one = median_seconds(lambda: [simulate(chain, [prompt], steps, seed=s) for s in range(PROMPTS)], 3)
        many = median_seconds(lambda: simulate(chain, [prompt] * PROMPTS, steps, seed=0), 3)
        for what, seconds in (("one prompt a call", one), (f"{PROMPTS} prompts a call", many)):
            nanoseconds = 1e9 * seconds / (PROMPTS * steps)
            record(f"simulate {kind} K={K:,}", f"nanoseconds per step, {what}", nanoseconds)
            record(f"simulate {kind} K={K:,}", f"x numpy choice, {what}", 1e9 * theirs / nanoseconds, f"bar {bar}")
        assert theirs / (many / (PROMPTS * steps)) >= bar


@pytest.mark.parametrize(("kind", "spread"), [("flat", 0.3), ("peaked", 3.0)])
def test_many_prompts_a_call(enabled, monkeypatch, kind, spread):
    """1,024 prompts against one, by the clock and on all cores: a path runs on one core, many share them."""
    K, prompts, steps, long = (33, 1024, 3_000, 300_000) if enabled else (5, 6, 50, 100)
    chain, prompt = make(kind, spread, K, np.random.default_rng(1))

    def on(threads, number, steps):
        def work():
            monkeypatch.setenv("CCMC_THREADS", str(threads))
            return simulate(chain, [prompt] * number, steps, seed=0)

        return work

    cores = thread_count()
    np.testing.assert_array_equal(on(cores, prompts, steps)()[0], on(1, 1, steps)()[0])
    if enabled:
        ways = {
            "one": on(1, 1, steps), "one long": on(1, 1, long), "many": on(cores, prompts, steps),
            "many, one core": on(1, prompts, steps), "many, two cores": on(2, prompts, steps),
        }  # fmt: skip
        spent = in_turn(ways, 9, time.perf_counter)
        case, many, times = f"simulate {kind} K=33", f"{prompts:,} prompts of {steps:,} steps", prompts * steps
        record(case, f"nanoseconds per step, {many}", 1e9 * np.median(spent["many"]) / times)
        of_one = median_ratio(spent["one"], spent["many"]) * prompts
        record(case, f"a step of one such prompt / of {prompts:,}", of_one, "bar 2")
        of_long = median_ratio(spent["one long"], spent["many"]) * times / long
        record(case, f"a step of one prompt of {long:,} / of {prompts:,}", of_long, "bar 2")
        assert of_one >= 2
        assert of_long >= 1.0
        if cores >= 2:
            more = median_ratio(spent["many, one core"], spent["many, two cores"])
            record(case, f"{many}, two cores / one", more, "bar 1.8")
            assert more >= 1.5
