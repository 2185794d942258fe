"""`rate.html`: blind, and shut against whatever a text tries; in a real browser: rating by keys, work that is kept, and
the very CSV that the sheets are.

Where there is no Chromium the tests that need one are skipped, unless CI_BROWSER_REQUIRED=1 says that there must be
one.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.draws import generator
from coh_lightning.errors import InputError
from coh_lightning.human_eval.guard import DANGEROUS, unguard
from coh_lightning.human_eval.page import _embedded, data_of, page_of, write_page
from coh_lightning.human_eval.sheets import csv_text, sheet_cells
from coh_lightning.human_eval.study import Item, Row, Study, digest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)

RUN = "globalThis.ran = (globalThis.ran || 0) + 1"
HOSTILE = (
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</SCRIPT ><img src=x onerror='{RUN}'>",
    f"<img src=x onerror={RUN.replace(' ', '')}>",
    f"<!--<script>{RUN}//-->",
    f"--><svg/onload='{RUN}'>",
    f"<a href=\"javascript:{RUN}\">click</a><iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    f'"><body onpageshow="{RUN}"><details open ontoggle="{RUN}">',
    f"</textarea></title></style></noscript><script>{RUN}</script>",
    f"javascript:{RUN}",
    f"{{{{constructor.constructor('{RUN}')()}}}} ${{{RUN}}} <%= {RUN} %> #{{{RUN}}} @DATA@ @POLICY@ \\u003cscript>",
    "<meta http-equiv=refresh content='0;url=https://example.invalid/'><link rel=stylesheet "
    "href=https://example.invalid/x><base href=//example.invalid>",
    "<style>@import 'https://example.invalid/y'; body { background: url(https://example.invalid/z) "
    "}</style><b>bold?</b> &lt;b&gt; &amp;amp; &#60;",
    "\0\x01\x07\x08\x0b\x0c\x1b[31m\x7f\x80\x9f\r lone, \r\n two "
    "\u200b\u200e\u202e\u2028\u2029\u2066\ufeff\ufff9\U000e0041 end",
    "  kept   spaces\n\n\n\tand a tab  ",
    "",
)
"""Texts of which nothing may run, and all of which must be seen as they are."""


def study_of(
    texts: Sequence[tuple[str, str, str]], *, raters: int = 1, attributes: tuple[str, ...] = ("coherence", "overall")
) -> Study:
    """A study of (prompt, text, text) in which every rater gets every item, with A on either side in turn."""
    items = tuple(
        Item(f"i{number:04d}", *(prompt, (one, other)), digest(prompt, one, other))
        for number, (prompt, one, other) in enumerate(texts)
    )
    names = [f"rater-{number + 1}" for number in range(raters)]
    rows = tuple(
        Row(f"r{rater[6:]}{number:04d}", item.item, rater, number % 2)
        for rater in names
        for number, item in enumerate(items)
    )
    orders = {name: attributes if number % 2 == 0 else attributes[::-1] for number, name in enumerate(names)}
    key = {
        "systems": ["SYSTEM-ONE", "SYSTEM-TWO"],
        "rows": {row.row: {"check": "gold"} for row in rows},
        "seed": 271828,
    }
    id = "s" + digest(*(text for each in texts for text in each), *names)[:10]
    return Study(
        id,
        271828,
        "Which answer?",
        attributes,
        {name: f"Is it good in {name}?" for name in attributes},
        orders,
        items,
        rows,
        key,
    )


TEN = study_of([(f"Prompt {number}", f"First answer {number}", f"Second answer {number}") for number in range(10)])


# --- without a browser


def block(page: str) -> str:
    """What stands in the block of data."""
    return page.split('type="application/json">')[1].split("</script>")[0]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))) | st.sampled_from(HOSTILE)))
def test_no_text_leaves_its_block_or_changes(texts: list[str]) -> None:
    page = _embedded(texts)
    assert not re.search("[<>&\0-\x1f\x7f-\x9f\u2028\u2029\u202e\ufeff\uffff]", page)
    assert json.loads(page) == texts


def test_the_page_holds_one_script_one_style_and_names_no_other_place() -> None:
    page = page_of(study_of([(text, text, text) for text in HOSTILE]))
    assert len(re.findall("<script", page)) == 2 and page.count("</script>") == 2 and page.count("<style>") == 1
    assert "@POLICY@" not in page.replace(block(page), "") and "@DATA@" not in page.replace(block(page), "")
    code = page.replace(block(page), "")
    assert not re.search(
        r"https?:|//\w+\.|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|fetch\(|XMLHttp|WebSocket| on\w+=| style=",
        code,
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert re.sub(r"sha256-[\w+/]{43}=", "sha256-...", policy[1]) == (
        "default-src 'none'; script-src 'sha256-...'; style-src 'sha256-...'; img-src data:; connect-src 'none'; "
        "base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def test_the_page_knows_neither_systems_nor_checks_nor_the_seed() -> None:
    page = page_of(TEN)
    for secret in ("SYSTEM-ONE", "SYSTEM-TWO", "gold", "swap", "identical", "271828", "i0003"):
        assert secret not in page
    assert set(data_of(TEN)) == {"study", "title", "definitions", "guard", "items", "raters"}
    assert data_of(TEN)["raters"][0]["rows"][3] == [
        "r10003",
        digest("Prompt 3", "Second answer 3", "First answer 3"),
        3,
        1,
    ]


def test_a_lone_surrogate_is_refused_and_no_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rate.html: .*lone surrogate '\\ud83d'"):
        write_page(study_of([("p", "half \ud83d", "b")]), tmp_path / "rate.html")
    assert list(tmp_path.iterdir()) == []


# --- in a browser


@dataclasses.dataclass
class Browser:
    """A browser with its folder of downloads, and what raters do in it."""

    driver: Chrome
    downloads: Path
    folder: Path

    def open(self, study: Study, query: str = "", *, before: str = "", fresh: bool = True) -> None:
        """Show the page of a study; `before` is script that runs before the page's own."""
        path = self.folder / f"{study.id}.html"
        write_page(study, path)
        watch = (
            "globalThis.violations = []; addEventListener('securitypolicyviolation', event => "
            "violations.push(event.violatedDirective));"
        )
        seen = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": watch + before})
        if fresh:
            self.driver.get(f"{path.as_uri()}?rater=nobody")
            self.js("localStorage.clear()")
        self.driver.get("about:blank")
        self.driver.get(path.as_uri() + query)
        self.painted()
        self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": seen["identifier"]})

    def painted(self) -> None:
        """Wait for the first picture of a page: the browser drops keys that come before it."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def js(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.driver).send_keys(getattr(Keys, key, key)).perform()

    def click(self, id: str) -> None:
        self.driver.find_element("id", id).click()

    def text(self, id: str) -> str:
        return str(self.js("return document.getElementById(arguments[0]).textContent", id))

    def shows(self, id: str) -> bool:
        return bool(self.js("return document.getElementById(arguments[0]).offsetParent !== null", id))

    def saved(self) -> bytes:
        """The file that S saves."""
        self.downloads = self.folder / f"downloads-{len(list(self.folder.iterdir()))}"
        self.downloads.mkdir()
        self.driver.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(self.downloads)}
        )
        self.keys("s")
        end = time.monotonic() + 10
        while time.monotonic() < end:
            # the browser reserves the name with an empty file, writes beside it and renames
            for path in self.downloads.glob("*.csv"):
                if content := path.read_bytes():
                    return content
            time.sleep(0.02)
        raise AssertionError(
            f"nothing was downloaded: {list(self.downloads.iterdir())}, {self.text('said')!r}, "
            f"{self.driver.get_log('browser')}"
        )

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.saved().decode("utf-8-sig"), newline="")))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None or CHROMEDRIVER is None:
        reason = (
            f"no {'chromium' if CHROMIUM is None else 'chromedriver'} on this machine (Debian: apt-get install "
            "chromium chromium-driver)"
        )
        if os.environ.get("CI_BROWSER_REQUIRED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS.split(), f"--user-data-dir={folder / 'profile'}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        driver.set_page_load_timeout(30)
        yield Browser(driver, folder, folder)
    finally:
        driver.quit()


def seen(text: str) -> str:
    """What the page shows of a text: signs for what can't be seen."""
    unseen = "\r\n|[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
    return (
        re.sub(unseen, lambda found: "\n" if found[0] == "\r\n" else f"U+{ord(found[0]):04X}", text)
        or "(this text is empty)"
    )


def test_ten_items_rated_by_keyboard_survive_a_reload_and_are_saved_as_chosen(browser: Browser) -> None:
    chosen = [
        (generator(3, "choices", number).choice("123"), generator(4, "choices", number).choice("atb"))
        for number in range(10)
    ]
    meant = {"1": "A", "2": "tie", "3": "B", "a": "A", "t": "tie", "b": "B"}
    browser.open(TEN)
    browser.keys("ENTER")
    for first, second in chosen[:6]:
        browser.keys(first, second, "ENTER")
    browser.driver.refresh()
    browser.painted()
    assert browser.text("count") == "Item 7 of 10 · 6 rated" and browser.text("prompt") == "Prompt 6"
    for first, second in chosen[6:]:
        browser.keys(first, second, "ENTER")
    assert browser.text("end-title") == "All rated. Thank you!"
    content = browser.saved()
    assert content.startswith(b'\xef\xbb\xbf"row_id","study_id",') and content.endswith(b"\r\n")
    cells = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    answered = [
        [*row[:7], meant[first], meant[second], ""]
        for row, (first, second) in zip(sheet_cells(TEN, "rater-1")[1:], chosen, strict=True)
    ]
    assert cells[0] == sheet_cells(TEN, "rater-1")[0] and [row[:-1] for row in cells[1:]] == answered
    assert all(0 <= float(row[-1]) < 60 for row in cells[1:])
    assert [path.name for path in browser.downloads.glob("*.csv")] == [f"{TEN.id}-rater-1.csv"]


def test_nothing_in_a_text_runs_and_all_of_it_is_seen(browser: Browser) -> None:
    texts = [(text, text, HOSTILE[number - 1]) for number, text in enumerate(HOSTILE)]
    study = study_of(texts)
    hostile = dataclasses.replace(study, title=HOSTILE[0], definitions={name: HOSTILE[1] for name in study.attributes})
    browser.driver.get_log("performance")
    browser.driver.get_log("browser")
    browser.open(hostile)
    browser.keys("ENTER")
    for number, (prompt, one, other) in enumerate(texts):
        left, right = (one, other) if number % 2 == 0 else (other, one)
        assert [browser.text(id) for id in ("prompt", "answer-a", "answer-b")] == [
            seen(prompt),
            seen(left),
            seen(right),
        ]
        assert (
            browser.js(
                "return document.querySelectorAll('#rate script, #rate img, #rate a, #rate iframe, #rate b, #rate "
                "svg, #rate style').length"
            )
            == 0
        )
        browser.keys("ARROW_RIGHT")
    assert browser.text("choose-title") == HOSTILE[0] and browser.driver.title == HOSTILE[0]
    assert browser.js("return [typeof globalThis.ran, violations]") == ["undefined", []]
    events = [json.loads(entry["message"])["message"] for entry in browser.driver.get_log("performance")]
    asked = {
        event["params"]["request"]["url"].split("?")[0]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    page = (browser.folder / f"{hostile.id}.html").as_uri()
    assert page in asked and asked <= {page, "data:,", "about:blank"}
    assert browser.driver.get_log("browser") == []


def test_a_script_or_markup_added_by_hand_is_blocked(browser: Browser) -> None:
    browser.open(TEN)
    path = browser.folder / f"{TEN.id}.html"
    path.write_text(
        path.read_text().replace(
            "</main>", f"<script>{RUN}</script><img src=x onerror='{RUN}'><p id=p style='color: red'></p></main>"
        )
    )
    watch = (
        "globalThis.violations = []; addEventListener('securitypolicyviolation', event => "
        "violations.push(event.violatedDirective));"
    )
    added = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": watch})
    browser.driver.refresh()
    browser.painted()
    browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})
    assert {"script-src-elem", "img-src", "style-src-attr"} <= set(browser.js("return violations"))
    assert browser.js("return typeof globalThis.ran") == "undefined"
    assert "TrustedHTML" in browser.js(
        "try { document.body.innerHTML = '<b>x</b>'; return '' } catch (error) { return String(error) }"
    )
    code = (
        "try { Function('return 1')() } catch (error) { String(error) }"  # what selenium runs itself may evaluate text
    )
    tried = browser.driver.execute_cdp_cmd(
        "Runtime.evaluate", {"expression": code, "allowUnsafeEvalBlockedByCSP": False}
    )
    assert tried["result"]["value"].startswith("EvalError")
    assert browser.shows("start")  # and the page works on


def nasty() -> list[str]:
    """Texts that tempt a spreadsheet, and 400 random ones of the same stuff."""
    starts = [
        *DANGEROUS,
        *"'\"",
        "''",
        " ",
        "\u00a0",
        "\u2003",
        "\u200b",
        "\ufeff",
        "\u3000",
        "\x0b",
        "\x1c",
        "\x85",
        "\U0001f600",
        "a",
        ",",
        ";",
        "\r\n",
    ]
    fixed = [
        first + second + rest
        for first in starts
        for second in ("", "'", "=", " ", "x")
        for rest in ("", "=1+1", 'a"b,c\r\nd')
    ]
    draw = generator(5, "nasty")
    return [*fixed, *("".join(draw.choice([*starts, *"=x1"]) for _ in range(draw.randrange(1, 7))) for _ in range(400))]


def test_the_page_saves_the_very_bytes_of_the_sheet_whatever_the_texts_are(browser: Browser) -> None:
    texts = nasty()
    study = study_of([(text, texts[number - 1], texts[number - 2]) for number, text in enumerate(texts)])
    browser.open(study)
    browser.keys("ENTER", "ARROW_RIGHT", "ARROW_LEFT")
    assert browser.saved() == csv_text(sheet_cells(study, "rater-1")).encode("utf-8-sig")


def test_a_comment_is_guarded_and_its_keys_choose_nothing(browser: Browser) -> None:
    browser.open(TEN)
    browser.keys("ENTER", "1", "c", "=1+2; ab", "ESCAPE", "3", "ENTER", "c", 'he said "3"')
    browser.js("document.activeElement.blur()")
    first, second, *_ = browser.rows()
    assert (first["coherence"], first["overall"], first["comment"]) == ("A", "B", "'=1+2; ab")
    assert (second["coherence"], second["overall"], second["comment"]) == ("", "", 'he said "3"')
    assert unguard(first["comment"]) == "=1+2; ab"


def test_choices_are_undone_taken_back_and_skipped(browser: Browser) -> None:
    browser.open(TEN)
    browser.keys("ENTER", "1", "1", "ENTER", "3", "ARROW_LEFT", "u")
    assert browser.text("prompt") == "Prompt 1"  # where the undone choice was made
    browser.keys("u", "2", "ARROW_RIGHT", "n")
    assert browser.text("prompt") == "Prompt 2"
    browser.keys("1", "ENTER")
    assert browser.text("prompt") == "Prompt 2" and "1 of 2 still open" in browser.text("said")  # Enter doesn't skip
    group = browser.driver.find_elements("css selector", "#questions .choices")[0].find_elements("tag name", "button")
    group[2].click()
    group[2].click()
    assert [row["coherence"] + "/" + row["overall"] for row in browser.rows()[:3]] == ["A/tie", "/", "/"]


def test_only_visible_time_counts(browser: Browser) -> None:
    browser.open(TEN)
    hide = (
        "Object.defineProperty(document, 'visibilityState', {{configurable: true, value: '{}'}}); "
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    begin = time.monotonic()
    browser.keys("ENTER", "1")
    browser.js(hide.format("hidden"))
    time.sleep(1.5)
    browser.js(hide.format("visible"))
    time.sleep(0.3)
    browser.keys("1", "ENTER")
    visible = time.monotonic() - begin - 1.5
    seconds = [row["seconds"] for row in browser.rows()]
    assert 0.3 <= float(seconds[0]) <= visible + 0.1 and set(seconds[1:]) == {""}


def test_it_asks_before_leaving_only_with_unsaved_work(browser: Browser) -> None:
    leave = (
        "const event = new Event('beforeunload', {cancelable: true}); dispatchEvent(event); return "
        "event.defaultPrevented"
    )
    browser.open(TEN)
    browser.keys("ENTER")
    asked = [browser.js(leave)]
    browser.keys("1")
    asked.append(browser.js(leave))
    browser.saved()
    assert [*asked, browser.js(leave)] == [False, True, False]


def test_it_says_when_nothing_can_be_kept(browser: Browser) -> None:
    browser.open(TEN)
    assert not browser.shows("unkept")
    browser.open(
        TEN, before="Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') };"
    )
    browser.keys("ENTER", "1")
    assert browser.shows("unkept") and "keeps no work" in browser.text("unkept")
    assert browser.rows()[0]["coherence"] == "A"


def test_each_rater_has_a_sheet_and_work_of_their_own(browser: Browser) -> None:
    study = study_of([("p", "a", "b"), ("q", "c", "d")], raters=3)
    browser.open(study, "?rater=rater-9")
    assert browser.shows("choose") and "rater-9" in browser.text("unknown")
    assert browser.js(
        "return [...document.querySelectorAll('#raters button')].map(each => each.firstChild.textContent)"
    ) == list(study.raters)
    browser.driver.find_elements("css selector", "#raters button")[1].click()
    assert browser.text("who") == "rater-2"
    browser.keys("ENTER", "1")
    row = browser.rows()[0]
    assert (row["rater"], row["overall"], row["coherence"]) == ("rater-2", "A", "")  # rater-2 has the other order
    browser.open(study, "#rater=rater-3", fresh=False)
    assert browser.shows("start") and browser.text("who") == "rater-3"
    browser.open(study, "?rater=rater-2", fresh=False)
    assert browser.shows("rate") and browser.js("return document.querySelectorAll('[aria-pressed=true]').length") == 1


def test_work_on_other_texts_is_not_taken_for_work_on_these(browser: Browser) -> None:
    browser.open(TEN)
    browser.keys("ENTER", "1", "1", "ENTER")
    changed = study_of(
        [("Prompt 0, repaired", "First", "Second"), *((item.prompt, *item.texts) for item in TEN.items[1:])]
    )
    browser.open(dataclasses.replace(changed, id=TEN.id), fresh=False)
    assert {row["coherence"] for row in browser.rows()} == {""}


def test_a_saved_csv_can_be_loaded_on_another_device(browser: Browser, tmp_path: Path) -> None:
    study = study_of([("p", 'a "quoted", text\r\nof two lines', "=b"), ("", "", "d"), ("q", "e", "f")])
    browser.open(study)
    browser.keys("ENTER", "1", "2", "c", '-so, "so"\'', "ESCAPE", "ARROW_RIGHT", "ARROW_RIGHT", "3")
    content = browser.saved()
    (tmp_path / "saved.csv").write_bytes(content)
    browser.open(study)
    browser.keys("ENTER")
    browser.driver.find_element("id", "file").send_keys(str(tmp_path / "saved.csv"))
    end = time.monotonic() + 5
    while "loaded" not in browser.text("said") and time.monotonic() < end:
        time.sleep(0.02)
    again = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    found = browser.rows()
    assert browser.text("said").startswith("Saved") and found[0]["comment"] == "'-so, \"so\"'"
    assert [{**row, "seconds": ""} for row in found] == [{**row, "seconds": ""} for row in again]


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (900, 1000), (360, 640)])
def test_it_fits_the_screen_and_every_control_has_a_name_and_a_size(browser: Browser, width: int, height: int) -> None:
    long = "An answer of some length, with a-word-that-never-ends-" + "x" * 300 + ". "
    study = study_of([(long * 4, long * 3, long * 5)], attributes=("accuracy", "coherence", "coverage", "overall"))
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.open(study)
        browser.keys("ENTER", "1", "2", "3", "3")
        assert browser.js("return document.documentElement.scrollWidth <= innerWidth")
        boxes = browser.js(
            "return ['answer-a', 'answer-b'].map(id => document.getElementById(id).getBoundingClientRect()).map(box "
            "=> [box.left, box.top])"
        )
        stacked = boxes[0][0] == boxes[1][0] and boxes[0][1] < boxes[1][1]
        assert stacked == (width < 760)
        small = (
            "return [...document.querySelectorAll('button')].filter(each => each.offsetParent && "
            "each.getBoundingClientRect().height < 44).map(each => each.id)"
        )
        assert browser.js(small) == []
        nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        controls = [
            node
            for node in nodes
            if node.get("role", {}).get("value") in ("button", "textbox", "progressbar", "group")
            and not node["ignored"]
        ]
        assert len(controls) >= 12 + 4 + 1 + 5 and all(node["name"]["value"] for node in controls)
        assert browser.js(
            "return [...document.querySelectorAll('[aria-pressed=true]')].map(each => each.getAttribute('aria-label'))"
        ) == [
            "Accuracy: answer A is better",
            "Coherence: tie",
            "Coverage: answer B is better",
            "Overall: answer B is better",
        ]
        browser.keys("TAB", "TAB")
        assert browser.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_help_lists_the_keys_and_holds_them(browser: Browser) -> None:
    browser.open(TEN)
    browser.keys("ENTER", "?")
    assert browser.js("return document.getElementById('keys').open") and "Is it good in overall?" in browser.text(
        "keys"
    )
    browser.keys("1")
    browser.keys("?")
    assert not browser.js("return document.getElementById('keys').open") and browser.rows()[0]["coherence"] == ""


def test_what_the_page_saves_is_imported_as_it_was_chosen(browser: Browser, tmp_path: Path) -> None:
    from coh_lightning.human_eval.export import export_study
    from coh_lightning.human_eval.ratings import import_ratings
    from coh_lightning.jsonl import read_jsonl
    from coh_lightning.judgements import Judgement

    for name, turn in (("one", 0), ("two", 1)):
        lines = [
            {"id": f"p{n}", "prompt": f"{n} {text}", "completion": HOSTILE[n - turn] + " " * (1 - turn)}
            for n, text in enumerate(HOSTILE)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({**line, "system": name}) + "\n" for line in lines))
    study = export_study(
        [tmp_path / "one.jsonl", tmp_path / "two.jsonl"],
        tmp_path / "study",
        raters=1,
        attributes=["helpful", "overall"],
        seed=3,
    )
    browser.open(study)
    browser.keys("ENTER")
    rows = study.rater_rows("rater-1")
    words = {"1": 0, "2": "tie", "3": 1}
    chosen = {}
    for number, (row, _) in enumerate(rows):
        systems = study.key["items"][row.item]["systems"]
        shown = [systems[row.left], systems[1 - row.left]]
        for name, key in zip(study.orders["rater-1"], ("123"[number % 3], "123"[number // 3 % 3]), strict=True):
            browser.keys(key)
            chosen[row.row, name] = shown[word] if isinstance(word := words[key], int) else word
        browser.keys("ENTER")
    (tmp_path / "saved.csv").write_bytes(browser.saved())
    imported = import_ratings(tmp_path / "study", [tmp_path / "saved.csv"])
    assert (imported.judgements, imported.missing, imported.foreign, imported.impossible, imported.conflicts) == (
        2 * len(rows),
        (),
        (),
        (),
        (),
    )
    judgements = read_jsonl(tmp_path / "study" / "judgements.jsonl", Judgement)
    assert {(each.row, each.attribute): each.choice for each in judgements} == chosen
