"""The random numbers of continuations: per prompt, seed and step."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.core.noise import uniforms

PROMPTS = [[index, 7, index * index] for index in range(60)]


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**31), max_size=20), st.integers(0, 50), st.integers(0, 50))
def test_a_longer_continuation_goes_on_with_the_numbers_of_a_shorter_one(
    seed: int, prompt: list[int], short: int, more: int
) -> None:
    found = uniforms(seed, prompt, short + more, 3)
    np.testing.assert_array_equal(found[:short], uniforms(seed, np.array(prompt), short, 3))
    assert found.shape == (short + more, 3)
    assert ((found >= 0) & (found < 1)).all()


@given(st.integers(0, 2**62), st.lists(st.integers(0, 2**31), min_size=1, max_size=20), st.integers(1, 1000))
def test_another_seed_or_prompt_has_other_numbers(seed: int, prompt: list[int], more: int) -> None:
    first = uniforms(seed, prompt, 4)
    for other in (uniforms(seed + more, prompt, 4), uniforms(seed, [*prompt, more], 4), uniforms(seed, prompt[:-1], 4)):
        assert (first != other).all()


def test_numbers_are_uniform_and_independent_over_prompts_seeds_and_steps() -> None:
    table = np.stack([[uniforms(seed, prompt, 25, 2) for prompt in PROMPTS] for seed in range(20)])  # [20, 60, 25, 2]
    flat, n = np.sort(table.ravel()), table.size
    distance = np.abs(flat - (np.arange(n) + 0.5) / n).max()  # Kolmogorov-Smirnov, 99.99th percentile
    assert distance < 2.2 / np.sqrt(n)
    for axis in range(4):  # neighbours along seeds, prompts, steps and the numbers of a step
        one, other = (np.take(table, range(first, table.shape[axis] - 1 + first), axis) - 0.5 for first in (0, 1))
        correlation = 12 * float((one * other).mean())
        assert abs(correlation) < 4 / np.sqrt(one.size)
    assert len(np.unique(table)) == n


def test_numbers_never_change() -> None:
    """They are part of what a seed means: results of old runs rest on them."""
    expected = [[0.1132996776178824, 0.7456086173961184], [0.8592642550606907, 0.664288925469338]]
    assert uniforms(3, [1, 2, 3], 2, 2).tolist() == expected
    assert uniforms(3, [1, 2, 3], 2, 2, occurrence=0).tolist() == expected


def test_equal_prompts_that_are_told_apart_have_other_numbers() -> None:
    table = np.stack([uniforms(3, [1, 2, 3], 500, occurrence=occurrence)[:, 0] for occurrence in range(40)])
    assert len(np.unique(table)) == table.size
    assert np.abs(np.corrcoef(table) - np.eye(40)).max() < 5 / np.sqrt(500)
