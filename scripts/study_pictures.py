"""Takes the pictures of docs/human_eval.md from the study that its commands make: `python scripts/study_pictures.py`.

docs/rate.png is an item of the rating page with two questions answered, docs/report.png the top of the report. What a
picture says stands in it as text too (PNG's tEXt chunk `says`, a JSON list): a test compares it with what the
commands give. Chromium with its driver must be installed.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars"
SCALE = 1.5
SAID = {
    "rate": "[...document.querySelectorAll('#count, #prompt, #answer-a, #answer-b')].map(each => each.textContent)",
    "report": "[...document.querySelectorAll('h1, h1 ~ p:not(h2 ~ p), h2:first-of-type ~ .wide:first-of-type td')]"
    ".map(each => each.textContent)",
}
"""What a picture says, as an expression for its page."""


def study_commands() -> list[list[str]]:
    """The words of the commands of docs/human_eval.md from `export` to `report`."""
    text = (ROOT / "docs" / "human_eval.md").read_text(encoding="utf-8")
    block = next(block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "human-eval export" in block)
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def make_study(folder: Path) -> Path:
    """Run the commands in a folder, in this process; returns the study's folder."""
    from coh_lightning.__main__ import main
    from coh_lightning.world import simulated_raters

    (folder / "docs").symlink_to(ROOT / "docs")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for words in study_commands():
            if words[0] == "coh":
                assert main(words[1:]) in (0, None), words
            else:
                simulated_raters.main(words[3:])
    finally:
        os.chdir(before)
    return folder / "runs" / "study"


def take_pictures(study: Path, folder: Path) -> None:
    """Write rate.png and report.png of a study."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS.split():
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        _show(driver, f"{(study / 'rate.html').as_uri()}?rater=rater-1", 1180, 700)
        # two items rated whole, and two questions of the third
        driver.find_element("id", "begin").click()
        for item in range(3):
            for choices in driver.find_elements("css selector", ".choices")[: 2 if item == 2 else None]:
                choices.find_elements("tag name", "button")[0].click()
            if item < 2:
                driver.find_element("id", "next").click()
        _save(driver, folder / "rate.png", SAID["rate"])
        _show(driver, (study / "report.html").as_uri(), 1000, 1080)
        _save(driver, folder / "report.png", SAID["report"])
    finally:
        driver.quit()


def _show(driver: Any, address: str, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": SCALE, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(address)


def _save(driver: Any, path: Path, expression: str) -> None:
    from PIL import Image, PngImagePlugin

    says = PngImagePlugin.PngInfo()
    says.add_text("says", json.dumps(driver.execute_script(f"return {expression}")))
    picture = Image.open(io.BytesIO(base64.b64decode(driver.get_screenshot_as_base64())))
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, pnginfo=says, optimize=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        take_pictures(make_study(Path(made)), Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs"))
