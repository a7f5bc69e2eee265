"""Terms and static heads in files, terms of others for the first position, and profiles by query token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import torch
from float32 import FLOAT64, in_float64
from loop_models import LONGEST, Trained, train

from harness.attention.capture import LayerCall, listen
from harness.attention.loop_store import (
    read_arrays,
    static_arrays,
    static_of,
    term_arrays,
    terms_of,
    wants_sides,
    write_arrays,
)
from harness.attention.loop_terms import EXACT, FLAT, LoopTerms, QueryProfile, TokenRows
from harness.attention.replacing import Replacement, replace

FITS = (
    "counts", "distance", "shuffled-weights", "ccmc-weights", "pccmc-weights", "ccmc-fit", "pccmc-scaled", "pccmc-fit"
)  # fmt: skip
IDS = np.concatenate([small_models.random_ids(24, 3), [2, 3, 2]])  # the last are outside the vocabulary


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train("llama", [0, 1], FITS)


def run(model: Any, replaced: list[Replacement], vocabulary: Any, ids: Any = IDS, **more: Any) -> tuple[Any, Any]:
    """Logits, and the last rows that were put in."""
    seen: list[torch.Tensor] = []
    with replace(model, replaced, vocabulary, **more) as running, torch.inference_mode():
        running.on_rows = lambda layer, heads, rows: seen.append(rows)
        found = model(torch.as_tensor(ids)[None], use_cache=False).logits[0]
    return found, seen[-1][0] if seen else None


def templates(model: Any) -> dict[int, LayerCall]:
    found: dict[int, LayerCall] = {}
    listen(model, np.zeros(LONGEST, dtype=np.int64), [0, 1], lambda c: found.__setitem__(c.layer, c.bare()))
    return found


@pytest.mark.parametrize("name", FITS)
@in_float64()
def test_what_was_stored_gives_the_same_logits(trained: Trained, name: str, tmp_path: Path) -> None:
    terms = trained.fitted(name, 1).loop_terms()
    write_arrays(tmp_path / "terms.npz", term_arrays(terms, LONGEST))
    kept = read_arrays(tmp_path / "terms.npz")
    static = None
    if terms.static is not None:
        write_arrays(tmp_path / "static.npz", static_arrays(terms.static))
        arrays, call = read_arrays(tmp_path / "static.npz"), templates(trained.model)[1]
        static = static_of(trained.model, call, trained.vocabulary.ids, arrays, wants_sides(kept))
        placed = name.startswith("pccmc") and terms.form is None  # those are read at their positions alone
        assert (static.at_start.key.shape[-1] > 0) is not placed
    again, levels = terms_of(kept, static), {1: np.zeros(6)}
    first, _ = run(trained.model, [Replacement(1, terms)], trained.vocabulary.ids, levels=levels)
    second, _ = run(trained.model, [Replacement(1, again)], trained.vocabulary.ids, levels=levels)
    # effects of pairs are stored in float32
    tolerance = 1e-5 if name.endswith("-fit") else FLOAT64
    torch.testing.assert_close(second, first, rtol=0, atol=tolerance)
    plain, _ = run(trained.model, [], trained.vocabulary.ids)
    assert float((first - plain).abs().max()) > 1e-3


def test_terms_that_read_static_heads_need_them(trained: Trained) -> None:
    arrays = term_arrays(trained.fitted("pccmc-weights", 1).loop_terms(), LONGEST)
    with pytest.raises(ValueError, match="static heads"):
        terms_of({name: np.asarray(value) for name, value in arrays.items()}, None)


@in_float64()
def test_others_have_the_word_about_the_first_position(trained: Trained) -> None:
    """The share of the first position is theirs; what is left is spread by the terms: here evenly."""
    own = trained.fitted("pccmc-weights", 1).loop_terms()
    for says in (own, trained.fitted("pccmc-fit", 1).loop_terms(), trained.fitted("distance", 1).loop_terms()):
        _, theirs = run(trained.model, [Replacement(1, says)], trained.vocabulary.ids)
        _, rows = run(trained.model, [Replacement(1, FLAT, first=says)], trained.vocabulary.ids)
        torch.testing.assert_close(rows[..., 0], theirs[..., 0], rtol=0, atol=FLOAT64)
        for t in range(1, len(IDS)):
            even = ((1.0 - rows[:, t, 0]) / t)[:, None].expand(-1, t)
            torch.testing.assert_close(rows[:, t, 1 : t + 1], even, rtol=0, atol=FLOAT64)
    plain, _ = run(trained.model, [], trained.vocabulary.ids)
    exact, _ = run(trained.model, [Replacement(1, EXACT, first=EXACT)], trained.vocabulary.ids)
    torch.testing.assert_close(exact, plain, rtol=0, atol=FLOAT64 * float(plain.abs().max()))
    zero = trained.fitted("pccmc-weights", 0).loop_terms()  # exact in the first layer, the first position too
    exact, _ = run(trained.model, [Replacement(0, EXACT, first=zero)], trained.vocabulary.ids)
    torch.testing.assert_close(exact, plain, rtol=0, atol=FLOAT64 * float(plain.abs().max()))


@in_float64()
def test_others_that_say_nothing_need_levels(trained: Trained) -> None:
    with pytest.raises(ValueError, match="log odds"):
        run(trained.model, [Replacement(1, EXACT, first=FLAT)], trained.vocabulary.ids)


@in_float64()
def test_tokens_are_looked_up_once_for_all_runs(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.attention.static_inputs import StaticHeads

    asked: list[int] = []
    original = StaticHeads.outside

    def outside(self: StaticHeads, ids: Any) -> Any:
        asked.extend(ids.tolist())
        return original(self, ids)

    monkeypatch.setattr(StaticHeads, "outside", outside)
    terms = trained.fitted("pccmc-weights", 1).loop_terms()
    tables: dict[int, TokenRows] = {}
    unseen = sorted(set(IDS.tolist()) - set(trained.vocabulary.ids.tolist()))
    assert len(unseen) > 1
    one, _ = run(trained.model, [Replacement(1, terms, [0, 1])], trained.vocabulary.ids, tables=tables)
    assert sorted(asked) == unseen
    two, _ = run(trained.model, [Replacement(1, terms, [0, 1])], trained.vocabulary.ids, tables=tables)
    assert sorted(asked) == unseen
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    again, _ = run(trained.model, [Replacement(1, terms, [0, 1])], trained.vocabulary.ids)
    torch.testing.assert_close(one, again, rtol=0, atol=FLOAT64)


@pytest.mark.parametrize("sides", [False, True])
@in_float64()
def test_tokens_of_later_texts_do_not_take_the_place_of_earlier_ones(trained: Trained, sides: bool) -> None:
    terms = trained.fitted("pccmc-weights", 1).loop_terms()
    assert terms.static is not None
    arrays, call = static_arrays(terms.static), templates(trained.model)[1]
    static = static_of(trained.model, call, trained.vocabulary.ids, arrays, sides)
    replaced = [Replacement(1, LoopTerms(static, "placed", "placed", sink="score"))]
    tables: dict[int, TokenRows] = {}
    for text in ([9, 2, 10, 3, 2], [9, 4, 10, 5, 4], [9, 2, 10, 4, 3]):
        kept, _ = run(trained.model, replaced, trained.vocabulary.ids, np.array(text), tables=tables)
        fresh, _ = run(trained.model, replaced, trained.vocabulary.ids, np.array(text))
        torch.testing.assert_close(kept, fresh, rtol=0, atol=FLOAT64)


@in_float64()
def test_a_profile_by_query_token_by_hand(trained: Trained) -> None:
    """Row t of head h: softmax over l >= 1 of values[h, query token, bucket of t - l], with a given share left out."""
    size, rng = len(trained.vocabulary.ids), np.random.default_rng(0)
    values = rng.normal(size=(6, size + 1, 3))

    def buckets(length: int) -> Any:
        return np.minimum(np.arange(length) // 4, 2)

    terms, odds = LoopTerms(of_query=QueryProfile(values, buckets)), rng.normal(size=6)
    _, rows = run(trained.model, [Replacement(1, terms)], trained.vocabulary.ids, levels={1: odds})
    for t in (1, 5, 23, 25):
        found = np.flatnonzero(trained.vocabulary.ids == IDS[t])
        token = found[0] if len(found) else size
        for head in range(6):
            log = np.array([values[head, token, min((t - key) // 4, 2)] for key in range(1, t + 1)])
            weight, share = np.exp(log) / np.exp(log).sum(), 1 / (1 + np.exp(-odds[head]))
            expected = np.concatenate([[share], weight * (1 - share)])
            assert rows[head, t, : t + 1].numpy() == pytest.approx(expected, abs=FLOAT64)
    prompt = 9
    with (
        replace(trained.model, [Replacement(1, terms)], trained.vocabulary.ids, levels={1: odds}),
        torch.inference_mode(),
    ):
        whole = trained.model(torch.as_tensor(IDS)[None], use_cache=False).logits[0]
        out = trained.model(torch.as_tensor(IDS[:prompt])[None], use_cache=True)
        for t in range(prompt, len(IDS)):
            out = trained.model(torch.as_tensor(IDS[t : t + 1])[None], past_key_values=out.past_key_values)
    torch.testing.assert_close(out.logits[0, -1], whole[-1], rtol=0, atol=FLOAT64 * float(whole.abs().max()))
