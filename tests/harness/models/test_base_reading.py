"""Base transitions read off a model are its distributions after a neutral context and one token."""

from __future__ import annotations

import numpy as np
import pytest
import small_models
import torch

from ccmc import BaseTransition
from harness.config.load import shipped_configs
from harness.models.base_reading import expected_log, read_base, rules_out
from harness.models.loading import load_model


@pytest.fixture(scope="module")
def model():
    return small_models.llama(2, scale=0.3)


@pytest.fixture(scope="module")
def base(model):
    return read_base(model, [3, 5], top=8)


def dense_rows(model, neutral):
    size = model.get_output_embeddings().weight.shape[0]
    ids = torch.cat([torch.tensor(neutral).repeat(size, 1), torch.arange(size)[:, None]], dim=1)
    with torch.inference_mode():
        return torch.log_softmax(model(ids).logits[:, -1].double(), -1).numpy()


def test_rows_are_the_models(model, base):
    expected = dense_rows(model, [3, 5])
    found = np.stack([base.log_row(q) for q in range(len(expected))])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (base.tokens[:, 0] == expected.argmax(axis=1)).all()
    np.testing.assert_allclose(np.exp(base.log_unigram), np.exp(expected).mean(axis=0), rtol=1e-3)


@pytest.mark.parametrize("a", [0.25, 1.0])
def test_sums_over_the_vocabulary(model, base, a):
    expected = np.log(np.exp(a * dense_rows(model, [3, 5])).sum(axis=1))
    np.testing.assert_allclose(base.moments(a)[:-1, 0], expected, atol=1e-4)


def test_another_neutral_context_gives_other_rows(model, base):
    other = read_base(model, [9], queries=np.array([4, 7]), top=8)
    np.testing.assert_allclose(other.log_row(7), dense_rows(model, [9])[7], atol=1e-4)
    assert np.abs(other.log_row(7) - base.log_row(7)).max() > 1e-3
    np.testing.assert_array_equal(other.log_row(0), other.log_unigram)  # was not asked for


@pytest.mark.parametrize("kind", ["exact", "sparse", "some rows"])
def test_expected_log_is_the_sum_over_all_tokens(model, base, kind):
    if kind == "sparse":
        base = BaseTransition(base.row, base.tokens, base.log_p, base.log_scale, base.log_unigram)
    elif kind == "some rows":  # others have the unigram; rows of their own stay exact
        base = read_base(model, [3, 5], np.array([4, 7]), top=8)
    query = np.array([0, 4, 4, 11])
    p = torch.softmax(torch.randn(4, base.vocab_size, generator=torch.Generator().manual_seed(0)), -1)
    expected = [(p[n].double().numpy() * base.log_row(int(q))).sum() for n, q in enumerate(query)]
    np.testing.assert_allclose(expected_log(base, query, p), expected, rtol=1e-4)


def test_the_neutral_context_is_not_empty(model):
    with pytest.raises(ValueError, match="sink"):
        read_base(model, [])


def test_a_model_that_rules_tokens_out_has_no_base_to_read(model):
    """The shipped one-layer model never leaves its context."""
    closed = load_model(shipped_configs() / "models" / "one-layer", "cpu")
    assert rules_out(closed, [1])
    with pytest.raises(ValueError, match="say base: none"):
        read_base(closed, [1])
    assert not rules_out(model, [3])
