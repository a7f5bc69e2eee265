"""What tests of pages share: headless Chromium, what it logs, how it shows a page, and how readable its text is.

Needs Debian's packages chromium and chromium-driver (`apt-get install chromium chromium-driver`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no chromium and chromedriver here: apt-get install chromium chromium-driver",
)
HOSTILE = "<script>window.hacked=1</script>\"><img src=x onerror='window.hacked=2'>\u2028$\\frac"


@contextmanager
def start() -> Iterator[Any]:
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
    try:
        yield driver
    finally:
        driver.quit()


def load(browser: Any, page: Path) -> None:
    """Open a page and wait until it stands: on a busy machine `get` returns before the document has been replaced."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    browser.get(page.as_uri())
    stands = (
        "return location.href === arguments[0] && document.readyState === 'complete'"
        " && document.querySelector('h1') !== null"
    )
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(stands, page.as_uri()))


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
const over = (a, b) => { const share = a.length < 4 ? 1 : a[3];
  return b.map((v, i) => share * a[i] + (1 - share) * v); };
const ground = (node) => { if (node.closest("svg")) { const c = painted(node); if (c) return c; }
  const layers = [];
  for (let n = node; n; n = n.parentElement) layers.push(rgb(getComputedStyle(n).backgroundColor));
  return layers.reverse().reduce((below, c) => over(c, below), [255, 255, 255]); };
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
