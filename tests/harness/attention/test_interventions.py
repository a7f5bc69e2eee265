"""Interventions inside a running model: oracles whose truth is the model as it is, attention or loops written out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import families
import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64
from loop_models import SCALES, step_by_step

from harness.attention import capture
from harness.attention.capture import attention_modules
from harness.attention.count_ablation import without_counts
from harness.attention.intervention_tables import mean_outputs_by_token, mlp_scales
from harness.attention.interventions import (
    Counts,
    Intervention,
    MeanOutputs,
    MLPNoise,
    OutputTable,
    Penalty,
    Recency,
    intervene,
    mlp_modules,
)
from harness.attention.loop_running import Running
from harness.attention.replacing import attached
from harness.core.errors import UsageError
from harness.models.language_model import generate

pytestmark = pytest.mark.usefixtures("in_doubles")

NAMES = list(families.FAMILIES)
TOKENIZER = small_models.tokenizer()
KINDS = ("counts", "counts of some heads", "recency", "heads", "mlp-noise", "repetition", "frequency")


def repeating(length: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(2, 9, length)


def logits(model: Any, ids: Any, **more: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.as_tensor(np.atleast_2d(ids)), use_cache=False, **more).logits
    return found


def made(kind: str, model: Any) -> Intervention:
    every = dict.fromkeys(attention_modules(model))
    texts = [repeating(30, seed) for seed in (7, 8)]
    if kind == "heads":
        return MeanOutputs(mean_outputs_by_token(model, texts, {0: [1, 4], 1: [0]}))
    if kind == "mlp-noise":
        return MLPNoise(mlp_scales(model, texts), seed=3)
    if kind in {"repetition", "frequency"}:
        return Penalty(kind)  # type: ignore[arg-type]
    some = {0: [1, 4], 1: None}
    return {"counts": Counts(every), "counts of some heads": Counts(some), "recency": Recency(every)}[kind]


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=FLOAT64 * max(float(expected.abs().max()), 1.0))


@pytest.mark.parametrize("name", NAMES)
def test_steps_and_padding_change_nothing_and_strength_0_is_the_model(name: str) -> None:
    model = families.build(families.FAMILIES[name], SCALES.get(name, 0.5)).double()
    texts = [repeating(n, n) for n in (31, 12, 24)]
    plain = logits(model, texts[0])
    width = max(map(len, texts))
    tokens, mask = torch.zeros(2, len(texts), width, dtype=torch.long)
    for row, ids in enumerate(texts):
        tokens[row, width - len(ids) :] = torch.as_tensor(ids)
        mask[row, width - len(ids) :] = 1
    padding = {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    for kind in KINDS:
        change = made(kind, model)
        with intervene(model, change, 0.0):
            assert torch.equal(logits(model, texts[0]), plain), kind
        with intervene(model, change, 0.7):
            alone = [logits(model, ids)[0] for ids in texts]
            assert (alone[0] - plain[0]).abs().max() > 1e-4 * plain.abs().max(), kind
            assert_same(step_by_step(model, texts[0], 18), alone[0])
            for row, expected in zip(logits(model, tokens, **padding), alone, strict=True):
                assert_same(row[-len(expected) :], expected)
    assert torch.equal(logits(model, texts[0]), plain)  # nothing is left behind


@pytest.fixture(scope="module")
def llama() -> Any:
    return small_models.llama(2, scale=0.4).double()


@pytest.mark.parametrize("heads", [{0: None, 1: None}, {1: [0, 5]}])
def test_counts_are_those_of_the_count_ablation(llama: Any, heads: Any) -> None:
    ids = repeating(40, 2)
    with without_counts(llama, 0.6, heads):
        expected = logits(llama, ids)
    with intervene(llama, Counts(heads), 0.6):
        assert_same(logits(llama, ids), expected)


@contextmanager
def outputs_of(model: Any) -> Iterator[dict[int, torch.Tensor]]:
    found: dict[int, torch.Tensor] = {}
    running = Running(model, [], np.zeros(1, dtype=np.int64))
    running.on_output = lambda layer, output: found.__setitem__(layer, output.clone())
    with attached(model, running):
        yield found


@pytest.mark.parametrize(("name", "window"), [("llama", None), ("mistral", 16), ("gemma2", 16)])
def test_scores_by_hand(name: str, window: int | None) -> None:
    """First-layer rows: the captured ones times 1 / m^s, or ((1 + d) / n)^s, renormalised; windows count within."""
    model = families.build(families.FAMILIES[name], SCALES.get(name, 0.5)).double()
    ids, s = repeating(26, 5), 0.7
    calls: list[Any] = []
    capture.listen(model, ids, [0], calls.append)
    rows = capture.attention_rows(calls[0]).numpy()  # [H, T, T]
    weight = {"counts": np.ones((26, 26)), "recency": np.ones((26, 26))}
    for t in range(26):
        low = 0 if window is None else max(0, t - window + 1)
        for k in range(max(low, 1), t + 1):
            m = sum(ids[p] == ids[k] for p in range(max(low, 1), t + 1))
            weight["counts"][t, k] = m**-s
            weight["recency"][t, k] = ((1 + t - k) / (t + 1 - low)) ** s
    layer: Any = attention_modules(model)[0]
    given: dict[str, Any] = {}
    hooks = [
        layer.v_proj.register_forward_hook(lambda m, x, out: given.__setitem__("values", out[0, :, :8].numpy())),
        layer.o_proj.register_forward_pre_hook(lambda m, x: given.__setitem__("own", x[0][0, :, :8].numpy())),
    ]
    logits(model, ids)
    np.testing.assert_allclose(given["own"], rows[0] @ given["values"], rtol=0, atol=FLOAT64)  # of the first head
    for change in (Counts({0: None}), Recency({0: None})):
        expected = rows[0] * weight[type(change).__name__.lower()]
        expected = expected / expected.sum(1, keepdims=True) @ given["values"]
        plain = given["own"]
        with intervene(model, change, s):
            logits(model, ids)
        np.testing.assert_allclose(given["own"], expected, rtol=0, atol=FLOAT64)
        assert np.abs(expected - plain).max() > 1e-3
    for hook in hooks:
        hook.remove()


def test_full_strength_puts_the_table_in_the_place_of_outputs(llama: Any) -> None:
    texts = [repeating(30, seed) for seed in (1, 2)]
    heads = {0: [1, 4], 1: [3]}
    tables = mean_outputs_by_token(llama, texts, heads)
    with outputs_of(llama) as found:
        seen: dict[tuple[int, int], list[Any]] = {}
        for text in texts:
            logits(llama, text)
            for layer, chosen in heads.items():
                for t in range(1, 30):
                    own = found[layer][0, chosen, t].numpy()
                    seen.setdefault((layer, int(text[t])), []).append(own)
                    seen.setdefault((layer, -1), []).append(own)
    new = np.concatenate([repeating(20, 3), [30, 31]])  # two tokens that no text holds
    with outputs_of(llama) as found:
        logits(llama, new)
        real = {layer: output.clone() for layer, output in found.items()}
    mixed: dict[int, torch.Tensor] = {}
    change = MeanOutputs(tables)
    for layer, module in attention_modules(llama).items():
        module.o_proj.register_forward_pre_hook(lambda m, given, layer=layer: mixed.__setitem__(layer, given[0][0]))  # type: ignore[operator, union-attr]
    try:
        with intervene(llama, change, 1.0):
            logits(llama, new)
        full = {layer: part.view(len(new), 6, 8).clone() for layer, part in mixed.items()}
        with intervene(llama, change, 0.25):
            logits(llama, new)
        quarter = mixed[0].view(len(new), 6, 8)
    finally:
        for module in attention_modules(llama).values():
            module.o_proj._forward_pre_hooks.clear()  # type: ignore[union-attr]
    for layer, chosen in heads.items():
        for t, token in enumerate(new.tolist()):
            expected = np.mean(seen.get((layer, token), seen[layer, -1]), axis=0)
            own = full[layer][t, chosen].numpy()
            if t:
                np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)  # tables are stored in float32
                assert_same(
                    quarter[t, [1]], 0.75 * real[0][0, [1], t] + 0.25 * full[0][t, [1]]
                )  # of layer 0, whose inputs are the same
    assert_same(full[0][0], real[0][0, :, 0])
    others = [head for head in range(6) if head not in heads[0]]
    assert_same(full[0][:, others], real[0][0, others].transpose(0, 1))


def test_noise_has_the_size_of_its_strength(llama: Any) -> None:
    texts = [repeating(60, seed) for seed in range(4)]
    scale, found = mlp_scales(llama, texts), {0: [], 1: []}  # type: ignore[var-annotated]
    for layer, module in mlp_modules(llama).items():
        module.register_forward_hook(lambda m, given, out, layer=layer: found[layer].append(out[0].clone()))
    try:
        for text in texts:
            logits(llama, text)
        plain = torch.cat([part[1:] for part in found[0]])
        assert scale[0] == pytest.approx(float(plain.square().mean().sqrt()))
    finally:
        for module in mlp_modules(llama).values():
            module._forward_hooks.clear()
    drawn = []
    for seed in (0, 1):
        change = MLPNoise(scale, seed)
        outs: list[torch.Tensor] = []
        with intervene(llama, change, 0.5):
            hook = mlp_modules(llama)[0].register_forward_hook(lambda m, given, out: outs.append(out[0].clone()))  # noqa: B023
            logits(llama, texts[0])
            hook.remove()
        noise = (outs[0] - found[0][0]) / (0.5 * scale[0])
        assert noise[0].abs().max() == 0
        drawn.append(noise[1:])
    for noise in drawn:  # 59 x 48 standard normal numbers: four standard errors
        assert abs(float(noise.mean())) < 4 / np.sqrt(noise.numel())
        assert abs(float(noise.square().mean()) - 1) < 4 * np.sqrt(2 / noise.numel())
    assert (drawn[0] - drawn[1]).abs().max() > 0.5


@pytest.mark.parametrize("kind", ["frequency", "repetition"])
def test_penalties_against_a_written_loop(llama: Any, kind: Any) -> None:
    ids, s = repeating(20, 4), 0.4
    expected = logits(llama, ids)[0].clone()
    for t in range(20):
        for token in set(ids[: t + 1].tolist()):
            old = float(expected[t, token])
            count = ids[: t + 1].tolist().count(token)
            held = old * (1 + s) if old < 0 else old / (1 + s)
            expected[t, token] = old - s * count if kind == "frequency" else held
    with intervene(llama, Penalty(kind), s):
        assert_same(logits(llama, ids)[0], expected)


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_the_repetition_penalty_is_that_of_transformers(llama: Any, temperature: float | None) -> None:
    prompts = [repeating(n, n).tolist() for n in (4, 9, 6)]
    how: dict[str, Any] = {"temperature": temperature, "max_new_tokens": 12, "seed": 0, "ignore_eos": True}
    expected = generate(llama, TOKENIZER, prompts, **how, options={"repetition_penalty": 1.5})
    with intervene(llama, Penalty("repetition"), 0.5):
        found = generate(llama, TOKENIZER, prompts, **how)
    plain = generate(llama, TOKENIZER, prompts, **how)
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]
    assert [one.tolist() for one in found] != [one.tolist() for one in plain]


@pytest.mark.parametrize("kind", KINDS)
def test_generation_with_a_cache_is_generation_by_whole_passes(llama: Any, kind: str) -> None:
    prompts = [repeating(n, n).tolist() for n in (4, 9, 6)]
    with intervene(llama, made(kind, llama), 0.8):
        found = generate(llama, TOKENIZER, prompts, temperature=None, max_new_tokens=10, seed=0, ignore_eos=True)
        for prompt, continuation in zip(prompts, found, strict=True):
            ids = list(prompt)
            for _ in range(10):
                ids.append(int(logits(llama, ids)[0, -1].argmax()))
            assert continuation.tolist() == ids[len(prompt) :]


def test_what_cannot_be_is_refused(llama: Any) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"), intervene(llama, Counts({0: None}), 1.5):
        pass
    with (
        pytest.raises(UsageError, match="bloom"),
        intervene(families.build(families.REFUSED["bloom"]), Counts({}), 0.5),
    ):
        pass
    with (
        intervene(llama, Counts({0: None}), 0.5),
        pytest.raises(UsageError, match="already"),
        intervene(llama, Recency({0: None}), 0.5),
    ):
        pass
    table = OutputTable([0], np.array([2]), np.zeros((1, 2, 8)))
    with intervene(llama, MeanOutputs({0: table}), 1.0):
        pass
