"""A chain as a model of transformers: its logits are those of `ccmc`, however it is called, stored and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast, pipeline

import harness.hf  # noqa: F401 - registers
from ccmc import CCMC, BaseTransition, ContextLogit
from harness.hf import CCMCConfig, CCMCForCausalLM
from harness.surrogates.vocabulary.suffix import LENGTHS, Suffix, SuffixReader

V = 40
WEIGHTS = {"base": 0.8, "present": 0.5, "log-count": 0.6, "recency": -0.2, "followed-by-1": 2.0, "followed-by-2": 1.5}


def made_base(top: int | None = 8) -> BaseTransition:
    p = np.random.default_rng(0).dirichlet(np.full(V, 0.3), V) + 1e-4
    return BaseTransition.from_rows(np.arange(V), p / p.sum(axis=1, keepdims=True), top=top)


@pytest.fixture(scope="module")
def logit() -> ContextLogit:
    return ContextLogit(WEIGHTS, made_base())


@pytest.fixture(scope="module")
def model(logit: ContextLogit) -> CCMCForCausalLM:
    return CCMCForCausalLM.from_context_logit(logit, "made here", eos_token_id=None).eval()


def text_of(n: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 9, n))


def test_logits_are_the_law(model: CCMCForCausalLM, logit: ContextLogit) -> None:
    ids = text_of(30, 1)
    found = model(ids[None]).logits[0].double().exp()
    expected = logit.next_token([ids[: n + 1].numpy() for n in range(30)])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(-1).numpy(), 1, atol=1e-5)
    last = model(ids[None], logits_to_keep=3).logits
    torch.testing.assert_close(last[0], model(ids[None]).logits[0, -3:])


def test_the_loss_is_the_mean_log_probability(model: CCMCForCausalLM, logit: ContextLogit) -> None:
    ids = text_of(25, 2)
    loss = float(model(ids[None], labels=ids[None]).loss)
    assert loss == pytest.approx(-logit.log_probabilities(ids.numpy()).mean(), rel=1e-6)


def test_steps_with_a_cache_and_padding_change_nothing(model: CCMCForCausalLM) -> None:
    short, long = text_of(9, 3), text_of(20, 4)
    alone = [model(ids[None]).logits[0] for ids in (short, long)]
    ids, mask = torch.zeros(2, 20, dtype=torch.long), torch.zeros(2, 20, dtype=torch.long)
    for row, text in enumerate((short, long)):
        ids[row, 20 - len(text) :], mask[row, 20 - len(text) :] = text, 1
    together = model(ids, attention_mask=mask).logits
    for row, expected in enumerate(alone):
        torch.testing.assert_close(together[row, -len(expected) :], expected)
    out = model(ids[:, :12], attention_mask=mask[:, :12])
    rest = model(ids[:, 12:], attention_mask=mask, past_key_values=out.past_key_values).logits
    torch.testing.assert_close(rest, together[:, 12:])
    with pytest.raises(ValueError, match="cache is of 2 texts"):
        model(short[None], past_key_values=out.past_key_values)


def greedy_by_hand(logit: ContextLogit, ids: list[int], steps: int) -> list[int]:
    for _ in range(steps):
        ids = [*ids, int(logit.next_token([np.array(ids)])[0].argmax())]
    return ids


def test_generate_greedily_with_beams_and_by_sampling(model: CCMCForCausalLM, logit: ContextLogit) -> None:
    prompts = torch.stack([text_of(8, 5), text_of(8, 6)])
    plain = GenerationConfig(max_new_tokens=10, do_sample=False, pad_token_id=0)
    found = model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=plain)
    for row in range(2):
        assert found[row].tolist() == greedy_by_hand(logit, prompts[row].tolist(), 10)
    beams = GenerationConfig(max_new_tokens=6, num_beams=4, do_sample=False, pad_token_id=0)
    best = model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=beams)
    for row in range(2):
        of_beam, of_greedy = (logit.log_probabilities(ids.numpy(), 8).sum() for ids in (best[row], found[row, :14]))
        assert of_beam >= of_greedy - 1e-9
        assert best[row].tolist() == best_of_all_beams(logit, prompts[row].tolist(), 6, 4)
    torch.manual_seed(0)
    sampled = GenerationConfig(max_new_tokens=1, do_sample=True, num_return_sequences=4000, top_k=0, pad_token_id=0)
    drawn = model.generate(prompts[:1], attention_mask=torch.ones(1, 8, dtype=torch.long), generation_config=sampled)
    share = np.bincount(drawn[:, -1].numpy(), minlength=V) / 4000
    p = logit.next_token([prompts[0].numpy()])[0]
    assert (np.abs(share - p) <= 4.5 * np.sqrt(p * (1 - p) / 4000) + 1e-3).all()


def best_of_all_beams(logit: ContextLogit, ids: list[int], steps: int, beams: int) -> list[int]:
    """Beam search written out."""
    kept = [(0.0, ids)]
    for _ in range(steps):
        every = []
        for score, text in kept:
            log = np.log(logit.next_token([np.array(text)])[0])
            every += [(score + float(log[token]), [*text, token]) for token in range(V)]
        kept = sorted(every, key=lambda one: -one[0])[:beams]
    return kept[0][1]


def test_a_stored_model_is_the_same_whatever_it_is_cast_to(
    model: CCMCForCausalLM, logit: ContextLogit, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, CCMCConfig)
    assert config.weights == WEIGHTS
    ids = text_of(20, 7)[None]
    for dtype in (torch.float32, torch.bfloat16):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
        assert isinstance(loaded, CCMCForCausalLM)
        np.testing.assert_array_equal(loaded.context_logit.base.log_p, logit.base.log_p)
        torch.testing.assert_close(loaded(ids).logits.float(), model(ids).logits, rtol=0, atol=0)


def test_a_base_of_logits_is_stored_whole(tmp_path: Path) -> None:
    from ccmc.base import Factors, exponents

    rng = np.random.default_rng(8)
    hidden, keys = rng.normal(size=(V, 6)).astype(np.float32), rng.normal(size=(V, 6)).astype(np.float32)
    log = hidden.astype(float) @ keys.astype(float).T
    norm = np.log(np.exp(log).sum(axis=1))
    sums = np.log(np.exp(np.einsum("m,rv->mrv", exponents(24), log - norm[:, None])).sum(axis=2)).T
    p = np.exp(log - norm[:, None])
    sparse = BaseTransition.from_rows(np.arange(V), p / p.sum(axis=1, keepdims=True), top=5)
    factors = Factors(hidden, keys, np.zeros(V), 0.0, norm, np.ascontiguousarray(sums))
    base = BaseTransition(sparse.row, sparse.tokens, sparse.log_p, sparse.log_scale, sparse.log_unigram, factors)
    logit = ContextLogit(WEIGHTS, base)
    CCMCForCausalLM.from_context_logit(logit).save_pretrained(tmp_path)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = text_of(15, 9)
    found = loaded(ids[None]).logits[0, -1].double().exp().numpy()
    np.testing.assert_allclose(found, logit.next_token([ids.numpy()])[0], atol=1e-6)


def test_the_chain_itself_is_closed_and_its_open_form_is_not() -> None:
    chain = CCMC(np.random.default_rng(10).normal(size=(V, V)))
    ids = text_of(12, 11)
    counts = np.bincount(ids.numpy(), minlength=V).astype(float)
    closed = CCMCForCausalLM.from_chain(chain)
    logits = closed(ids[None]).logits[0, -1].double()
    np.testing.assert_allclose(logits.exp().numpy(), chain.next_token(counts, int(ids[-1])), atol=1e-6)
    assert torch.isinf(logits[20:]).all()
    assert not closed.config.open
    opened = CCMCForCausalLM.from_chain(chain, open_weight=2.0)
    logits = opened(ids[None]).logits[0, -1].double()
    p = chain.transition[int(ids[-1])] * np.where(counts > 0, counts * np.exp(2.0), 1.0)
    np.testing.assert_allclose(logits.exp().numpy(), p / p.sum(), atol=1e-6)
    assert opened.config.open


def test_suffix_is_the_surrogate() -> None:
    rng = np.random.default_rng(12)
    unigram = rng.dirichlet(np.full(V, 2.0))
    weights = rng.dirichlet(np.ones(3), len(LENGTHS) + 1)
    weights[0] = [0.0, 0.7, 0.3]
    ids = rng.integers(0, 5, 60)
    surrogate = Suffix()
    surrogate.unigram_, surrogate.weights_ = unigram, weights
    from harness.surrogates.vocabulary_base import ScoredText

    text = ScoredText("p", "g", 0, ids, 4, {})
    expected = surrogate.along(text)
    model = CCMCForCausalLM.from_suffix(unigram, weights)
    log = model(torch.from_numpy(ids)[None]).logits[0].double().numpy()
    np.testing.assert_allclose(log[3:-1][np.arange(56), ids[4:]], expected.log_next, atol=1e-6)
    types = text.numbered.types
    seen = text.known
    np.testing.assert_allclose(np.exp(log[3:-1][:, types])[seen], np.exp(expected.log_inside)[seen], atol=1e-6)
    reader = SuffixReader(unigram, weights)
    reader.read(ids[:20])
    np.testing.assert_allclose(reader.copy().read(ids[20:30])[0], SuffixReader(unigram, weights).read(ids[:30])[0])


def test_a_pipeline_writes_text(model: CCMCForCausalLM) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(V)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w0")
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    text = write("w1 w2 w1 w2 w1", max_new_tokens=5, do_sample=False)[0]["generated_text"]
    assert text.startswith("w1 w2 w1 w2 w1")
    assert text.count("w") == 10
