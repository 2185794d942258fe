"""`rate.html`: blind, and shut against whatever a text tries; in a real browser: rating by keys, work that is kept, and
the very CSV that the sheets are.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.human_eval.form import RatingForm
from coh_lightning.human_eval.sheets import (
    DANGEROUS,
    csv_text,
    guard,
    rating_data,
    sheet_cells,
    unguard,
    write_rating_page,
)
from coh_lightning.human_eval.study import DEFINITIONS, RatingRow, Study, StudyItem, digest
from coh_lightning.rng import generator
from helpers.browser import WATCH, Browser
from helpers.completions import study_of_texts
from helpers.rating_page import Rating

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
    f"{{{{constructor.constructor('{RUN}')()}}}} ${{{RUN}}} <%= {RUN} %> #{{{RUN}}} \\u003cscript>",
    "{{ data }} {% raw %} {# a template #}",
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
        StudyItem(f"i{number:04d}", *(prompt, (one, other)), digest(prompt, one, other))
        for number, (prompt, one, other) in enumerate(texts)
    )
    names = [f"rater-{number + 1}" for number in range(raters)]
    rows = tuple(
        RatingRow(f"r{rater[6:]}{number:04d}", item.item, rater, number % 2)
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


def page_of(study: Study, folder: Path) -> tuple[str, str]:
    """The page without its block of data, and the block."""
    before, rest = write_rating_page(study, folder / "rate.html").read_text("utf-8").split('type="application/json">')
    block, after = rest.split("</script>", 1)
    return before + after, block


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))) | st.sampled_from(HOSTILE), min_size=3, max_size=3))
def test_any_text_round_trips_through_the_page_data(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    _, block = page_of(study_of([(texts[0], texts[1], texts[2])]), tmp_path_factory.mktemp("study"))
    assert block.isascii() and block.isprintable() and not re.search("[<>&]", block)
    assert json.loads(block)["items"] == [texts]


def test_the_page_has_one_script_one_style_and_no_external_address(tmp_path: Path) -> None:
    code, block = page_of(study_of([(text, text, text) for text in HOSTILE]), tmp_path)
    assert "<" not in block and code.count("<script") == 2 and code.count("</script>") == 1
    assert code.count("<style>") == 1 and "{{" not in code and "{%" not in code
    assert not re.search(
        r"https?:|//\w+\.|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|fetch\(|XMLHttp|WebSocket"
        r"| on\w+=| style=",
        code,
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', code)
    assert policy is not None
    assert re.sub(r"sha256-[\w+/]{43}=", "sha256-...", policy[1]) == (
        "default-src 'none'; style-src 'sha256-...'; script-src 'sha256-...'; img-src data:; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def test_the_page_has_no_systems_checks_or_seed(tmp_path: Path) -> None:
    for part in page_of(TEN, tmp_path):
        for secret in ("SYSTEM-ONE", "SYSTEM-TWO", "gold", "swap", "identical", "271828", "i0003"):
            assert secret not in part
    keys = {"study", "title", "definitions", "names", "words", "guard", "choices", "items", "raters"}
    asked = {"levels", "reasons", "least", "practice", "rendered", "code", "ranking"}
    assert set(rating_data(TEN)) == keys | asked
    assert rating_data(TEN)["raters"][0]["rows"][3] == [
        "r10003",
        "h" + digest("Prompt 3", "Second answer 3", "First answer 3"),
        3,
        1,
    ]


def test_a_lone_surrogate_is_refused_and_no_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rate.html: .*lone surrogate '\\ud83d'"):
        write_rating_page(study_of([("p", "half \ud83d", "b")]), tmp_path / "rate.html")
    assert list(tmp_path.iterdir()) == []


# --- in a browser


@pytest.fixture
def rating(browser: Browser) -> Rating:
    return Rating(browser)


def seen(text: str) -> str:
    """What the page shows of a text: signs for what can't be seen."""
    unseen = (
        "\r\n|[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
        "\U000e0000-\U000e007f]"
    )
    return (
        re.sub(unseen, lambda found: "\n" if found[0] == "\r\n" else f"U+{ord(found[0]):04X}", text)
        or "(this text is empty)"
    )


def test_ten_items_rated_by_keyboard_survive_a_reload_and_are_saved_as_chosen(rating: Rating) -> None:
    chosen = [
        (generator(3, "choices", number).choice("123"), generator(4, "choices", number).choice("atb"))
        for number in range(10)
    ]
    meant = {"1": "A", "2": "tie", "3": "B", "a": "A", "t": "tie", "b": "B"}
    rating.open(TEN)
    rating.keys("ENTER")
    for first, second in chosen[:6]:
        rating.keys(first, second, "ENTER")
    rating.driver.refresh()
    rating.painted()
    assert rating.text("count") == "Item 7 of 10 · 6 rated" and rating.text("prompt") == "Prompt 6"
    for first, second in chosen[6:]:
        rating.keys(first, second, "ENTER")
    assert rating.text("end-title") == "All rated. Thank you!"
    content = rating.saved()
    assert content.startswith(b'\xef\xbb\xbf"row_id","study_id",') and content.endswith(b"\r\n")
    cells = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    answered = [
        [*row[:7], meant[first], meant[second], ""]
        for row, (first, second) in zip(sheet_cells(TEN, "rater-1")[1:], chosen, strict=True)
    ]
    assert cells[0] == sheet_cells(TEN, "rater-1")[0] and [row[:-1] for row in cells[1:]] == answered
    assert all(0 <= float(row[-1]) < 60 for row in cells[1:])
    assert [path.name for path in rating.downloads.glob("*.csv")] == [f"{TEN.id}-rater-1.csv"]


def test_no_text_is_executed_and_all_of_it_is_visible(rating: Rating) -> None:
    texts = [(text, text, HOSTILE[number - 1]) for number, text in enumerate(HOSTILE)]
    study = study_of(texts)
    hostile = dataclasses.replace(study, title=HOSTILE[0], definitions={name: HOSTILE[1] for name in study.attributes})
    rating.browser.forget()
    path = rating.open(hostile)
    rating.keys("ENTER")
    for number, (prompt, one, other) in enumerate(texts):
        left, right = (one, other) if number % 2 == 0 else (other, one)
        assert [rating.text(id) for id in ("prompt", "answer-a", "answer-b")] == [
            seen(prompt),
            seen(left),
            seen(right),
        ]
        assert (
            rating.js(
                "return document.querySelectorAll('#rate script, #rate img, #rate a, #rate iframe, #rate b, #rate "
                "svg, #rate style').length"
            )
            == 0
        )
        rating.keys("ARROW_RIGHT")
    assert rating.text("choose-title") == HOSTILE[0] and rating.driver.title == HOSTILE[0]
    assert rating.js("return [typeof globalThis.ran, violations]") == ["undefined", []]
    assert rating.browser.requested() == {path.as_uri()} and rating.browser.console() == []


def test_a_script_or_markup_added_by_hand_is_blocked(rating: Rating) -> None:
    path = rating.open(TEN)
    added = f"<script>{RUN}</script><img src=x onerror='{RUN}'><p id=p style='color: red'></p></main>"
    path.write_text(path.read_text().replace("</main>", added))
    with rating.browser.before_its_own_script(WATCH):
        rating.driver.refresh()
        rating.painted()
    assert {"script-src-elem", "img-src", "style-src-attr"} <= set(rating.js("return violations"))
    assert rating.js("return typeof globalThis.ran") == "undefined"
    assert "TrustedHTML" in rating.js(
        "try { document.body.innerHTML = '<b>x</b>'; return '' } catch (error) { return String(error) }"
    )
    code = (
        "try { Function('return 1')() } catch (error) { String(error) }"  # what selenium runs itself may evaluate text
    )
    tried = rating.browser.cdp("Runtime.evaluate", expression=code, allowUnsafeEvalBlockedByCSP=False)
    assert tried["result"]["value"].startswith("EvalError")
    assert rating.shows("start")  # and the page works on


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


def test_the_page_saves_the_same_bytes_as_the_sheet(rating: Rating) -> None:
    texts = nasty()
    study = study_of([(text, texts[number - 1], texts[number - 2]) for number, text in enumerate(texts)])
    rating.open(study)
    rating.keys("ENTER", "ARROW_RIGHT", "ARROW_LEFT")
    assert rating.saved() == csv_text(sheet_cells(study, "rater-1")).encode("utf-8-sig")


def test_a_comment_is_guarded_and_typing_it_makes_no_choice(rating: Rating) -> None:
    rating.open(TEN)
    rating.keys("ENTER", "1", "c", "=1+2; ab", "ESCAPE", "3", "ENTER", "c", 'he said "3"')
    rating.js("document.activeElement.blur()")
    first, second, *_ = rating.rows()
    assert (first["coherence"], first["overall"], first["comment"]) == ("A", "B", "'=1+2; ab")
    assert (second["coherence"], second["overall"], second["comment"]) == ("", "", 'he said "3"')
    assert unguard(first["comment"]) == "=1+2; ab"


def test_choices_can_be_undone_cleared_and_skipped(rating: Rating) -> None:
    rating.open(TEN)
    rating.keys("ENTER", "1", "1", "ENTER", "3", "ARROW_LEFT", "u")
    assert rating.text("prompt") == "Prompt 1"  # where the undone choice was made
    rating.keys("u", "2", "ARROW_RIGHT", "n")
    assert rating.text("prompt") == "Prompt 2"
    rating.keys("1", "ENTER")
    assert rating.text("prompt") == "Prompt 2" and "1 of 2 still open" in rating.text("said")  # Enter doesn't skip
    group = rating.driver.find_elements("css selector", "#questions .choices")[0].find_elements("tag name", "button")
    group[2].click()
    group[2].click()
    assert [row["coherence"] + "/" + row["overall"] for row in rating.rows()[:3]] == ["A/tie", "/", "/"]


def test_only_time_in_a_visible_page_counts(rating: Rating) -> None:
    rating.open(TEN)
    hide = (
        "Object.defineProperty(document, 'visibilityState', {{configurable: true, value: '{}'}}); "
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    begin = time.monotonic()
    rating.keys("ENTER", "1")
    rating.js(hide.format("hidden"))
    time.sleep(1.5)
    rating.js(hide.format("visible"))
    time.sleep(0.3)
    rating.keys("1", "ENTER")
    visible = time.monotonic() - begin - 1.5
    seconds = [row["seconds"] for row in rating.rows()]
    assert 0.3 <= float(seconds[0]) <= visible + 0.1 and set(seconds[1:]) == {""}


def test_leaving_asks_only_if_work_is_unsaved(rating: Rating) -> None:
    leave = (
        "const event = new Event('beforeunload', {cancelable: true}); dispatchEvent(event); return "
        "event.defaultPrevented"
    )
    rating.open(TEN)
    rating.keys("ENTER")
    asked = [rating.js(leave)]
    rating.keys("1")
    asked.append(rating.js(leave))
    rating.saved()
    assert [*asked, rating.js(leave)] == [False, True, False]


def test_the_page_warns_if_storage_is_unavailable(rating: Rating) -> None:
    rating.open(TEN)
    assert not rating.shows("unkept")
    rating.open(
        TEN, before="Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') };"
    )
    rating.keys("ENTER", "1")
    assert rating.shows("unkept") and "keeps no work" in rating.text("unkept")
    assert rating.rows()[0]["coherence"] == "A"


def test_each_rater_has_a_sheet_and_work_of_their_own(rating: Rating) -> None:
    study = study_of([("p", "a", "b"), ("q", "c", "d")], raters=3)
    rating.open(study, "?rater=rater-9")
    assert rating.shows("choose") and "rater-9" in rating.text("unknown")
    assert rating.js(
        "return [...document.querySelectorAll('#raters button')].map(each => each.firstChild.textContent)"
    ) == list(study.raters)
    rating.driver.find_elements("css selector", "#raters button")[1].click()
    assert rating.text("who") == "rater-2"
    rating.keys("ENTER", "1")
    row = rating.rows()[0]
    assert (row["rater"], row["overall"], row["coherence"]) == ("rater-2", "A", "")  # rater-2 has the other order
    rating.open(study, "#rater=rater-3", fresh=False)
    assert rating.shows("start") and rating.text("who") == "rater-3"
    rating.open(study, "?rater=rater-2", fresh=False)
    assert rating.shows("rate") and rating.js("return document.querySelectorAll('[aria-pressed=true]').length") == 1


def test_stored_work_on_other_texts_is_ignored(rating: Rating) -> None:
    rating.open(TEN)
    rating.keys("ENTER", "1", "1", "ENTER")
    changed = study_of(
        [("Prompt 0, repaired", "First", "Second"), *((item.prompt, *item.texts) for item in TEN.items[1:])]
    )
    rating.open(dataclasses.replace(changed, id=TEN.id), fresh=False)
    assert {row["coherence"] for row in rating.rows()} == {""}


def test_a_saved_csv_can_be_loaded_on_another_device(rating: Rating, tmp_path: Path) -> None:
    study = study_of([("p", 'a "quoted", text\r\nof two lines', "=b"), ("", "", "d"), ("q", "e", "f")])
    rating.open(study)
    rating.keys("ENTER", "1", "2", "c", '-so, "so"\'', "ESCAPE", "ARROW_RIGHT", "ARROW_RIGHT", "3")
    content = rating.saved()
    (tmp_path / "saved.csv").write_bytes(content)
    rating.open(study)
    rating.keys("ENTER")
    rating.driver.find_element("id", "file").send_keys(str(tmp_path / "saved.csv"))
    end = time.monotonic() + 5
    while "loaded" not in rating.text("said") and time.monotonic() < end:
        time.sleep(0.02)
    again = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    found = rating.rows()
    assert rating.text("said").startswith("Saved") and found[0]["comment"] == "'-so, \"so\"'"
    assert [{**row, "seconds": ""} for row in found] == [{**row, "seconds": ""} for row in again]


SUMMARY = ("accuracy", "coherence", "coverage", "overall")
SHORT = ("Name a fruit.", "An apple, for example.", "Bananas are a fruit that many people like.")
LONG = ("Summarize this post. " + "The council met about the new bridge. " * 80, "They met. " * 9, "They argued. " * 12)
ARABIC = ("لماذا السماء زرقاء؟ " * 60, "لأن ضوء الشمس يتشتت في الغلاف الجوي.", "לא יודע, אולי בגלל הים.")


def asked(*texts: tuple[str, str, str]) -> Study:
    """A study of summaries, with our own questions."""
    study = study_of(texts, attributes=SUMMARY)
    return dataclasses.replace(study, definitions={name: DEFINITIONS[name] for name in SUMMARY})


def on_screen(rating: Rating, *selectors: str) -> list[str]:
    """Those of the selectors with an element that is not wholly visible between the header and the bar below."""
    code = """
      const top = document.getElementById('bar').getBoundingClientRect().bottom;
      const low = document.getElementById('moves').getBoundingClientRect().top;
      const whole = each => {
        const box = each.getBoundingClientRect(), middle = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
        const front = document.elementFromPoint(...middle);
        return box.top >= top && box.bottom <= low && (each.contains(front) || front?.contains(each));
      };
      return arguments[0].filter(name => ![...document.querySelectorAll(name)].every(whole));"""
    return list(rating.js(code, selectors))


def bar_is_visible(rating: Rating) -> bool:
    return bool(
        rating.js(
            "return ['back', 'next'].every(id => { const box = document.getElementById(id).getBoundingClientRect(); "
            "const front = document.elementFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2); "
            "return box.bottom <= innerHeight && document.getElementById(id).contains(front); })"
        )
    )


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1366, 650), (1920, 1080)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_that_an_item_needs_is_on_the_screen(rating: Rating, width: int, height: int, scheme: str) -> None:
    with rating.browser.scheme(scheme), rating.browser.screen(width, height):
        for texts in (SHORT, LONG, ARABIC):
            rating.open(asked(texts))
            rating.keys("ENTER")
            rating.painted()
            asks = [".choices button", ".question p", "#comment", "#prompt-label", "#a-label", "#b-label"]
            assert on_screen(rating, *asks) == [], texts
            assert bar_is_visible(rating)
            panel = rating.js("const it = document.getElementById('panel'); return it.scrollHeight - it.clientHeight")
            assert panel <= 0
        rating.open(asked(SHORT))
        rating.keys("ENTER")
        assert rating.js("return document.documentElement.scrollHeight <= innerHeight")
        assert not rating.shows("fold") and not rating.shows("jump")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_label_of_the_page_has_contrast(rating: Rating, scheme: str) -> None:
    with rating.browser.scheme(scheme):
        rating.open(dataclasses.replace(asked(("\u200b a prompt", "", "an answer")), title="A title"), "?rater=nobody")
        assert rating.shows("choose") and rating.browser.faint_texts() == []
        rating.driver.find_elements("css selector", "#raters button")[0].click()
        assert rating.shows("start") and rating.browser.faint_texts() == []
        rating.keys("ENTER", "1", "ENTER")
        time.sleep(0.4)  # the toast fades in
        assert rating.browser.faint_texts() == []
        rating.keys("?")
        assert rating.browser.faint_texts() == []
        rating.keys("?", "ARROW_RIGHT")
        assert rating.shows("end") and rating.browser.faint_texts() == []


def test_a_long_prompt_is_folded_for_each_item_and_the_answers_are_one_step_below(rating: Rating) -> None:
    with rating.browser.screen(1280, 800):
        rating.open(asked(LONG, ARABIC, SHORT))
        rating.keys("ENTER")
        folded = rating.js("return document.getElementById('prompt').clientHeight")
        assert rating.shows("fold") and folded < 300 and on_screen(rating, "#a-label", "#b-label") == []
        assert rating.js("return document.getElementById('fold').getAttribute('aria-expanded')") == "false"
        rating.keys("p")
        rating.painted()
        assert rating.js("return document.getElementById('prompt').clientHeight") > 800
        assert rating.js("const it = document.getElementById('prompt'); return it.scrollHeight - it.clientHeight") <= 0
        assert rating.text("fold").split() == ["Fold", "the", "prompt", "P"] and rating.shows("jump")
        assert bar_is_visible(rating)
        rating.driver.find_element("id", "jump").click()
        rating.painted()
        assert on_screen(rating, "#a-label", "#b-label") == [] and bar_is_visible(rating)
        assert not rating.shows("jump")
        rating.keys("ARROW_RIGHT")
        assert rating.shows("fold") and rating.js("return scrollY") == 0
        assert rating.js("return document.getElementById('prompt').clientHeight") < 300
        rating.keys("ARROW_RIGHT")
        assert not rating.shows("fold")


def test_on_a_phone_the_bar_is_visible_and_leads_to_answers_and_questions(rating: Rating) -> None:
    with rating.browser.screen(360, 640):
        rating.open(asked((LONG[0], LONG[1] * 9, LONG[2] * 9)))
        rating.keys("ENTER")
        rating.keys("p")
        rating.painted()
        for target, word in (("answers", "Answers"), ("panel", "Questions")):
            assert bar_is_visible(rating) and rating.text("jump").startswith(word)
            rating.driver.find_element("id", "jump").click()
            rating.painted()
            top = rating.js("return document.getElementById(arguments[0]).getBoundingClientRect().top", target)
            assert 55 <= top <= 120
        assert not rating.shows("jump") and rating.js("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (360, 640)])
def test_after_a_reload_nothing_is_hidden(rating: Rating, width: int, height: int) -> None:
    with rating.browser.screen(width, height):
        rating.open(asked(LONG, LONG))
        rating.keys("ENTER", "1", "2", "p")
        rating.js("scrollTo(0, 500); document.getElementById('panel').scrollTop = 99")
        rating.driver.refresh()
        rating.painted()
        time.sleep(0.3)  # the browser scrolls after its load event, if it does
        assert rating.text("said").startswith("Welcome back") and rating.js("return scrollY") == 0
        assert on_screen(rating, "#prompt-label", "#fold") == [] and bar_is_visible(rating)
        said, *rest = rating.js(
            "return ['#said', '#prompt', '#answers', '#panel', '#moves button'].map(name => "
            "[...document.querySelectorAll(name)].filter(each => each.offsetParent !== null || name === '#said').map("
            "each => { const box = each.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom] }))"
        )
        assert said and not [box for boxes in rest for box in boxes if overlap(said[0], box) and box[1] < height - 60]


def overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1366, 400), (360, 640)])
def test_the_help_opens_at_its_top(rating: Rating, width: int, height: int) -> None:
    with rating.browser.screen(width, height):
        rating.open(asked(SHORT))
        rating.keys("ENTER", "?")
        rating.painted()
        where = "const it = document.getElementById('keys'), box = it.getBoundingClientRect(); return [it.scrollTop, "
        assert rating.js(where + "document.getElementById('keys-title').getBoundingClientRect().top > box.top]") == [
            0,
            True,
        ]
        close = rating.driver.find_element("id", "close")
        assert close.rect["y"] + close.rect["height"] < height  # and closes without scrolling
        close.click()
        assert not rating.js("return document.getElementById('keys').open")


SEMICOLONS = {"delimiter": ";"}


@pytest.mark.parametrize(
    ("encoding", "form"),
    [
        ("utf-8-sig", {}),
        ("utf-8", SEMICOLONS),
        ("utf-8-sig", {"delimiter": "\t"}),
        ("utf-16", SEMICOLONS),
        ("utf-16", {"delimiter": "\t"}),
        ("cp1252", {"delimiter": ";", "quotechar": "'"}),
        ("utf-8", {"delimiter": "|", "lineterminator": "\n"}),
        ("utf-8", {"delimiter": ",", "lineterminator": "\r"}),
    ],
)
def test_a_saved_sheet_of_any_form_that_import_takes_can_be_loaded(
    rating: Rating, tmp_path: Path, encoding: str, form: dict[str, str]
) -> None:
    study = study_of([("p, q; é", 'a "quoted";\ttext, it\'s\r\nof two lines', "=b|c"), ("", "", "d"), ("q", "e", "f")])
    cells = sheet_cells(study, "rater-1")
    head = [" Row ID ", *cells[0][1:]]
    for row, words in zip(
        cells[1:], (("LEFT", "neutral", "=so; é"), ("", "", ""), ("'b", " Answer  A ", "")), strict=True
    ):
        row[-4:-1] = words
    lines = [["Please rate these."], head, *([guard(cell) for cell in row] for row in cells[1:])]
    out = io.StringIO(newline="")
    csv.writer(out, **{"lineterminator": "\r\n", **form}).writerows(lines)  # type: ignore[arg-type]
    text = out.getvalue() if encoding != "utf-16" else f"sep={form['delimiter']}\r\n{out.getvalue()}"
    (tmp_path / "sheet.csv").write_bytes(text.encode(encoding))
    rating.open(study)
    rating.keys("ENTER")
    rating.driver.find_element("id", "file").send_keys(str(tmp_path / "sheet.csv"))
    rating.browser.waited("document.getElementById('said').textContent", "Rated items loaded: 2")
    found = [(row["coherence"], row["overall"], row["comment"]) for row in rating.rows()]
    assert found == [("A", "tie", "'=so; é"), ("", "", ""), ("B", "A", "")]


def test_what_of_a_loaded_sheet_is_left_out_is_said(rating: Rating, tmp_path: Path) -> None:
    cells = sheet_cells(TEN, "rater-1")
    for number, row in enumerate(cells[1:]):
        row[-4:-2] = ["A", "maybe" if number == 0 else "B"]
    cells[3][4] = cells[4][4]  # the prompt of another row: texts were moved
    cells[5][0] = "r999"
    cells[6][3], cells[6][5] = "h0", "Another answer"
    cells[7][5] = "Repaired by a spreadsheet"  # with its right hash
    (tmp_path / "sheet.csv").write_text(csv_text(cells))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "book.csv").write_bytes(b"PK\x03\x04 and more")
    rating.open(TEN)
    rating.keys("ENTER")
    for name, said in (
        ("other.csv", "No line of this file has a column row_id: load a sheet with its header."),
        ("book.csv", "A workbook can't be loaded here: save it as CSV first, or send it back as it is."),
        ("sheet.csv", "Rated items loaded: 7; rows not of this sheet: 3; words that are no choice: 1"),
    ):
        rating.driver.find_element("id", "file").send_keys(str(tmp_path / name))
        rating.browser.waited("document.getElementById('said').textContent", said)
    assert [row["coherence"] for row in rating.rows()] == ["A", "A", "", "A", "", "", "A", "A", "A", "A"]


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (900, 1000), (360, 640)])
def test_the_page_fits_the_screen_and_controls_are_named_and_large_enough(
    rating: Rating, width: int, height: int
) -> None:
    long = "An answer of some length, with a-word-that-never-ends-" + "x" * 300 + ". "
    study = study_of([(long * 4, long * 3, long * 5)], attributes=("accuracy", "coherence", "coverage", "overall"))
    with rating.browser.screen(width, height):
        rating.open(study)
        rating.keys("ENTER", "1", "2", "3", "3")
        assert rating.js("return document.documentElement.scrollWidth <= innerWidth")
        boxes = rating.js(
            "return ['answer-a', 'answer-b'].map(id => document.getElementById(id).getBoundingClientRect()).map(box "
            "=> [box.left, box.top])"
        )
        stacked = boxes[0][0] == boxes[1][0] and boxes[0][1] < boxes[1][1]
        assert stacked == (width < 760)
        small = (
            "return [...document.querySelectorAll('button')].filter(each => each.offsetParent && "
            "each.getBoundingClientRect().height < 44).map(each => each.id)"
        )
        assert rating.js(small) == []
        nodes = rating.browser.cdp("Accessibility.getFullAXTree")["nodes"]
        controls = [
            node
            for node in nodes
            if node.get("role", {}).get("value") in ("button", "textbox", "progressbar", "group")
            and not node["ignored"]
        ]
        assert len(controls) >= 12 + 4 + 1 + 5 and all(node["name"]["value"] for node in controls)
        assert rating.js(
            "return [...document.querySelectorAll('[aria-pressed=true]')].map(each => each.getAttribute('aria-label'))"
        ) == [
            "Accuracy: answer A is better",
            "Coherence: tie",
            "Coverage: answer B is better",
            "Overall: answer B is better",
        ]
        rating.keys("TAB", "TAB")
        assert rating.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_help_lists_the_keys_and_captures_them(rating: Rating) -> None:
    rating.open(TEN)
    rating.keys("ENTER", "?")
    assert rating.js("return document.getElementById('keys').open") and "Is it good in overall?" in rating.text("keys")
    rating.keys("1")
    rating.keys("?")
    assert not rating.js("return document.getElementById('keys').open") and rating.rows()[0]["coherence"] == ""


def test_import_reads_the_choices_saved_by_the_page(rating: Rating, tmp_path: Path) -> None:
    from coh_lightning.feedback.jsonl import read_jsonl
    from coh_lightning.feedback.judgments import Judgment
    from coh_lightning.human_eval.export import export_study
    from coh_lightning.human_eval.ratings import import_ratings

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
    rating.open(study)
    rating.keys("ENTER")
    rows = study.rater_rows("rater-1")
    words = {"1": 0, "2": "tie", "3": 1}
    chosen = {}
    for number, (row, _) in enumerate(rows):
        systems = study.key["items"][row.item]["systems"]
        shown = [systems[row.left], systems[1 - row.left]]
        for name, key in zip(study.orders["rater-1"], ("123"[number % 3], "123"[number // 3 % 3]), strict=True):
            rating.keys(key)
            chosen[row.row, name] = shown[word] if isinstance(word := words[key], int) else word
        rating.keys("ENTER")
    (tmp_path / "saved.csv").write_bytes(rating.saved())
    imported = import_ratings(tmp_path / "study", [tmp_path / "saved.csv"])
    assert (imported.judgments, imported.missing, imported.foreign, imported.invalid, imported.conflicts) == (
        2 * len(rows),
        (),
        (),
        (),
        (),
    )
    judgments = read_jsonl(tmp_path / "study" / "judgments.jsonl", Judgment)
    assert {(each.row, each.attribute): each.choice for each in judgments} == chosen


# --- Markdown and code

MARKDOWN = "# Plan\n\n* **one**\n* `two`\n\n```python\nif x:\n\treturn\n```\n<b>tag</b> [link](https://example.invalid)"


def font(rating: Rating, selector: str) -> str:
    return str(rating.js("return getComputedStyle(document.querySelector(arguments[0])).fontFamily", selector))


def test_answers_are_raw_with_code_in_a_font_of_fixed_width(rating: Rating) -> None:
    rating.open(study_of([("p", MARKDOWN, "no code")]))
    rating.keys("ENTER")
    assert rating.text("answer-a") == MARKDOWN
    found = rating.js("return [...document.querySelectorAll('#answer-a .code')].map(each => each.textContent)")
    assert found == ["`two`", "```python\nif x:\n\treturn\n```"]
    assert "monospace" in font(rating, "#answer-a .code") and "monospace" not in font(rating, "#answer-b")
    programs = study_of([("p", "def f():", "x = 1")])
    rating.open(dataclasses.replace(programs, form=RatingForm(questions="code")))
    rating.keys("ENTER")
    assert "monospace" in font(rating, "#answer-a") and "monospace" not in font(rating, "#prompt")


def test_markdown_is_rendered_on_request_without_html_links_and_images(rating: Rating) -> None:
    study = study_of([("# p", MARKDOWN, ""), *((text, text, text + "!") for text in HOSTILE)])
    rating.browser.forget()
    path = rating.open(dataclasses.replace(study, form=RatingForm(render="markdown")))
    rating.keys("ENTER")
    assert rating.text("prompt") == "# p"  # what was asked stays as it is
    assert rating.js("return [...document.querySelectorAll('#answer-a *')].map(each => each.localName).join(' ')") == (
        "h1 ul li strong li code pre code p"
    )
    assert "<b>tag</b> [link](https://example.invalid)" in rating.text("answer-a")
    assert rating.text("answer-b") == "(this text is empty)" and rating.browser.faint_texts() == []
    code = rating.driver.find_element("css selector", "#answer-a pre")
    assert code.text == "if x:\n        return" or "\treturn" in code.get_attribute("textContent")
    for _ in HOSTILE:
        rating.keys("ARROW_RIGHT")
        assert (
            rating.js("return document.querySelectorAll('.answers :is(script, img, a, iframe, b, svg, style)').length")
            == 0
        )
    assert rating.js("return [typeof globalThis.ran, violations]") == ["undefined", []]
    assert rating.browser.requested() == {path.as_uri()} and rating.browser.console() == []
    rows = rating.rows()
    assert rows[0]["answer_a"] == MARKDOWN  # the sheet has what was written


def test_an_unknown_way_to_show_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Answers can't be shown as 'html'; give raw or markdown"):
        study_of_texts(tmp_path, ["a"], render="html")
