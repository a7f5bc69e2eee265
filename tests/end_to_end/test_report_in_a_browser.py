"""The report in headless Chromium: no error, no request, sorting, filtering, keyboard, contrast, print, and no lag.

Needs Debian's packages chromium and chromium-driver (`apt-get install chromium chromium-driver`).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.report import write_report
from harness.runner import Run, load_run
from harness.store import write_parquet

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no chromium and chromedriver here: apt-get install chromium chromium-driver",
)
ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference" / "quickstart"
HOSTILE = "<script>window.hacked=1</script>\"><img src=x onerror='window.hacked=2'>\u2028$\\frac"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.set_window_size(1280, 900)
    yield driver
    driver.quit()


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


def logs(browser: Any) -> tuple[list[str], list[str]]:
    """Console messages, and addresses that were requested."""
    messages = [entry["message"] for entry in browser.get_log("browser")]
    requests = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requests.append(message["params"]["request"]["url"])
    return messages, requests


def emulate(browser: Any, scheme: str, width: int) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


CONTRAST = """
const linear = (x) => x / 255 <= .03928 ? x / 255 / 12.92 : ((x / 255 + .055) / 1.055) ** 2.4;
const lum = (c) => { const v = c.map(linear);
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const painted = (node) => { node.scrollIntoView({block: "center", inline: "center"});
  const r = node.getBoundingClientRect();
  const shape = document.elementsFromPoint(r.x + r.width / 2, r.y + r.height / 2).find(
    (e) => ["path", "use"].includes(e.tagName) && getComputedStyle(e).fill !== "none");
  return shape && rgb(getComputedStyle(shape).fill); };
const ground = (node) => { if (node.closest("svg")) { const c = painted(node); if (c) return c; }
  for (let n = node; n; n = n.parentElement) {
  const c = rgb(getComputedStyle(n).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
let worst = [99, ""];
const all = "p,li,td,th,a,h1,h2,h3,h4,mark,label,button,figcaption,dt,dd,option,code,text,pre,summary,select";
for (const node of document.querySelectorAll(all)) {
  const style = getComputedStyle(node);
  if (!node.textContent.trim() || !node.getClientRects().length) continue;
  const [a, b] = [lum(rgb(node.tagName === "text" ? style.fill : style.color)), lum(ground(node))];
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < worst[0]) worst = [ratio, node.tagName + " " + node.className + " " + node.textContent.slice(0, 40)];
}
return worst;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_error_no_request_no_overflow_enough_contrast(browser: Any, page: Path, scheme: str, width: int) -> None:
    emulate(browser, scheme, width)
    logs(browser)
    start = time.monotonic()
    browser.get(page.as_uri())
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
    browser.get(page.as_uri())
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
    browser.get(page.as_uri())
    find = (
        "return [...document.querySelectorAll('table.sortable')].findIndex("
        "(t) => t.closest('figure').textContent.includes('explained, by layer'))"
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
    browser.get(page.as_uri())
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

    browser.get(page.as_uri())
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
    browser.get(page.as_uri())
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
