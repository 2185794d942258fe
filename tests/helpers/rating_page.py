"""What raters do with `rate.html` in a browser."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

from coh_lightning.human_eval.sheets import write_rating_page
from coh_lightning.human_eval.study import Study
from helpers.browser import WATCH, Browser


class Rating:
    """What raters do in a browser."""

    def __init__(self, browser: Browser) -> None:
        self.browser, self.driver, self.folder = browser, browser.driver, browser.folder
        self.js, self.keys, self.painted = browser.js, browser.keys, browser.painted
        self.downloads = self.folder

    def open(self, study: Study, query: str = "", *, before: str = "", fresh: bool = True) -> Path:
        """Show the page of a study, and give its path; `before` is script that runs before the page's own."""
        path = write_rating_page(study, self.folder / f"{study.id}.html")
        with self.browser.before_its_own_script(WATCH + before):
            if fresh:
                self.driver.get(f"{path.as_uri()}?rater=nobody")
                self.js("localStorage.clear()")
            self.driver.get("about:blank")
            self.browser.show(path.as_uri() + query)
        return path

    def text(self, id: str) -> str:
        return str(self.js("return document.getElementById(arguments[0]).textContent", id))

    def shows(self, id: str) -> bool:
        return bool(self.js("return document.getElementById(arguments[0]).offsetParent !== null", id))

    def saved(self) -> bytes:
        """The file that S saves."""
        self.downloads = self.folder / f"downloads-{len(list(self.folder.iterdir()))}"
        self.downloads.mkdir()
        self.browser.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.keys("s")
        end = time.monotonic() + 10
        while time.monotonic() < end:
            # the browser reserves the name with an empty file, writes beside it and renames
            for path in self.downloads.glob("*.csv"):
                if content := path.read_bytes():
                    return content
            time.sleep(0.02)
        raise AssertionError(
            f"nothing was downloaded: {list(self.downloads.iterdir())}, {self.text('said')!r}, {self.browser.console()}"
        )

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.saved().decode("utf-8-sig"), newline="")))
