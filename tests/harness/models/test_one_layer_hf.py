"""The one-layer model as a model of transformers: the paper's model by default, and a ladder away from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import torch
import yaml
from float32 import FLOAT64, FUNCTION, assert_close32, in_float64, kl_tolerance
from transformers import AutoModelForCausalLM

import harness
from ccmc import chain_from_attention
from harness.attention import capture, eager
from harness.attention.count_ablation import check_reach
from harness.core.errors import UsageError
from harness.experiments._shared.sampling import count_tokens
from harness.models import tokenizers
from harness.models.one_layer import OneLayerAttention
from harness.models.one_layer_config import OneLayerConfig, rotate
from harness.models.one_layer_hf import OneLayerForCausalLM, from_weights

K = 6
LADDER: list[dict[str, Any]] = [
    {},
    {"positions": "additive"},
    {"positions": "learned"},
    {"positions": "rotary"},
    {"classifier": "free"},
    {"classifier": "free", "values": True},
    {"classifier": "free", "values": True, "norm": True},
    {"classifier": "free", "values": True, "norm": True, "residual": True, "mlp": 16},
    {
        "classifier": "free",
        "values": True,
        "norm": True,
        "residual": True,
        "heads": 4,
        "layers": 2,
        "positions": "rotary",
    },
]


def weights(d: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.normal(0, d**-0.5, (K, d))), torch.as_tensor(rng.normal(size=(d, d)))


def tokens(n: int = 30, length: int = 8) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(1).integers(0, K, (n, length)))


def ladder_model(settings: dict[str, Any]) -> OneLayerForCausalLM:
    torch.manual_seed(0)
    return OneLayerForCausalLM(OneLayerConfig(vocab_size=K, dimension=12, init_scale=3.0, **settings)).double().eval()


@pytest.mark.parametrize("d", [4, 6, 9])
def test_the_default_is_the_one_layer_model(d: int) -> None:
    E, W = weights(d)
    plain = OneLayerAttention(E)
    plain.W.data = W
    expected, _ = plain.tied_output(tokens())
    found = torch.softmax(from_weights(E, W)(tokens(), logits_to_keep=1).logits[:, 0], -1)
    np.testing.assert_allclose(found.detach(), expected, atol=1e-11)


def test_every_position_is_a_chain_off_the_weights() -> None:
    E, W = weights()
    chain = chain_from_attention(E.numpy(), W.numpy())
    of = tokens()
    found = torch.softmax(from_weights(E, W)(of).logits, -1).detach().numpy()
    for length in range(1, of.shape[1] + 1):
        part = of[:, :length].numpy()
        expected = chain.next_token(count_tokens(part, K), part[:, -1])
        np.testing.assert_allclose(found[:, length - 1], expected, atol=1e-12)


@pytest.mark.parametrize("settings", LADDER)
def test_models_are_causal_and_come_back_from_disk(settings: dict[str, Any], tmp_path: Path) -> None:
    made, of = ladder_model(settings), tokens()
    logits = made(of).logits
    changed = of.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % K
    assert torch.equal(made(changed).logits[:, :5], logits[:, :5])
    assert not torch.equal(made(changed).logits[:, 5:], logits[:, 5:])
    torch.testing.assert_close(made(of, logits_to_keep=1).logits[:, 0], logits[:, -1])
    made.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again, OneLayerForCausalLM)
    assert torch.equal(again(of).logits, logits)


@pytest.mark.parametrize("settings", LADDER)
def test_the_loss_reaches_every_parameter(settings: dict[str, Any]) -> None:
    made = ladder_model({**settings, "train_embeddings": True})
    of = tokens()
    made(of, labels=of).loss.backward()  # the last token of a context is in it
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in made.parameters())
    assert made.layers[0].W.grad.abs().max() > 0


@pytest.mark.parametrize("settings", LADDER)
def test_padding_on_the_left_changes_nothing(settings: dict[str, Any]) -> None:
    made, of = ladder_model(settings), tokens(10)
    padded = torch.cat([torch.full((10, 3), 5), of], dim=1)
    mask = torch.cat([torch.zeros(10, 3), torch.ones(10, 8)], dim=1)
    torch.testing.assert_close(made(padded, attention_mask=mask).logits[:, 3:], made(of).logits)


def test_a_saved_model_enters_the_harness_like_any_other(tmp_path: Path) -> None:
    import small_models

    tokenizer = small_models.tokenizer()
    rng = np.random.default_rng(0)
    size = max(tokenizer.get_vocab().values()) + 1
    E, W = torch.as_tensor(rng.normal(0, 0.1, (size, 90))), torch.as_tensor(rng.normal(size=(90, 90)))
    from_weights(E, W, torch.float32).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    texts = small_models.random_texts(8, 12)
    prompts = [
        {"id": f"p{i}", "kind": "a", "text": " ".join(text.split()[: 8 + i % 3])} for i, text in enumerate(texts)
    ]
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    config = {
        "name": "own",
        "models": [str(tmp_path / "model")],
        "prompts": str(tmp_path / "prompts.yaml"),
        "generation": {"max_new_tokens": 16, "strategies": [{"temperature": 1.0}]},
        "experiments": [{"kind": "generation", "surrogates": ["counts"], "rollout_seeds": 1}],
    }
    run = harness.run(config, out=tmp_path / "run")
    mass = run.rows[run.rows["metric"] == "in_context_mass"]["value"]
    assert len(mass) > 0
    # a tied model never leaves its context: a sum over the vocabulary of exponentials, over another such sum
    assert_close32(mass.astype(float), 1.0, operations=2 * (size + FUNCTION))
    for _, row in run.trajectories[run.trajectories["source"] == "model"].iterrows():
        assert set(row["continuation"]) <= set(row["prompt_tokens"])


def test_generate_stays_in_the_prompt_and_follows_the_chain() -> None:
    E, W = weights()
    made = from_weights(E, W)
    prompt = torch.tensor([[0, 1, 1, 2]]).repeat(4000, 1)
    torch.manual_seed(0)
    drawn = made.generate(prompt, max_new_tokens=1, do_sample=True)[:, -1].numpy()
    chain = chain_from_attention(E.numpy(), W.numpy())
    expected = 4000 * chain.next_token(count_tokens(prompt[:1].numpy(), K), np.array([2]))[0]
    inside = expected > 0
    assert set(drawn) <= {0, 1, 2}
    found = np.bincount(drawn, minlength=K)
    assert float(np.sum((found - expected)[inside] ** 2 / expected[inside])) < 13.8  # chi-square, 2 df, 1e-3
    greedy = made.generate(tokens(3), max_new_tokens=12, do_sample=False)
    assert greedy.shape == (3, 20)
    assert all(set(row[8:].tolist()) <= set(row[:8].tolist()) for row in greedy)


def test_rotary_scores_know_only_distances() -> None:
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(2, 7)))
    near = rotate(x[:1], torch.tensor([3])) @ rotate(x[1:], torch.tensor([5])).T
    far = rotate(x[:1], torch.tensor([103])) @ rotate(x[1:], torch.tensor([105])).T
    torch.testing.assert_close(near, far)
    assert abs(float(near - rotate(x[:1], torch.tensor([4])) @ rotate(x[1:], torch.tensor([5])).T)) > 1e-3


def test_positions_change_what_a_tied_model_says() -> None:
    of = tokens()
    turned = torch.cat([of[:, :-1].flip(1), of[:, -1:]], dim=1)  # the same counts and query
    plain = ladder_model({})
    torch.testing.assert_close(plain(of, logits_to_keep=1).logits, plain(turned, logits_to_keep=1).logits)
    for positions in ("learned", "rotary"):
        made = ladder_model({"positions": positions})
        gap = torch.exp(made(of, logits_to_keep=1).logits) - torch.exp(made(turned, logits_to_keep=1).logits)
        assert float(gap.detach().abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classifier": "other"}, "not known"),
        ({"positions": "other"}, "not known"),
        ({"residual": True}, "use classifier='free'"),
        ({"classifier": "free", "heads": 2}, "value matrices"),
    ],
)
def test_settings_that_make_no_model_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneLayerConfig(**settings)


def test_wrong_padding_and_long_input_are_refused() -> None:
    E, W = weights()
    right = torch.ones(30, 8)
    right[:, -1] = 0
    with pytest.raises(ValueError, match="padding on the left only"):
        from_weights(E, W)(tokens(), attention_mask=right)
    short = OneLayerForCausalLM(OneLayerConfig(vocab_size=K, positions="learned", max_positions=4))
    with pytest.raises(ValueError, match="max_positions 4"):
        short(tokens())


@pytest.mark.parametrize("settings", [entry for entry in LADDER if entry.get("layers", 1) == 1])
def test_the_last_position_alone_is_that_of_all_positions(settings: dict[str, Any]) -> None:
    """Looked up in a table of scores for many prompts, multiplied out for few; with the gradients of training."""
    found = []
    for keep, rows in ((1, slice(None)), (0, slice(None)), (1, slice(0, 3))):
        model = ladder_model(settings).double()
        model.zero_grad()
        asked = tokens()[rows]
        log_attention = model.log_attention(asked, keep)[:, :, -1]
        log_attention[:3].square().sum().backward()
        layer: Any = model.layers[0]
        found.append((log_attention[:3], layer.W.grad))
    for value, gradient in found[1:]:
        torch.testing.assert_close(value, found[0][0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings", [s for s in LADDER if s.get("positions") != "additive"])
@in_float64()
def test_attention_heard_by_the_harness_is_what_the_model_gives(settings: dict[str, Any]) -> None:
    made, of = ladder_model(settings), tokens(1, 20)
    eager.check_capture(made, "own")
    attentions = made(of, output_attentions=True).attentions
    assert len(attentions) == made.config.layers
    heard: list[capture.LayerCall] = []
    capture.listen(made, of[0].numpy(), range(made.config.layers), heard.append)
    for call, attention in zip(heard, attentions, strict=True):
        assert attention.shape == (1, made.config.heads, 20, 20)
        np.testing.assert_allclose(capture.attention_rows(call), attention[0].detach(), rtol=0, atol=FLOAT64)


def test_additive_positions_are_refused_by_name() -> None:
    made = ladder_model({"positions": "additive"})
    with pytest.raises(UsageError, match=r"'own'.*additive positions"):
        eager.check_capture(made, "own")
    with pytest.raises(UsageError, match="ccmc-one-layer"):
        check_reach(made)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_positions_may_be_given(positions: str) -> None:
    made, of = ladder_model({"positions": positions}), tokens(4)
    places = torch.arange(8)[None]
    torch.testing.assert_close(made(of, position_ids=places).logits, made(of).logits)
    padded = torch.cat([torch.full((4, 3), 5), of], dim=1)
    mask = torch.cat([torch.zeros(4, 3), torch.ones(4, 8)], dim=1)
    mask[0], padded[0, :3] = 1, of[0, :3]  # one row has no padding
    given = (mask.long().cumsum(1) - 1).clamp(min=0)
    found = made(padded, attention_mask=mask, position_ids=given).logits
    torch.testing.assert_close(found[1:, 3:], made(of).logits[1:])
    torch.testing.assert_close(found[0], made(padded[:1]).logits[0])


def test_a_model_without_tokenizer_takes_ids(tmp_path: Path) -> None:
    ladder_model({}).save_pretrained(tmp_path)
    tokenizer = tokenizers.load_tokenizer(tmp_path)
    assert small_models.read(tokenizer, "5 0 3") == [5, 0, 3]
    assert tokenizer.decode([5, 0, 3]) == "5 0 3"
    for text, word in (("5 6", "'6'"), ("1 The", "'The'")):
        with pytest.raises(UsageError, match=f"{word} is no token.* from 0 to 5 "):
            small_models.read(tokenizer, text)


def test_heads_and_generation_of_a_saved_model(tmp_path: Path) -> None:
    made = OneLayerForCausalLM(OneLayerConfig(vocab_size=K, dimension=9, init_scale=9.0))
    made.save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    prompts = [{"id": f"p{i}", "kind": "ids", "text": " ".join(map(str, rng.integers(0, K, 9)))} for i in range(8)]
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    config = {
        "name": "own",
        "models": [str(tmp_path / "model")],
        "prompts": str(tmp_path / "prompts.yaml"),
        "generation": {"max_new_tokens": 24, "strategies": [{"temperature": 1.0}]},
        "experiments": [
            {"kind": "heads", "surrogates": ["counts", "ccmc-weights"]},
            {"kind": "generation", "surrogates": ["counts", "ccmc-mixture"], "escape": True, "rollout_seeds": 1},
        ],
    }
    rows = harness.run(config, out=tmp_path / "run").rows
    of_weights = rows[(rows["surrogate"] == "ccmc-weights") & (rows["metric"] == "kl")]["value"].astype(float)
    of_counts = rows[(rows["surrogate"] == "counts") & (rows["experiment"] == "heads") & (rows["metric"] == "kl")]
    assert of_weights.max() < kl_tolerance(9 + 24) < 0.01 * of_counts["value"].astype(float).mean()
    leaves = rows[(rows["metric"] == "kl_with_escape") & (rows["surrogate"] == "counts")]["value"].astype(float)
    assert len(leaves) > 0 and bool((leaves >= 0).all())  # though the model never leaves its context


@in_float64()
def test_a_rotary_layer_is_asked_at_the_positions_that_are_named() -> None:
    """The model calls it without positions and lets it count; surrogates name them, 0 for no rotation."""
    made, heard = ladder_model({"positions": "rotary"}), list[capture.LayerCall]()
    capture.listen(made, tokens(1, 20)[0].numpy(), [0], heard.append)
    hidden = heard[0].hidden
    assert hidden is not None
    back = capture.ask(made, heard[0], hidden.flip(0), range(19, -1, -1))
    torch.testing.assert_close(back.key.flip(1), heard[0].key)
    torch.testing.assert_close(back.query.flip(1), heard[0].query)
    plain = capture.ask(made, heard[0], hidden, [0] * 20)
    torch.testing.assert_close(plain.query, hidden[None])
