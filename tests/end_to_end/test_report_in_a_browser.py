"""The report in headless Chromium: no error, no request, sorting, filtering, keyboard, contrast, print, and no lag.

Needs Debian's packages chromium and chromium-driver (`apt-get install chromium chromium-driver`).
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browsers import CONTRAST, HOSTILE, emulate, load, logs, needs_browser

from harness.report.page import write_report
from harness.runs.run import Run, load_run
from harness.runs.writing import write_parquet

pytestmark = needs_browser
ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference" / "quickstart"


def big_run(folder: Path) -> Run:
    """The reference run with 300 heads and 8 surrogates, its prompts and texts hostile."""
    shutil.copytree(REFERENCE, folder)
    rows = pd.read_parquet(folder / "rows.parquet")
    kept = rows[(rows["experiment"] != "heads") | (rows["metric"] != "sink_share")]
    heads = kept[(kept["experiment"] == "heads") & kept["head"].notna() & (kept["strategy"] == "greedy")]
    prompts = heads["prompt"].dropna().unique()[:2]
    heads = heads[heads["prompt"].isna() | heads["prompt"].isin(prompts)]
    more = [heads]
    for copy in range(1, 6):  # 54 heads become 324
        more.append(heads.assign(layer=heads["layer"] + 30 * copy))
    several = pd.concat(more)
    names = {"distance": "n-gram", "ccmc-weights": HOSTILE}
    extra = several[several["surrogate"].isin(names)]
    extra = extra.assign(surrogate=extra["surrogate"].replace(names))
    rest = kept[kept["experiment"] != "heads"]
    write_parquet(pd.concat([several, extra, rest], ignore_index=True), folder / "rows.parquet")
    texts = pd.read_parquet(folder / "trajectories.parquet")
    texts["prompt"] = HOSTILE + texts["prompt"]
    write_parquet(texts, folder / "trajectories.parquet")
    return load_run(folder)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    paper = load_run(ROOT / "results" / "reference" / "paper" / "coverage")
    write_report([big_run(folder / "run"), paper], folder / "report.html")
    assert (folder / "report.html").stat().st_size < 3_000_000
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_error_no_request_no_overflow_enough_contrast(browser: Any, page: Path, scheme: str, width: int) -> None:
    emulate(browser, scheme, width)
    logs(browser)
    start = time.monotonic()
    load(browser, page)
    assert time.monotonic() - start < 10
    messages, requests = logs(browser)
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return document.images.length") == 0
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    ratio, where = browser.execute_script(CONTRAST)
    assert ratio >= 4.5, where
    picture = browser.get_screenshot_as_png()
    assert len(picture) > 20_000


def column(browser: Any, selector: str, index: int) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((r) => r.cells[arguments[1]]?.textContent ?? '')"
    found: list[str] = browser.execute_script(script, selector, index)
    return found


def test_sorting_and_filtering_of_every_head_without_lag(browser: Any, page: Path) -> None:
    emulate(browser, "light", 1280)
    load(browser, page)
    status = ".grid [role=status]"
    text = "return document.querySelector(arguments[0]).textContent"
    assert browser.execute_script(text, status) == "2592 of 2592 rows"
    names = column(browser, ".grid thead tr", 0) and browser.execute_script(
        "return [...document.querySelectorAll('.grid thead th')].map((h) => h.textContent)"
    )
    kl = names.index("kl")
    press = "document.querySelectorAll('.grid thead button')[arguments[0]].click()"
    start = time.monotonic()
    browser.execute_script(press, kl)
    up = [float(v) for v in column(browser, ".grid tbody tr:not(.space)", kl)]
    assert up == sorted(up)
    browser.execute_script(press, kl)
    down = [float(v) for v in column(browser, ".grid tbody tr:not(.space)", kl)]
    assert down == sorted(down, reverse=True)
    assert down[0] > up[-1]
    sort_state = "return document.querySelectorAll('.grid thead th')[arguments[0]].getAttribute('aria-sort')"
    assert browser.execute_script(sort_state, kl) == "descending"
    browser.execute_script(
        "const i = document.querySelector('.grid input'); i.value = 'n-gram';"
        "i.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert browser.execute_script(text, status) == "324 of 2592 rows"
    assert set(column(browser, ".grid tbody tr:not(.space)", names.index("surrogate"))) == {"n-gram"}
    browser.execute_script("document.querySelector('.grid .window').scrollTop = 1e6")
    time.sleep(0.2)
    assert len(column(browser, ".grid tbody tr:not(.space)", kl)) <= 60
    assert time.monotonic() - start < 5


def test_static_tables_sort_by_number(browser: Any, page: Path) -> None:
    load(browser, page)
    find = (
        "return [...document.querySelectorAll('table.sortable')].findIndex("
        "(t) => t.closest('figure').textContent.includes('What surrogates explain of each layer'))"
    )
    table = browser.execute_script(find)
    script = (
        "const t = document.querySelectorAll('table.sortable')[arguments[0]];"
        "t.querySelectorAll('thead button')[1].click();"
        "return [...t.tBodies[0].rows].map((r) => parseFloat(r.cells[1].textContent))"
    )
    first, second = (browser.execute_script(script, table) for _ in range(2))
    assert first == sorted(first)
    assert second == sorted(second, reverse=True)
    assert len(first) == 36


def test_the_viewer_shows_hostile_text_as_text(browser: Any, page: Path) -> None:
    load(browser, page)
    shown = browser.execute_script("return document.querySelector('.viewer').textContent")
    assert "<script>window.hacked=1</script>" in shown
    assert browser.execute_script("return document.querySelectorAll('.viewer script, .viewer img').length") == 0
    assert browser.execute_script("return document.querySelectorAll('.viewer mark').length") > 10
    assert browser.execute_script("return window.hacked") is None
    change = (
        "const b = document.querySelectorAll('.viewer select')[2]; b.selectedIndex = 1;"
        "b.dispatchEvent(new Event('change', {bubbles: true}));"
        "return [b.selectedIndex, document.querySelector('.viewer .given').textContent]"
    )
    before = browser.execute_script("return document.querySelector('.viewer .given').textContent")
    index, after = browser.execute_script(change)
    assert index == 1
    assert after != before


def test_everything_is_reached_with_the_keyboard(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    load(browser, page)
    body = browser.find_element("tag name", "body")
    body.send_keys(Keys.TAB)
    assert browser.execute_script("return document.activeElement.className") == "skip"
    browser.execute_script("document.querySelector('.grid thead button').focus()")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    state = "return document.querySelector('.grid thead th').getAttribute('aria-sort')"
    assert browser.execute_script(state) == "ascending"
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.execute_script(outline) == "solid"
    unnamed = (
        "return [...document.querySelectorAll('button, select, input, [role=region], [role=img]')]"
        ".filter((n) => !(n.textContent || n.ariaLabel || n.closest('label')?.textContent)).length"
    )
    assert browser.execute_script(unnamed) == 0


def test_it_prints(browser: Any, page: Path) -> None:
    load(browser, page)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    hidden = browser.execute_script("return getComputedStyle(document.querySelector('.controls')).display")
    spacers = set(
        browser.execute_script(
            "return [...document.querySelectorAll('tr.space')].map((n) => getComputedStyle(n).display)"
        )
    )
    note = browser.execute_script("return document.querySelector('.paper').innerText")
    browser.execute_script(
        "document.querySelector('.grid .window').scrollTop = 1e6; dispatchEvent(new Event('beforeprint'))"
    )
    drawn = len(column(browser, ".grid tbody tr:not(.space)", 0))
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert hidden == "none"
    assert spacers == {"none"}  # the rows that are not drawn leave no blank pages
    assert "the first 60" in note
    assert drawn == 60
    assert len(pdf["data"]) > 50_000
