"""A real browser for tests of pages: Chromium without a window, driven by Selenium.

Without Chromium the tests that need it are skipped, or fail with CI_BROWSER_REQUIRED=1.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900"
)
WATCH = (
    "globalThis.violations = [];"
    "addEventListener('securitypolicyviolation', event => violations.push(event.violatedDirective));"
)


FAINT = """
  const colors = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = text => {
    colors.clearRect(0, 0, 1, 1);
    colors.fillStyle = text;
    colors.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = colors.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (top, low) => [0, 1, 2].map(at => top[at] * top[3] + low[at] * (1 - top[3]));
  const ground = element => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      layers.unshift(rgba(getComputedStyle(each).backgroundColor));
    }
    return layers.reduce((low, top) => over(top, low), [255, 255, 255]);
  };
  const light = color => color
    .map(part => part / 255)
    .map(part => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("script, style, .unseen, :disabled")) continue; // WCAG asks nothing of what can't be used
    seen += 1;
    const below = ground(element), ratio = contrast(over(rgba(getComputedStyle(element).color), below), below);
    if (ratio < 4.5) found.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return [seen, found];"""
"""Script: the number of visible texts of the page, and those whose contrast (WCAG 2.2) is below 4.5."""


@dataclass
class Browser:
    driver: Chrome
    folder: Path
    """For downloads and pages."""

    def js(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def cdp(self, command: str, **parameters: object) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)

    def show(self, address: str) -> None:
        """Load a page and wait until it is painted: the browser drops keys that come before."""
        self.driver.get(address)
        self.painted()

    def painted(self) -> None:
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    @contextmanager
    def before_its_own_script(self, code: str) -> Iterator[None]:
        """Run code in each page that is loaded in the body, before the page's script."""
        added = self.cdp("Page.addScriptToEvaluateOnNewDocument", source=code)
        try:
            yield
        finally:
            self.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])

    @contextmanager
    def screen(self, width: int, height: int) -> Iterator[None]:
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        try:
            yield
        finally:
            self.cdp("Emulation.clearDeviceMetricsOverride")

    @contextmanager
    def scheme(self, name: str) -> Iterator[None]:
        """Prefer a color scheme, light or dark."""
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])
        try:
            yield
        finally:
            self.cdp("Emulation.setEmulatedMedia", features=[])

    def faint_texts(self) -> list[str]:
        """The visible texts whose contrast is below 4.5, each with its contrast. A page without text is an error."""
        seen, found = self.js(FAINT)
        assert seen
        return list(found)

    def keys(self, *keys: str) -> None:
        """Press keys, by character or by Selenium's name (ENTER)."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.driver).send_keys(getattr(Keys, key, key)).perform()

    def waited(self, code: str, value: object) -> None:
        """Wait until an expression has this value."""
        end = time.monotonic() + 5
        while (now := self.js(f"return {code}")) != value and time.monotonic() < end:
            time.sleep(0.02)
        assert now == value

    def forget(self) -> None:
        """Drop what was logged so far."""
        self.driver.get_log("browser")
        self.driver.get_log("performance")

    def console(self) -> list[dict[str, Any]]:
        """What the browser complained of since the last call: errors, policy violations."""
        return self.driver.get_log("browser")

    def requested(self) -> set[str]:
        """Addresses asked for since the last call by pages from files, without their query."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return {
            one["request"]["url"].split("?")[0]
            for one in asked
            if one["documentURL"].startswith("file:") and not one["request"]["url"].startswith("data:")
        }


@contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile; skips the test where there is none."""
    found = {"chromium": shutil.which("chromium") or shutil.which("chromium-browser")}
    found["chromedriver"] = shutil.which("chromedriver")
    if missing := [name for name, path in found.items() if path is None]:
        reason = f"no {' and no '.join(missing)} on this machine (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("CI_BROWSER_REQUIRED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    for flag in (*FLAGS.split(), f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found["chromedriver"]))
    try:
        driver.set_page_load_timeout(30)
        yield Browser(driver, folder)
    finally:
        driver.quit()
