"""Speed of the simulation against numpy's Generator.choice, step by step on the same chain and prompt."""

import time

import numpy as np
import pytest
from ratios import in_turn, median_ratio, median_seconds, need_both_cores, record

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
    """1,024 prompts against one long walk, whose beginning does not count: on one core, and by the clock on two.

    A path begins with rows that nobody has looked at and ends before it gains from it, so a step of many short paths
    takes one core longer than one of a long path. What many prompts gain is the second core.
    """
    K, prompts, steps, long = (33, 1024, 3_000, 300_000) if enabled else (5, 6, 50, 100)
    chain, prompt = make(kind, spread, K, np.random.default_rng(1))

    def on(threads, number, steps):
        def work():
            monkeypatch.setenv("CCMC_THREADS", str(threads))
            return simulate(chain, [prompt] * number, steps, seed=0)

        return work

    cores = min(2, thread_count())
    one, many, shared = on(1, 1, long), on(1, prompts, steps), on(cores, prompts, steps)
    np.testing.assert_array_equal(many()[0], one()[0][:steps])
    np.testing.assert_array_equal(many(), shared())
    if enabled:
        case, what, each = f"simulate {kind} K=33", f"{prompts:,} prompts", prompts * steps / long
        spent = in_turn({"one": one, "many": many}, 9, time.process_time)
        on_one = each * median_ratio(spent["one"], spent["many"])
        record(case, f"nanoseconds per step, {what}, one core", 1e9 * np.median(spent["many"]) / (prompts * steps))
        record(case, f"a step of one long walk / of {what}, one core", on_one, "bar 2")
        assert on_one >= 0.5
        need_both_cores()
        spent = in_turn({"one": one, "many": many, "shared": shared}, 9, time.perf_counter)
        on_two = each * median_ratio(spent["one"], spent["shared"])
        more = median_ratio(spent["many"], spent["shared"])
        record(case, f"a step of one long walk / of {what}, two cores", on_two, "bar 2")
        record(case, f"{what}, two cores / one", more, "bar 1.8")
        assert on_two >= 1
        assert more >= 1.5
