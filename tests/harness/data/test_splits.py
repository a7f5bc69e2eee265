"""Splits and folds: groups stay together, kinds are spread evenly, and prompts without groups are split as ever."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.config.load import load_config, shipped_configs
from harness.core.errors import UsageError
from harness.core.hashing import canonical_hash
from harness.data.prompts import load_prompts
from harness.data.splits import Prompt, folded, folds_of, limited, split, spread
from harness.experiments.heads.experiment import HeadsExperiment

ROOT = Path(__file__).resolve().parents[3]
# Of the split of every shipped file with every prompt a group of its own, at 7 shares, 3 seeds and 4 limits.
SPLITS = {
    "quickstart": "0e9c16d14c002d94",
    "heads": "f94f630c8cb81bc4",
    "chat": "13a6efb10cb1a59d",
    "antibodies": "f1f0db94dd1e5905",
    "one-layer": "a25ffc08c484b802",
    "repetition": "f851121f7c8de493",
    "repetition-confirm": "27a50e9f636b17f3",
}
GROUPED = {"repetition", "repetition-confirm"}


def shipped(name: str) -> list[Prompt]:
    """The prompts of a shipped file, as they are written."""
    text = (shipped_configs() / "prompts" / f"{name}.yaml").read_text(encoding="utf-8")
    return [
        Prompt(item["id"], item["kind"], item["text"], group=item.get("group", "")) for item in yaml.safe_load(text)
    ]


@st.composite
def grouped(draw: Any) -> list[Prompt]:
    """Prompts of up to three kinds in groups of up to four, now and then of several kinds."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=25))
    prompts = []
    for number, size in enumerate(sizes):
        kind = draw(st.sampled_from("abc"))
        kinds = [draw(st.sampled_from("abc")) if draw(st.integers(0, 9)) == 0 else kind for _ in range(size)]
        start = len(prompts)
        prompts += [Prompt(f"p{start + i:03}", one, "text", group=f"g{number}") for i, one in enumerate(kinds)]
    return prompts


def together(prompts: list[Prompt]) -> bool:
    """Is every group on one side and in one fold?"""
    return len({(p.group, p.split, p.fold) for p in prompts}) == len({p.group for p in prompts})


@pytest.mark.parametrize("name", SPLITS)
def test_prompts_without_groups_are_split_as_in_all_reference_runs(name: str) -> None:
    prompts = shipped(name)
    assert (len({prompt.group for prompt in prompts}) < len(prompts)) == (name in GROUPED)
    prompts = [replace(prompt, group=prompt.id) for prompt in prompts]
    found = hashlib.sha256()
    for share, seed, limit in product((0.05, 0.25, 0.26, 0.3, 0.32, 0.4, 0.9), (0, 1, 7), (None, 1, 3, 8)):
        for prompt in limited(split(prompts, share, seed), limit, seed):
            found.update(f"{share}/{seed}/{limit}/{prompt.id}/{prompt.split}\n".encode())
    assert found.hexdigest()[:16] == SPLITS[name]


def test_the_record_of_prompts_in_reference_runs_is_the_same() -> None:
    """The hash of the prompts is part of the hash of a run's config."""
    prompts = load_prompts(load_config("quickstart"))
    assert {key for prompt in prompts for key in prompt.as_dict()} == {"id", "kind", "text", "split"}
    manifest = yaml.safe_load((ROOT / "results/reference/quickstart/manifest.json").read_text(encoding="utf-8"))
    assert canonical_hash([prompt.as_dict() for prompt in prompts]) == manifest["prompts"]["sha256"]


@given(grouped(), st.floats(0.05, 0.95), st.integers(0, 2**40))
def test_a_split_separates_no_group(prompts: list[Prompt], share: float, seed: int) -> None:
    found = split(prompts, share, seed)
    assert [p.id for p in found] == [p.id for p in prompts]
    assert together(found)
    assert all((p.fold == 0) == (p.split == "held_out") and (p.fold is None) == (p.split == "train") for p in found)
    back = split(prompts[::-1], share, seed)
    assert {p.id: p.split for p in back} == {p.id: p.split for p in found}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3)), min_size=1, max_size=20), st.floats(0.05, 0.95))
def test_a_kind_of_several_groups_is_on_both_sides_near_its_share(sizes: list[tuple[str, int]], share: float) -> None:
    prompts = [
        Prompt(f"p{number}-{index}", kind, "text", group=f"g{number}")
        for number, (kind, size) in enumerate(sizes)
        for index in range(size)
    ]
    held = Counter(p.kind for p in split(prompts, share, 3) if p.split == "held_out")
    for kind in {kind for kind, _ in sizes}:
        own = [size for one, size in sizes if one == kind]
        if len(own) > 1:
            assert 1 <= held[kind] <= sum(own) - 1
            assert abs(held[kind] - share * sum(own)) <= 1 + max(own)


@given(grouped(), st.integers(2, 6), st.integers(0, 2**40))
def test_folds_separate_no_group_and_do_not_depend_on_order(prompts: list[Prompt], folds: int, seed: int) -> None:
    found = folded(prompts, folds, seed)
    assert [p.id for p in found] == [p.id for p in prompts]
    assert {p.split for p in found} == {"held_out"}
    assert together(found)
    if len({p.group for p in prompts}) >= folds:
        assert {p.fold for p in found} == set(range(folds))
    back = folded(prompts[::-1], folds, seed)
    assert {p.id: p.fold for p in back} == {p.id: p.fold for p in found}


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=60), st.integers(2, 20))
def test_folds_of_single_prompts_differ_by_one_at_most(kinds: list[str], folds: int) -> None:
    found = folded([Prompt(f"p{index}", kind, "text") for index, kind in enumerate(kinds)], folds, 0)
    for kind in [*set(kinds), None]:
        sizes = Counter(p.fold for p in found if kind in (p.kind, None))
        counts = [sizes[fold] for fold in range(folds)]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(("name", "folds"), [("repetition", 5), ("repetition", 10), ("repetition-confirm", 5)])
def test_the_shipped_groups_fill_folds_evenly(name: str, folds: int) -> None:
    for seed in range(3):
        found = folded(shipped(name), folds, seed)
        assert together(found)
        for kind in [*{p.kind for p in found}, None]:
            sizes = Counter(p.fold for p in found if kind in (p.kind, None))
            assert max(sizes.values()) - min(sizes.values()) <= 1
    assert [p.fold for p in folded(shipped(name), folds, 0)] != [p.fold for p in folded(shipped(name), folds, 1)]


@given(grouped(), st.integers(2, 5), st.integers(1, 6))
def test_a_limit_keeps_groups_whole_where_they_fit(prompts: list[Prompt], folds: int, limit: int) -> None:
    for parts in (folded(prompts, folds, 0), split(prompts, 0.4, 0)):
        few = limited(parts, limit, 0)
        sizes = Counter(p.group for p in prompts)
        for part in {(p.split, p.fold) for p in parts}:
            whole = [p for p in parts if (p.split, p.fold) == part]
            kept = [p for p in few if (p.split, p.fold) == part]
            assert 1 <= len(kept) <= limit
            cut = {p.group for p in kept if sum(q.group == p.group for q in kept) < sizes[p.group]}
            assert not cut or (len(cut) == 1 and all(sizes[p.group] > limit for p in whole))


def test_the_folds_of_a_run_say_what_is_fitted_to_and_what_is_judged() -> None:
    prompts = shipped("repetition")
    five = folds_of(folded(prompts, 5, 0))
    assert [fold.number for fold in five] == [0, 1, 2, 3, 4]
    assert Counter(p.id for fold in five for p in fold.judged) == Counter(p.id for p in prompts)
    for fold in five:
        assert len(fold.train) + len(fold.judged) == len(prompts)
        assert not {p.group for p in fold.train} & {p.group for p in fold.judged}
    (one,) = folds_of(split(prompts, 0.25, 0))
    assert one.number == 0
    assert {p.split for p in one.train} == {"train"}
    assert {p.split for p in one.judged} == {"held_out"}
    assert len(one.train) + len(one.judged) == len(prompts)


def config(tmp_path: Path, **changes: Any) -> Any:
    prompts = [{"id": f"p{i}", "kind": "k", "text": f"text {i}", "group": f"g{i // 2}"} for i in range(8)]
    given = {"name": "x", "models": ["m"], "prompts": prompts, "experiments": [{"kind": "heads"}], **changes}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(given))
    return load_config(tmp_path / "c.yaml")


def test_a_config_with_folds_judges_every_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadsExperiment, "cross_fits", True)
    found = load_prompts(config(tmp_path, folds=4))
    assert sorted(Counter(p.fold for p in found).items()) == [(0, 2), (1, 2), (2, 2), (3, 2)]
    assert together(found)
    assert [p.as_dict().get("fold") for p in found] == [p.fold or None for p in found]
    assert Counter(p.fold for p in load_prompts(config(tmp_path, folds=4, limit=1))) == {0: 1, 1: 1, 2: 1, 3: 1}
    with pytest.raises(UsageError, match="8 different prompts in 4 groups leave a fold empty; add prompts or lower"):
        load_prompts(config(tmp_path, folds=5))
    one_fold = load_prompts(config(tmp_path, held_out=0.25))
    assert sorted(Counter(p.fold for p in one_fold if p.fold is not None).items()) == [(0, 2)]


@given(grouped(), st.integers(0, 40), st.integers(0, 3))
def test_prompts_are_spread_over_groups_first_and_fewer_are_the_first_of_more(
    prompts: list[Prompt], number: int, seed: int
) -> None:
    found = spread(prompts, number, seed)
    assert len({prompt.id for prompt in found}) == len(found) == min(number, len(prompts))
    assert spread(list(reversed(prompts)), number, seed) == found
    assert spread(prompts, max(number - 1, 0), seed) == found[: max(number - 1, 0)]
    groups = len({prompt.group for prompt in prompts})
    assert len({prompt.group for prompt in found}) == min(number, groups)


def test_kinds_take_turns_when_prompts_are_spread() -> None:
    found = Counter(prompt.kind for prompt in spread(shipped("repetition"), 60, 0))
    assert set(found.values()) == {6}  # of ten kinds
    assert spread(shipped("repetition"), 60, 0) != spread(shipped("repetition"), 60, 1)
