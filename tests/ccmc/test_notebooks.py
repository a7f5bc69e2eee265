"""What notebooks show of a fit and of winners: the numbers, escaped, and nothing that they are not."""

from __future__ import annotations

import numpy as np

from ccmc import CCMC, Observations, fit_mle, winners
from ccmc._data.html import table


def test_a_fit_in_a_notebook() -> None:
    rng = np.random.default_rng(0)
    fit = fit_mle(Observations.from_sequences([rng.integers(0, 4, 60) for _ in range(5)], 4, unseen="drop"))
    shown = fit._repr_html_()
    assert f"{len(fit.observations):,}" in shown
    assert f"{fit.log_likelihood:.6g} nats" in shown
    assert ("<td>yes</td>" in shown) == fit.identifiability.identified
    split = fit_mle(Observations.from_sequences([[0, 1, 0, 1, 1, 0], [2, 3, 2, 3, 3, 2]], 4, unseen="drop"), ridge=0.1)
    assert not split.identifiability.identified
    assert "no: see identifiability.components" in split._repr_html_()


def test_winners_in_a_notebook() -> None:
    found = winners(CCMC(np.eye(3)), np.array([3.0, 2.0, 1.0]))
    shown = found._repr_html_()
    best = max(found.tokens, key=lambda token: found.frequencies[token])
    assert shown.index(f"<td>{best}</td>") == min(shown.index(f"<td>{token}</td>") for token in found.tokens)
    assert f"odds {found.odds:.3g}" in shown


def test_texts_are_escaped() -> None:
    shown = table("<b>", ("<i>",), [("<script>",)], "&")
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<p>&amp;</p>" in shown
