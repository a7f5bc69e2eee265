"""Captured attention against eager transformers, for every architecture, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import families
import numpy as np
import pytest
import small_models
import torch
from dense_heads import rows_without_sink
from float32 import FLOAT64, in_float64

from harness.attention import capture, eager
from harness.attention.capture import LayerCall
from harness.attention.eager import check_capture, eager_rows
from harness.attention.static_inputs import StaticInputs, embedding_inputs, first_layer_inputs, has_learned_positions
from harness.core.errors import UsageError
from harness.models import loading, tokenizers

LEARNED = {"gpt2", "gpt2-scaled", "opt", "gpt_neo"}


@pytest.fixture(autouse=True)
def in_doubles() -> Iterator[None]:
    """These tests are about algorithms: models and everything they are compared with are in float64."""
    with in_float64():
        yield


def captured(model: Any, ids: Any, layers: list[int]) -> dict[int, torch.Tensor]:
    found: dict[int, torch.Tensor] = {}

    def keep(call: LayerCall) -> None:
        found[call.layer] = capture.attention_rows(call)

    capture.listen(model, ids, layers, keep)
    return found


@pytest.fixture(scope="session")
def built() -> dict[str, Any]:
    return {}


def family(name: str, built: dict[str, Any]) -> Any:
    if name not in built:
        built[name] = families.build(families.FAMILIES[name]).double()
    return built[name]


@pytest.mark.parametrize("name", families.FAMILIES)
def test_captured_rows_are_those_of_eager_attention(name: str, built: dict[str, Any]) -> None:
    model, ids = family(name, built), small_models.random_ids(50)
    truth = eager_rows(model, ids)
    found = captured(model, ids, list(range(len(truth))))
    assert list(found) == list(range(len(truth)))
    for layer, rows in found.items():
        assert float((rows - truth[layer].double()).abs().max()) <= FLOAT64
    check_capture(model, name)


@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_batch_with_left_padding_gives_the_rows_of_each_text(name: str, built: dict[str, Any]) -> None:
    model, texts = family(name, built), [small_models.random_ids(length, length) for length in (31, 9, 24)]
    found: dict[tuple[int, int], torch.Tensor] = {}

    def keep(call: LayerCall, text: int) -> None:
        found[text, call.layer] = capture.attention_rows(call)

    capture.listen_batch(model, texts, [0, 2], keep)
    for index, ids in enumerate(texts):
        truth = eager_rows(model, ids)
        for layer in (0, 2):
            assert float((found[index, layer] - truth[layer].double()).abs().max()) <= FLOAT64


@pytest.mark.weights
def test_captured_rows_of_real_weights_are_those_of_eager_attention(smollm2: Any) -> None:
    model = loading.load_model(smollm2.path, "cpu").double()
    ids = small_models.read(
        tokenizers.load_tokenizer(smollm2.path), "The harbour was quiet, and the harbour master slept. " * 4
    )
    truth = eager_rows(model, ids)
    for layer, rows in captured(model, ids, [0, 13, 29]).items():
        assert float((rows - truth[layer].double()).abs().max()) <= FLOAT64


@pytest.mark.parametrize("name", ["llama", "gpt_neo", "gptj", "falcon", "gemma2"])
def test_listening_leaves_the_model_as_it_was(name: str, built: dict[str, Any]) -> None:
    model, ids = family(name, built), torch.as_tensor(small_models.random_ids(20))[None]
    before, kernel = model(ids).logits, model.config._attn_implementation
    captured(model, ids[0].numpy(), [0])
    eager_rows(model, ids[0].numpy())
    assert model.config._attn_implementation == kernel
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("name", families.REFUSED)
def test_other_architectures_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"model 'mine': the attention of {name} is not supported"):
        check_capture(families.build(families.REFUSED[name]), "mine")


def test_rows_that_are_not_the_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "key_heads", lambda heads, groups: torch.arange(heads) % groups)
    with pytest.raises(UsageError, match="layer 0, head 1, position 1: rows of attention differ"):
        check_capture(small_models.llama(2).double(), "mine")


def test_a_layer_that_answers_otherwise_when_it_is_called_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = eager.ask
    monkeypatch.setattr(eager, "ask", lambda model, call, hidden, at: original(model, call, hidden, 0 * at))
    with pytest.raises(UsageError, match="llama is not supported: layer 1 gives other values of query when it is"):
        check_capture(small_models.llama(2).double(), "mine")


@pytest.mark.parametrize("name", families.FAMILIES)
def test_calling_a_layer_again_gives_what_it_gave(name: str, built: dict[str, Any]) -> None:
    model, ids = family(name, built), small_models.random_ids(30)
    calls: list[LayerCall] = []
    capture.listen(model, ids, [0, 1, 2], calls.append)
    for call in calls:
        assert call.hidden is not None
        again = capture.ask(model, call, call.hidden[:20], range(20))
        torch.testing.assert_close(again.query, call.query[:, :20], rtol=0, atol=FLOAT64)
        torch.testing.assert_close(again.key, call.key[:, :20], rtol=0, atol=FLOAT64)
        assert (again.scaling, again.softcap, again.window) == (call.scaling, call.softcap, call.window)


def test_at_position_0_nothing_is_rotated(built: dict[str, Any]) -> None:
    for name in ("llama", "gptj", "gpt_neox", "falcon"):
        model, ids = family(name, built), small_models.random_ids(30)
        calls: list[LayerCall] = []
        capture.listen(model, ids, [1], calls.append)
        hidden = calls[0].hidden
        assert hidden is not None
        again = capture.ask(model, calls[0], hidden[:1].expand(5, -1), [0] * 5)
        torch.testing.assert_close(again.query, again.query[:, :1].expand_as(again.query), rtol=0, atol=FLOAT64)
        torch.testing.assert_close(again.query[:, 0], calls[0].query[:, 0], rtol=0, atol=FLOAT64)
        moved = capture.ask(model, calls[0], hidden[:1].expand(5, -1), [0, 1, 2, 3, 4])
        assert float((moved.query[:, 4] - moved.query[:, 0]).abs().max()) > 1e-2


@pytest.mark.parametrize("name", families.FAMILIES)
def test_first_layer_inputs(name: str, built: dict[str, Any]) -> None:
    model, ids = family(name, built), small_models.random_ids(12)
    calls: list[LayerCall] = []
    capture.listen(model, ids, [0], calls.append)
    torch.testing.assert_close(
        first_layer_inputs(model, torch.as_tensor(ids)[None])[0], calls[0].hidden, rtol=0, atol=FLOAT64
    )
    assert has_learned_positions(model, small_models.VOCAB_SIZE, 16) == (name in LEARNED)
    places = np.array([1, 5, 9])
    found = embedding_inputs(model, ids[:4], places, block=6)
    for row, token in enumerate(ids[:4]):
        at = [first_layer_inputs(model, torch.full((1, 10), int(token)))[0, p].double().numpy() for p in places]
        np.testing.assert_allclose(found[row], np.mean(at, axis=0), rtol=0, atol=FLOAT64)


def plain_call(query: torch.Tensor, key: torch.Tensor, **changes: Any) -> LayerCall:
    return LayerCall(5, torch.nn.Identity(), query, key, 0.5, None, changes.get("window"))


def test_the_sink_is_taken_out_and_the_rest_renormalised() -> None:
    generator = torch.Generator().manual_seed(0)
    call = plain_call(torch.randn(4, 7, 3, generator=generator), torch.randn(2, 7, 3, generator=generator), window=5)
    rows, (kept, sink) = capture.attention_rows(call).numpy(), rows_without_sink(call)
    np.testing.assert_allclose(kept, rows[:, 1:, 1:] / rows[:, 1:, 1:].sum(-1, keepdims=True))
    np.testing.assert_allclose(sink, rows[:, 1:, 0])
    assert np.all(sink[:, 4:] == 0)  # out of the window
    assert np.all(rows[:, 6, :2] == 0)
    assert np.all(rows[:, 6, 2:] > 0)


def test_a_sink_that_takes_everything_leaves_the_rest_defined() -> None:
    query, key = torch.ones(1, 3, 1), torch.tensor([[[5000.0], [1.0], [2.0]]])
    kept, sink = rows_without_sink(plain_call(query, key))
    assert sink.tolist() == [[1.0, 1.0]]
    np.testing.assert_allclose(kept[0, 1], np.exp([0.5, 1.0]) / np.exp([0.5, 1.0]).sum())


def test_a_row_that_is_not_finite_is_named() -> None:
    query = torch.ones(2, 3, 4)
    query[1, 2, 0] = float("nan")
    call = plain_call(query, torch.ones(1, 3, 4))
    with pytest.raises(ValueError, match="layer 5, head 1, position 2"):
        capture.attention_rows(call)


def call_with(hidden: Any) -> LayerCall:
    return LayerCall(3, torch.nn.Identity(), torch.empty(0), torch.empty(0), 1.0, None, None, torch.as_tensor(hidden))


def test_static_inputs_are_means_and_unseen_tokens_follow_the_embedding() -> None:
    rng = np.random.default_rng(0)
    embedding, linear = rng.normal(size=(40, 6)), rng.normal(size=(6, 6))
    hidden = embedding @ linear + 1.0
    tokens = np.concatenate([[39], np.arange(38), np.arange(38)])  # 39 stands first only, 38 nowhere
    static = StaticInputs(40, [3], 6, len(tokens))
    static.add(call_with(hidden[tokens]), tokens)
    static.count_text(tokens)
    found = static.inputs(3, embedding)
    np.testing.assert_allclose(found[:38], hidden[:38], rtol=0, atol=FLOAT64)
    unseen, mean = found[38:], hidden[:38].mean(axis=0)
    assert np.abs(unseen - hidden[38:]).mean() < 0.5 * np.abs(mean - hidden[38:]).mean()
    assert np.array_equal(static.inputs(0, embedding), embedding)
    np.testing.assert_allclose(static.position_effect(3, found), 0.0, atol=FLOAT64)


def test_position_effects_are_mean_deviations_shrunk_by_one_text() -> None:
    rng = np.random.default_rng(1)
    of_token, of_place = rng.normal(size=(5, 3)), rng.normal(size=(9, 3))
    static = StaticInputs(5, [3], 3, 9)
    for length in (9, 9, 6):
        tokens = rng.integers(0, 5, length)
        static.add(call_with(of_token[tokens] + of_place[:length]), tokens)
        static.count_text(tokens)
    found = static.position_effect(3, of_token)
    np.testing.assert_allclose(found[1:6], of_place[1:6] * 3 / 4)
    np.testing.assert_allclose(found[6:], of_place[6:] * 2 / 3)
    assert np.all(found[0] == 0)
