"""Laws that leave their context: against formulas written out one token at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from transformers import AutoModelForCausalLM

from harness.hf import CCMCForCausalLM
from harness.hf.escape_law import Elsewhere, EscapeLaw, Forms, Rows

VOCAB = 7
TOKENS = np.array([2, 5, 2, 1, 5, 2, 4, 5])
OPEN_CHAIN = {"base": 0.7, "present": 1.3, "log-count": 0.9}


def elsewhere(rng: Any) -> Elsewhere:
    known = np.ones(VOCAB, dtype=bool)
    known[[3, 6]] = False
    own = sparse.csr_array(np.where(known, rng.exponential(size=(VOCAB, VOCAB)), 0.0))
    return Elsewhere(Rows(np.where(known, 0.3, 0.0), own), rng.uniform(0.1, 0.2, VOCAB), known)


def mixture(rng: Any, closed: bool = False) -> EscapeLaw:
    place = np.array([0, 1, 2, 4, 3, 4, 4])  # tokens 3, 5 and 6 share a row
    forms = Forms(place, np.array([0.2, 0.5]), rng.normal(size=(2, 5, 3)), 2 * rng.normal(size=(2, 5, 3)),
                  np.array([0.0, 1.5]))  # fmt: skip
    return EscapeLaw("mixture", {"counts": 0.3}, None, rng.uniform(0.1, 0.4, VOCAB), elsewhere(rng), closed, forms)


def whole_law(law: EscapeLaw, tokens: Any) -> Any:
    types, counts = np.unique(tokens, return_counts=True)
    return np.exp(law.log_law(tokens, types, counts.astype(float)))


@pytest.mark.parametrize("closed", [False, True])
def test_a_mixture_of_chains_and_counts(closed: bool) -> None:
    law = mixture(np.random.default_rng(0), closed)
    forms, query = law.forms, 5
    assert forms is not None
    inside = np.zeros(VOCAB)
    for h, cap in enumerate([None, 1.5]):
        mass = np.zeros(VOCAB)
        for j in TOKENS:
            score = float(forms.queries[h, forms.place[query]] @ forms.keys[h, forms.place[j]])
            mass[j] += np.exp(score if cap is None else cap * np.tanh(score / cap))
        inside += forms.weights[h] * mass / mass.sum()
    inside += 0.3 * np.bincount(TOKENS, minlength=VOCAB) / len(TOKENS)
    rate = 0.0 if closed else law.rate[query]
    outside = np.where(inside > 0, 0.0, law.elsewhere.row(query))
    np.testing.assert_allclose(whole_law(law, TOKENS), (1 - rate) * inside + rate * outside / outside.sum(), rtol=1e-12)


@pytest.mark.parametrize("closed", [False, True])
def test_an_open_chain_prefers_tokens_of_the_context(closed: bool) -> None:
    rng = np.random.default_rng(1)
    law = EscapeLaw("open-chain", OPEN_CHAIN, None, np.full(VOCAB, 0.5), elsewhere(rng), closed)
    base, expected = law.elsewhere.row(5), np.zeros(VOCAB)
    for j in range(VOCAB):
        times = int((j == TOKENS).sum())
        bonus = np.exp(1.3) * times**0.9 if times else 0.0 if closed else 1.0
        expected[j] = (base[j] / base.sum()) ** 0.7 * bonus
    np.testing.assert_allclose(whole_law(law, TOKENS), expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mixture_comes_back_from_its_folder(tmp_path: Path, dtype: torch.dtype) -> None:
    law = mixture(np.random.default_rng(2))
    CCMCForCausalLM.from_escape(law).save_pretrained(tmp_path)
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    np.testing.assert_array_equal(whole_law(again.escape_law, TOKENS), whole_law(law, TOKENS))
    logits = again(torch.from_numpy(TOKENS)[None]).logits[0, -1].double().exp().numpy()
    np.testing.assert_allclose(logits, whole_law(law, TOKENS), rtol=1e-5)


def test_a_mixture_needs_its_chains_and_nothing_else_has_them() -> None:
    law = mixture(np.random.default_rng(3))
    with pytest.raises(ValueError, match="a mixture, and nothing else, has forms"):
        EscapeLaw("mixture", {}, None, law.rate, law.elsewhere)
    with pytest.raises(ValueError, match="a mixture, and nothing else, has forms"):
        EscapeLaw("chain", {}, None, law.rate, law.elsewhere, forms=law.forms)
