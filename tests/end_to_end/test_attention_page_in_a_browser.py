"""The page of real and predicted attention in headless Chromium: no error, no request, readable, and it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsers import CONTRAST, HOSTILE, emulate, load, logs, needs_browser

from harness.models import pieces
from harness.report.attention_page import page_data, samples, write_page
from harness.runs.run import Run

pytestmark = needs_browser
HEADS = ["0.1", "2.3"]


@pytest.fixture(scope="module")
def run(finished: Any) -> Run:
    """The small run: layers 0 and 2 of 6 heads each, every surrogate."""
    found: Run = finished[0]
    return found


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target: Path = tmp_path_factory.mktemp("attention") / "attention.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "piece_maker", lambda *_: lambda token: f" {token}" if token % 5 else HOSTILE)
        write_page(run, target, HEADS)
    return target


def choose(browser: Any, box: int, value: str) -> None:
    browser.execute_script(
        "const b = document.querySelectorAll('.attention select')[arguments[0]]; b.value = arguments[1];"
        "b.dispatchEvent(new Event('change', {bubbles: true}))",
        box,
        value,
    )


def table(browser: Any) -> list[list[str]]:
    """What stands beside the panels: a token, the model's share, the surrogate's."""
    found: list[list[str]] = browser.execute_script(
        "return [...document.querySelectorAll('.attention tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_error_no_request_no_overflow_enough_contrast(browser: Any, page: Path, scheme: str, width: int) -> None:
    emulate(browser, scheme, width)
    logs(browser)
    load(browser, page)
    messages, requests = logs(browser)
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return document.querySelectorAll('main img, .attention script').length") == 0
    assert "<script>window.hacked=1</script>" in browser.execute_script("return document.body.innerText")
    for token in (1, 20, -1):  # a query early, in the middle and at the end
        browser.execute_script("[...document.querySelectorAll('.tokens button')].at(arguments[0]).click()", token)
        ratio, where = browser.execute_script(CONTRAST)
        assert ratio >= 4.5, where


def test_shares_are_those_that_the_run_kept(browser: Any, page: Path, run: Run) -> None:
    emulate(browser, "light", 1280)
    load(browser, page)
    kept = samples(run)
    data = page_data(run, HEADS)
    assert data is not None
    first = data["texts"][0]
    own = kept[(kept["strategy"] == first["strategy"]) & (kept["prompt"] == first["prompt"])]
    types = max(first["columns"]) + 1
    for head in HEADS:
        choose(browser, 1, head)
        for surrogate in ("counts", "pccmc-fit"):
            choose(browser, 2, surrogate)
            rows = table(browser)
            layer, number = (int(part) for part in head.split("."))
            of_head = own[(own["layer"] == layer) & (own["head"] == number)].set_index("source")["mass"]
            last = [np.frombuffer(of_head[of], dtype=np.uint8).reshape(-1, types)[-1] for of in ("model", surrogate)]
            expected = sorted(((share / 2.55).tolist() for share in np.stack(last, axis=1)), reverse=True)
            shown = [[float(share.removesuffix(" %")) for share in row[1:]] for row in rows]
            assert len(shown) == min(12, len(expected))
            assert [row[0] for row in shown] == sorted((row[0] for row in shown), reverse=True)
            for pair in shown:  # rounded, and in any order where the model gives the same
                assert np.abs(np.array(expected) - pair).max(axis=1).min() <= 0.51
            np.testing.assert_allclose([row[0] for row in shown], [row[0] for row in expected[:12]], atol=0.51)


def test_asking_another_token_keeps_the_place(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    emulate(browser, "light", 1280)
    load(browser, page)
    asked = "return document.querySelector('.attention [role=status]').textContent"
    before, rows = browser.execute_script(asked), table(browser)
    browser.execute_script("document.querySelectorAll('.tokens')[1].children[9].focus()")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    after = browser.execute_script(asked)
    assert after != before
    assert after.startswith("Query: token 10, ")
    assert table(browser) != rows
    place = (
        "return [...document.querySelectorAll('.tokens')]"
        ".map((panel) => [...panel.children].indexOf(document.activeElement))"
    )
    assert browser.execute_script(place) == [-1, 9]
    pressed = "return [...document.querySelectorAll('.tokens [aria-pressed=true]')].length"
    assert browser.execute_script(pressed) == 2
    browser.execute_script("document.querySelector('.tokens').children[0].click()")
    assert browser.execute_script(asked).startswith("Query: token 2, ")  # the first position is left out
    unnamed = (
        "return [...document.querySelectorAll('button, select, [role=img]')]"
        ".filter((n) => !(n.ariaLabel || n.closest('label')?.textContent)).length"
    )
    assert browser.execute_script(unnamed) == 0


def test_a_surrogate_once_chosen_stays(browser: Any, page: Path) -> None:
    load(browser, page)
    value = "return document.querySelectorAll('.attention select')[2].value"
    choose(browser, 2, "distance")
    choose(browser, 1, HEADS[1])
    assert browser.execute_script(value) == "distance"
    titles = browser.execute_script("return [...document.querySelectorAll('.attention h4')].map((h) => h.textContent)")
    assert titles == ["model", "distance"]


def test_squares_are_drawn_below_the_diagonal_alone(browser: Any, page: Path) -> None:
    load(browser, page)
    drawn = (
        "const c = document.querySelector('.attention canvas'), p = c.getContext('2d');"
        "const at = (q, k) => p.getImageData(5 * k + 2, 5 * q + 2, 1, 1).data[3];"
        "const n = c.width / 5, found = [0, 0];"
        "for (let q = 1; q < n; q++) for (let k = 1; k < n; k++) found[k <= q ? 0 : 1] += at(q, k) > 0 ? 1 : 0;"
        "return [n, ...found, at(5, 0)]"
    )
    size, seen, future, sink = browser.execute_script(drawn)
    assert seen == size * (size - 1) // 2
    assert (future, sink) == (0, 0)
