"""Declarations are read from source text: without importing, with one clear line where they are broken."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from harness.core import registry
from harness.core.declarations import MeasureDeclaration, SurrogateDeclaration
from harness.core.errors import UsageError
from harness.core.rows import REFERENCES, RESEEDED, SHUFFLED, frames
from harness.core.source import BrokenDeclarationError, read_declarations
from harness.experiments._shared.loop_rules import CONTROLS
from harness.experiments.causes.settings import INTERVENTIONS, KINDS, NGRAM, random_name

ROOT = Path(__file__).resolve().parents[3]
TEXT = """
import a_package_that_nobody_has
from harness.core.registry import register

@register.surrogate("recency", sees=("distance",), parameters="1", source="this project")
class Recency(HeadSurrogate):
    pass

@register.measure("types", unit="tokens", sees="continuation")
def types(continuation):
    raise RuntimeError

register.measure("odd_at_{k}", better="lower", label="odd, {k}", about="of {k} tokens")
"""


def test_declarations_are_read_from_text_that_cannot_be_imported() -> None:
    found = read_declarations(TEXT, "plugin.things", "a-plugin", "1.2")
    assert [(kind, one.name, one.attribute) for kind, one in found] == [
        ("surrogate", "recency", "Recency"),
        ("measure", "types", "types"),
        ("measure", "odd_at_{k}", ""),
    ]
    recency, types = found[0][1], found[1][1]
    assert isinstance(recency, SurrogateDeclaration)
    assert isinstance(types, MeasureDeclaration)
    assert (recency.of, recency.sees) == ("heads", ("distance",))
    assert (types.unit, types.sign, types.shown) == ("tokens", 0, "types")
    assert all((one.module, one.package, one.version) == ("plugin.things", "a-plugin", "1.2") for _, one in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (", "things: not valid Python"),
        (
            '\nregister.measure("a", untl="nats")',
            "things, line 2: register.measure: unknown field 'untl'; did you mean",
        ),
        ('register.measure("a", unit=UNIT)', "things, line 1: register.measure: every argument must be a literal"),
        ('register.measure("a", pooled="median")', "pooled='median' is not one of 'mean', 'explained'"),
        ('register.measure("a", pooled="explained")', "pooled='explained' needs `of`, a measure, and `reference`"),
        (
            'register.measure("a", sees="continuation")',
            "line 1: register.measure: sees='continuation' needs a function",
        ),
        ('register.measure(unit="nats")', "things, line 1: register.measure: .*missing 1 required .*'name'"),
        ('register.measure("a", better="more")', "register.measure: better='more' is not one of 'lower', 'higher'"),
        ('register.measure("a", absolute="1")', "register.measure: absolute='1' is not of type float"),
        ('register.surrogate("a", sees="order")', r"register.surrogate: sees='order' is not a tuple of texts, such as"),
        ('register.surrogate("a", rung=True)', "register.surrogate: rung=True is not of type int"),
        (
            'register.surrogate("a", of="head")',
            "register.surrogate: of='head' is not one of 'heads', 'next-token', 'vocabulary', ''",
        ),
    ],
)
def test_a_broken_declaration_is_one_line_that_says_where(text: str, said: str) -> None:
    with pytest.raises(BrokenDeclarationError, match=said) as error:
        read_declarations(text, "things")
    assert "\n" not in str(error.value)


def test_no_name_is_declared_twice_and_every_measure_says_what_it_is() -> None:
    own = list(registry._own())
    places = Counter((kind, one.name, getattr(one, "of", "") if kind == "surrogate" else "") for kind, one in own)
    assert not {place: n for place, n in places.items() if n > 1}
    for name, one in registry.measures().items():
        assert one.unit, name
        assert one.about, name
        assert one.pooled in {"mean", "explained"}, name
        assert one.pooled == "mean" or (one.of in registry.measures() and one.reference), name
    headlines = [one.headline_of for one in registry.measures().values() if one.headline_of]
    assert len(set(headlines)) == len(headlines)


def test_a_number_in_a_name_fills_the_words() -> None:
    found = registry.measure("winner_jaccard_at_7")
    assert found is not None
    assert (found.name, found.sign, found.absolute) == ("winner_jaccard_at_7", 1, 1e-4)
    assert found.about.endswith("the winners being the 7 most frequent tokens")
    assert "7" in found.label
    assert registry.measure("winner_jaccard_at_x") is None
    assert registry.measure("seq_rep_4_at_7") is None
    assert registry.measure("winner_jaccard_at_") is None


def test_directions() -> None:
    assert registry.sign("kl") == registry.sign("logit_error") == -1
    assert registry.sign("explained") == registry.sign("winner_recall_at_3") == 1
    assert registry.sign("winner_size_at_7") == registry.sign("seq_rep_4") == registry.sign("unheard of") == 0


def test_a_wrong_metric_names_the_nearest() -> None:
    registry.check_metrics(["kl"], ["kl", "explained"])
    with pytest.raises(UsageError, match="'kll'; did you mean 'kl'"):
        registry.check_metrics(["kll"], ["kl", "explained"])
    with pytest.raises(UsageError, match=r"'ridge' [(]not in these runs[)]"):
        registry.check_metrics(["ridge"], ["kl", "explained"])


def reference_rows() -> list[Path]:
    return sorted((ROOT / "results" / "reference").rglob("rows.parquet"))


@pytest.mark.parametrize("path", reference_rows(), ids=lambda path: path.parent.name)
def test_everything_in_a_reference_run_is_declared(path: Path) -> None:
    rows = pd.read_parquet(path, columns=["experiment", "metric", "surrogate"])
    assert not {name for name in rows["metric"].unique() if registry.measure(name) is None}
    done = rows["experiment"] == "causes"  # its rows name interventions
    known = {*INTERVENTIONS, *map(random_name, KINDS), NGRAM, "model"}
    assert set(rows[done]["surrogate"].dropna()) <= known
    surrogates = set(rows[~done]["surrogate"].dropna()) - {"model", RESEEDED, SHUFFLED, *CONTROLS} - REFERENCES
    assert surrogates <= set(registry.surrogates())


def test_the_ladder_and_what_frames_it() -> None:
    assert registry.ladder({"ccmc-fit", "zebra", "counts", "ant", "bigram"}) == [
        "counts",
        "bigram",
        "ccmc-fit",
        "ant",
        "zebra",
    ]
    controls = {"shuffled-weights", "exact-keys", "exact-queries", "unigram", "unigram-cache"}
    assert frames() == {RESEEDED, SHUFFLED} | REFERENCES | controls


def test_listing_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "numba", "scipy", "pandas", "numpy")
    code = (
        "import sys; from harness.core import registry; "
        "assert registry.measures() and registry.surrogates() and registry.problems() is not None; "
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.split() == []
