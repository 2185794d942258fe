"""`samples.html` and the rows of a W&B table: content, order, figures, and that all text is escaped."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError, counted
from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.samples import asks_in_order, sample_rows
from coh_lightning.generation.samples_page import write_samples
from helpers.browser import Browser

RUN = "globalThis.ran = 1"
HOSTILE = (
    f"</script><script>{RUN}</script>",
    f'<img src=x onerror="{RUN}">',
    f"\"'><svg onload={RUN}>",
    f"</title></style></div></details></article></main><script>{RUN}</script>",
    f'<a href="javascript:{RUN}" autofocus onfocus="{RUN}" tabindex=0>x</a>',
    f"<style>@import 'https://example.com/x'</style><!-- <script>{RUN}</script>",
    f"&lt;script&gt;{RUN}&lt;/script&gt; {{{{ writer }}}} {{% raw %}} {{# ${{x}} \\1",
)


def completion(prompt: str, ask: str, text: str, /, **more: Any) -> Completion:
    """A completion of one of the prompts p0, p1, ... under the condition `ask`."""
    given = {
        "id": f"{prompt}:{ask}",
        "prompt_id": prompt,
        "system": "run",
        "prompt": f"Question {prompt}\n{ask} sentence:",
        "prompt_sha": f"sha {prompt}",
        "ask": ask,
        "marker": f"{ask} sentence:",
        "text": text,
        "stop": "end",
        "completion_tokens": 4,
        "prompt_tokens": 9,
        "shown": f"Question {prompt}",
    }
    return Completion(**{**given, **more})


class Parsed(HTMLParser):
    """A page as a browser reads it: the elements in their order, and the text within those of some class, each with the
    classes around it.
    """

    def __init__(self, page: str, *wanted: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.found: list[tuple[str, str]] = []
        """(class, text) of each element that was wanted, in the order of their ends."""
        self._wanted = wanted
        self._open: list[tuple[str, str, list[str]]] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))
        if tag not in ("meta", "link", "input", "polyline", "circle", "line"):
            self._open.append((tag, dict(attrs).get("class") or tag, []))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("polyline", "circle", "line"):
            return
        opened, kind, text = self._open.pop()
        assert opened == tag
        if set(kind.split()) & set(self._wanted):
            self.found.append((kind, "".join(text)))

    def handle_data(self, data: str) -> None:
        for _, _, text in self._open:
            text.append(data)


def page_of(folder: Path, *rounds: tuple[str, Sequence[Completion]], **more: Any) -> str:
    return write_samples(folder / "samples.html", rounds, **more).read_text(encoding="utf-8")


def found(page: str, *wanted: str) -> list[str]:
    """The text of each element that was wanted, its lines without the empty ones around and between them."""
    return [re.sub(r"\n\s*", "\n", text).strip() for _, text in Parsed(page, *wanted).found]


# --- what is shown, and in which order


def test_each_round_shows_the_conditions_side_by_side_the_newest_round_first(tmp_path: Path) -> None:
    rounds = [
        (f"step {step}", [completion("p0", ask, f"{ask} at {step}") for ask in ("bad", "good")])
        for step in (0, 400, 800)
    ]
    page = page_of(tmp_path, *rounds)
    article = page.split("<article")[1]
    assert (
        found(page, "cell")[0]
        == "good\ngood sentence:\ngood at 800\n4 tokens · stop: endexact prompt · 9 tokensQuestion p0\ngood sentence:"
    )
    assert re.findall(r"(?:good|bad) at \d+", article) == [
        "good at 800",
        "bad at 800",
        "good at 400",
        "bad at 400",
        "good at 0",
        "bad at 0",
    ]
    assert re.findall("<h3>(step .*?)</h3>", article) == ["step 800", "step 400", "step 0"]
    assert "<summary>2 older rounds: step 400, step 0</summary>" in article
    before, within = article.split('<details class="older">')
    assert "good at 800" in before and "good at 400" not in before
    assert "good at 0" in within.split("</details>")[0]


def test_conditions_are_in_pairs_whatever_the_order_of_the_file() -> None:
    asks = [
        "bad",
        "bad accuracy",
        "fresh 10",
        "fresh 2",
        "good",
        "good accuracy",
        "good tone",
        "in French",
        "refined 10",
        "refined 2",
        "",
    ]
    expected = [
        "good",
        "bad",
        "good accuracy",
        "bad accuracy",
        "good tone",
        "in French",
        "",
        "refined 2",
        "fresh 2",
        "refined 10",
        "fresh 10",
    ]
    assert asks_in_order(asks) == expected
    assert asks_in_order(["", "good fortune", "refined", "refined"]) == ["good fortune", "", "refined"]


def test_a_prompt_is_shown_once_with_its_reference_and_the_exact_prompt_folded(tmp_path: Path) -> None:
    rounds = [
        (label, [completion("p0", ask, f"{label} {ask}", reference="As it should be") for ask in ("good", "bad")])
        for label in ("old", "new")
    ]
    page = page_of(tmp_path, *rounds)
    assert found(page, "prompt") == ["Prompt\nQuestion p0\nReference\nAs it should be"]
    assert page.count('<details class="exact">') == 2  # once a column: the older round was given the same prompts
    assert page.count(">good sentence:</div>") == 1


def test_a_prompt_or_sentence_that_changed_is_shown_where_it_did(tmp_path: Path) -> None:
    old = [completion("p0", "good", "old", marker="Once:", prompt="Once upon a prompt")]
    page = page_of(tmp_path, ("old", old), ("new", [completion("p0", "good", "new")]))
    cells = found(page, "cell")
    assert [("Once:" in cell, "Once upon a prompt" in cell) for cell in cells] == [(False, False), (True, True)]


def test_without_shown_the_exact_prompt_is_shown(tmp_path: Path) -> None:
    page = page_of(tmp_path, ("test", [completion("p0", ask, "x", shown=None) for ask in ("good", "bad")]))
    assert "<h3>Prompt, as it is continued under “good”</h3>" in page
    assert found(page, "prompt") == ["Prompt, as it is continued under “good”\nQuestion p0\ngood sentence:"]
    assert found(page, "exact") == ["exact prompt · 9 tokensQuestion p0\nbad sentence:"]


def test_samples_are_numbered_and_missing_ones_are_shown_as_gaps(tmp_path: Path) -> None:
    written = [completion("p0", "good", f"take {n}") for n in range(3)] + [completion("p0", "bad", "only")]
    page = page_of(tmp_path, ("test", written))
    assert re.findall(r"sample \d of \d", page) == ["sample 1 of 3", "sample 2 of 3", "sample 3 of 3"]
    assert "<summary>2 more samples</summary>" in page
    assert found(page, "none") == ["badnothing written"] * 2
    assert re.findall(r"take \d|only", page.split("<article")[1]) == ["take 0", "only", "take 1", "take 2"]


def test_a_completion_shows_its_stop_its_tokens_and_its_scores(tmp_path: Path) -> None:
    cut = completion(
        "p0",
        "good",
        "x",
        stop="length",
        completion_tokens=1,
        scores={"reward": -12.34, "accuracy": 1.0, "tiny": 0.0001, "big": 12345.6},
    )
    page = page_of(tmp_path, ("test", [cut]))
    assert '1 token · <span class="stop">stop: length</span>' in page
    assert found(page, "scores") == ["reward −12.3accuracy 1.000tiny 0.0001big 12,346"]


def test_several_systems_are_named_at_each_completion(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        ("test", [completion("p0", "good", "x", system="before"), completion("p0", "good", "y", system="after")]),
    )
    assert "<h1>What before, after writes</h1>" in page
    assert re.findall(r'<div class="foot">(\w+) ·', page) == ["before", "after"]


def test_an_empty_completion_says_so(tmp_path: Path) -> None:
    assert "(empty)" in found(page_of(tmp_path, ("test", [completion("p0", "good", "")])), "cell")[0]


def test_spaces_tabs_and_line_ends_stay(tmp_path: Path) -> None:
    page = page_of(tmp_path, ("test", [completion("p0", "good", "\n a\t b  \n\nc ")]))
    assert '<div class="text">\n a\t b  \n\nc </div>' in page
    assert "white-space: pre-wrap" in page


def test_control_characters_are_shown_visibly(tmp_path: Path) -> None:
    page = page_of(
        tmp_path, ("test", [completion("p0", "good", "a\x00\x1b[31m\r\n\u202eb\u2028\ud800\U000e0041é👩\u200d🔬")])
    )
    sign = '<span class="control">U+{}</span>'
    expected = (
        "a"
        + sign.format("0000")
        + sign.format("001B")
        + "[31m"
        + sign.format("000D")
        + "\n"
        + sign.format("202E")
        + "b"
    )
    expected += sign.format("2028") + sign.format("D800") + sign.format("E0041") + "é👩\u200d🔬"
    assert f'<div class="text">{expected}</div>' in page


def test_sampling_settings_are_listed_with_all_values(tmp_path: Path) -> None:
    written = [completion("p0", "good", "x", sampling={"temperature": 0.7, "samples": n}) for n in (4, 1)]
    assert '<p class="facts">temperature 0.7, samples 4 or 1</p>' in page_of(tmp_path, ("test", written))


# --- how many


def test_the_page_says_how_many_prompts_it_leaves_out_and_counts_them_in_the_figures(tmp_path: Path) -> None:
    written = [completion(f"p{n}", "good", "x", scores={"s": float(n)}) for n in range(12)]
    page = page_of(tmp_path, ("test", written), limit=5)
    limit = ["5 of 12 prompts are shown, those\nof the newest round first; the figures are over all of them."]
    assert found(page, "limit") == limit
    assert re.findall(r'<a href="#p\d+">\d+</a> · (p\d+)', page) == ["p0", "p1", "p2", "p3", "p4"]
    assert found(page, "facts") == ["test · 12 prompts ·\n1 feedback sentence · 12 completions"]
    assert found(page, "value") == ["5.50", "4.00", "1.000"]
    assert "prompts are shown" not in page_of(tmp_path, ("test", written), limit=12)


def test_prompts_of_the_newest_round_come_first_and_those_of_older_rounds_after_them(tmp_path: Path) -> None:
    old, new = (
        [completion(name, "good", "x") for name in ("b", "a")],
        [completion(name, "good", "x") for name in ("c", "b")],
    )
    page = page_of(tmp_path, ("old", old), ("new", new))
    assert re.findall(r'<a href="#p\d+">\d+</a> · (\w+)', page) == ["c", "b", "a"]
    only_old = page.split("<article")[3]
    assert "<h3>old</h3>" in only_old and '<details class="older">' not in only_old


def test_one_id_with_two_different_prompts_is_two_prompts(tmp_path: Path) -> None:
    written = [
        completion("p0", "good", "x"),
        completion("p0", "good", "y", prompt_sha="another", shown="Another question"),
    ]
    assert page_of(tmp_path, ("test", written)).count("<article ") == 2


# --- figures


def test_the_table_holds_means_and_differences_prompt_by_prompt(tmp_path: Path) -> None:
    written = [
        completion("p0", "good", "x", scores={"s": 0.5}, completion_tokens=10),
        completion("p0", "good", "x", scores={"s": 1.0}, completion_tokens=20, stop="length"),
        completion("p0", "bad", "x", scores={"s": 0.25}, completion_tokens=6),
        completion("p1", "good", "x", scores={"s": 0.0}, completion_tokens=30),
        completion("p1", "bad", "x", completion_tokens=9),
        completion("p2", "bad", "x", scores={"s": 0.75}, completion_tokens=9),
    ]
    page = page_of(tmp_path, ("test", written))
    assert found(page, "value") == ["0.500", "20.0", "0.667", "0.500", "8.00", "1.000", "+0.500", "+15.0", "−0.250"]
    assert re.findall(r'<th scope="col">(.*?)</th>', page) == ["sentence", "s", "tokens", "ended by itself"]


def test_refined_is_compared_with_its_fresh_draw_and_attributes_with_their_own_kind(tmp_path: Path) -> None:
    asks = ["good", "good tone", "bad tone", "refined 2", "fresh 2", "refined 3"]
    page = page_of(tmp_path, ("test", [completion("p0", ask, "x") for ask in asks]))
    assert re.findall(r'<th scope="row">([^<]*−[^<]*)</th>', page) == ["good tone − bad tone", "refined 2 − fresh 2"]


def test_every_measure_has_a_line_over_the_rounds_the_oldest_at_the_left(tmp_path: Path) -> None:
    rounds = [
        (f"step {n}", [completion("p0", "good", "x", scores={"s": value}, completion_tokens=0, stop="")])
        for n, value in enumerate((0.0, 1.0, 0.5))
    ]
    page = page_of(tmp_path, *rounds)
    assert re.findall("<polyline.*?>|<circle.*?>", page) == [
        '<polyline points="3.0,23.0 44.0,3.0 85.0,13.0"/>',
        '<circle cx="85.0" cy="13.0" r="2.2"/>',
    ]
    assert "<title>step 0: 0.000, step 1: 1.000, step 2: 0.500</title>" in page
    assert found(page, "value") == ["0.500"]
    assert found(page, "number") == ["1", "0.500", "1", "1.000", "1", "0.000"]  # round by round, the newest first


def test_a_line_breaks_where_a_round_has_no_value(tmp_path: Path) -> None:
    def wrote(value: float | None) -> list[Completion]:
        scores = {} if value is None else {"s": value}
        return [completion("p0", "good", "x", scores=scores, completion_tokens=0, stop="")]

    page = page_of(tmp_path, *((f"step {n}", wrote(value)) for n, value in enumerate((0.0, 1.0, None, 1.0, None))))
    assert re.findall("<polyline.*?>|<circle.*?>", page) == [
        '<polyline points="3.0,23.0 23.5,3.0"/>',
        '<circle cx="64.5" cy="3.0" r="2.2"/>',
    ]
    assert found(page, "value") == ["–"]


def test_one_round_has_no_lines_and_a_missing_measure_no_column(tmp_path: Path) -> None:
    page = page_of(tmp_path, ("test", [completion("p0", "good", "x", completion_tokens=0, stop="", scores={"s": 1.0})]))
    assert "<polyline" not in page and re.findall(r'<th scope="col">(.*?)</th>', page) == ["sentence", "s"]
    assert "<table>" not in page_of(tmp_path, ("test", [completion("p0", "good", "x", completion_tokens=0, stop="")]))


def test_a_score_with_the_name_of_a_measure_does_not_hide_it(tmp_path: Path) -> None:
    page = page_of(tmp_path, ("test", [completion("p0", "good", "x", scores={"tokens": 0.5})]))
    assert re.findall(r'<th scope="col">(.*?)</th>', page) == [
        "sentence",
        "tokens",
        "tokens (counted)",
        "ended by itself",
    ]


# --- the file


def test_the_same_rounds_give_the_same_bytes_and_nothing_is_left_beside_them(tmp_path: Path) -> None:
    rounds = [("step 0", [completion("p0", ask, "x", scores={"b": 1.0, "a": 2.0}) for ask in ("good", "bad")])]
    first = write_samples(tmp_path / "new" / "samples.html", rounds).read_bytes()
    assert write_samples(tmp_path / "new" / "samples.html", rounds).read_bytes() == first
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["samples.html"]


@pytest.mark.parametrize("rounds", [[], [("step 0", [])], [("step 0", []), ("step 1", [])]])
def test_nothing_to_show_is_refused_and_the_old_page_stays(tmp_path: Path, rounds: list[Any]) -> None:
    (tmp_path / "samples.html").write_text("old")
    with pytest.raises(
        InputError,
        match=rf"samples\.html: there are no completions to show in {counted(len(rounds), 'round')}; write some first",
    ):
        write_samples(tmp_path / "samples.html", rounds)
    assert (tmp_path / "samples.html").read_text() == "old"


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the limit of prompts is 0; it must be at least 1"):
        page_of(tmp_path, ("test", [completion("p0", "good", "x")]), limit=0)


@pytest.mark.parametrize("value", ["high", True, None, float("nan"), float("inf")])
def test_a_non_finite_score_is_refused_with_the_completions_id(tmp_path: Path, value: Any) -> None:
    odd = [completion("p0", "good", "x", scores={"reward": value})]
    for act in (lambda: page_of(tmp_path, ("test", odd)), lambda: sample_rows(odd)):
        with pytest.raises(
            InputError, match=r"The completion 'p0:good' has the score 'reward' = .*; a score must be a finite number"
        ):
            act()


def test_a_page_that_cannot_be_written_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "samples.html").mkdir()
    with pytest.raises(InputError, match=r"samples.html can't be written"):
        page_of(tmp_path, ("test", [completion("p0", "good", "x")]))
    assert [path.name for path in tmp_path.iterdir()] == ["samples.html"]


# --- hostile text


def everywhere(text: str) -> list[tuple[str, list[Completion]]]:
    """Two rounds in which this text stands wherever a text can stand, the asks apart, which decide how much there
    is.
    """
    more: dict[str, Any] = {
        "system": text,
        "marker": text,
        "prompt": text + "!",
        "shown": text or "?",
        "reference": text,
        "stop": text or "?",
        "task": text,
        "source": text,
    }
    more |= {"sampling": {"temperature": text, text: 1}, "scores": {text: 0.5}, "prompt_id": text}
    return [
        (text, [completion("p0", ask, text, **more) for ask in ("good", "bad") for _ in range(2)]) for _ in range(2)
    ]


def skeleton(page: str) -> list[tuple[str, tuple[tuple[str, str | None], ...]]]:
    """All elements with their attributes, but for the signs of control characters and for what stands only where a text
    is long or empty.
    """
    optional = ('class="control"', 'class="empty"')
    return [one for one in Parsed(page).elements if not any(f'{name}="{value}"' in optional for name, value in one[1])]


@settings(max_examples=150, deadline=None)
@given(
    st.text(alphabet=st.characters(categories=["L", "M", "N", "P", "S", "Z", "C"]), min_size=1, max_size=40).filter(
        lambda text: text.strip()
    )
)
def test_no_text_changes_the_elements_of_the_page(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    assert skeleton(page_of(folder, *everywhere(text.replace("\n", " ") or "?"))) == skeleton(
        page_of(folder, *everywhere("x"))
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_a_payload_is_shown_word_for_word(tmp_path: Path, text: str) -> None:
    page = page_of(tmp_path, *everywhere(text))
    assert skeleton(page) == skeleton(page_of(tmp_path, *everywhere("x")))
    texts = [words for kind, words in Parsed(page, "text").found if kind == "text"]
    assert set(texts) == {text, text + "!"} and texts.count(text) == 10  # two of the prompt, eight completions
    assert text not in page or not re.search("[<>&\"']", text)


def test_the_policy_names_the_one_script_and_the_one_style_and_allows_nothing_else(tmp_path: Path) -> None:
    page = page_of(tmp_path, *everywhere(HOSTILE[0]))

    def hashed(element: str) -> str:
        inside = re.findall(f"<{element}>(.*?)</{element}>", page, flags=re.DOTALL)
        assert len(inside) == 1
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()}'"

    policy = re.findall('<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    expected = (
        f"default-src 'none'; style-src {hashed('style')}; script-src {hashed('script')}; img-src data:; base-uri "
        "'none'; form-action 'none'"
    )
    assert policy == [f"{expected}; require-trusted-types-for 'script'; trusted-types 'none'"]
    assert page.index("Content-Security-Policy") < page.index("<link")
    assert not re.search(r"""\bstyle="|\bon\w+="|\bsrc=|https?:""", page)


# --- rows of a table


def test_there_is_one_row_per_completion_in_the_given_order() -> None:
    written = [
        completion("p1", "good", "a", scores={"s": 1}),
        completion("p1", "good", "b", shown=None, stop="length"),
        completion("p0", "bad", "c", scores={"t": 0.5, "s": 0.25}),
    ]
    columns, rows = sample_rows(written)
    assert columns == ["prompt_id", "ask", "sample", "marker", "prompt", "text", "stop", "tokens", "score_s", "score_t"]
    assert rows == [
        ["p1", "good", 1, "good sentence:", "Question p1", "a", "end", 4, 1.0, None],
        ["p1", "good", 2, "good sentence:", "Question p1\ngood sentence:", "b", "length", 4, None, None],
        ["p0", "bad", 1, "bad sentence:", "Question p0", "c", "end", 4, 0.25, 0.5],
    ]
    assert type(rows[0][8]) is float


def test_rows_take_a_label_and_a_reference_where_there_is_one() -> None:
    columns, rows = sample_rows(
        [completion("p0", "good", "a", reference="r"), completion("p1", "good", "b")], label="step 400"
    )
    assert columns == ["round", "prompt_id", "ask", "sample", "marker", "prompt", "text", "stop", "tokens", "reference"]
    assert [(row[0], row[-1]) for row in rows] == [("step 400", "r"), ("step 400", None)]
    assert sample_rows([]) == (["prompt_id", "ask", "sample", "marker", "prompt", "text", "stop", "tokens"], [])


# --- in a browser


def seen(browser: Browser, selector: str) -> list[str]:
    """The texts of the elements that are on view, or would be where one scrolled to them: the browser lays out what is
    off the screen only after its first picture.
    """
    return browser.js(
        "document.querySelectorAll('article').forEach(one => one.style.contentVisibility = 'visible');"
        "return [...document.querySelectorAll(arguments[0])].filter(one => one.checkVisibility()).map(one => "
        "one.innerText)",
        selector,
    )


def rounds_to_look_at() -> list[tuple[str, list[Completion]]]:
    texts = {"good": ("a red fox ran", "a red fox sat down"), "bad": ("no fox", "no fox")}
    return [
        (
            f"step {step}",
            [
                completion(f"p{n}", ask, texts[ask][step] if n == 0 else f"text {n}")
                for n, ask in itertools.product(range(3), texts)
            ],
        )
        for step in range(2)
    ]


def test_no_payload_runs_and_the_network_is_not_used(tmp_path: Path, browser: Browser) -> None:
    for number, text in enumerate(HOSTILE):
        page = write_samples(tmp_path / f"{number}.html", everywhere(text))
        browser.forget()
        browser.show(page.as_uri())
        browser.js("for (const one of document.querySelectorAll('details')) one.open = true")
        ran = browser.js("return [globalThis.ran ?? 0, document.scripts.length, document.images.length]")
        assert ran == [0, 1, 0]
        assert text in seen(browser, ".cell > .text")[0].replace("\xa0", " ")
        assert browser.console() == [] and browser.requested() == {page.as_uri()}


def test_columns_and_rounds_can_be_hidden(tmp_path: Path, browser: Browser) -> None:
    browser.show(write_samples(tmp_path / "samples.html", rounds_to_look_at()).as_uri())
    assert seen(browser, "#p1 .cell > .text") == ["a red fox sat down", "no fox"]
    browser.driver.find_element("css selector", ".tools .tag.bad").click()
    assert seen(browser, "#p1 .cell > .text") == ["a red fox sat down"]
    browser.driver.find_element("xpath", "//button[text()='Unfold older rounds']").click()
    assert seen(browser, "#p1 .cell > .text") == ["a red fox sat down", "a red fox ran"]
    browser.driver.find_element("xpath", "//fieldset//span[text()='step 1']").click()
    assert seen(browser, "#p1 .cell > .text") == ["a red fox ran"]


def test_a_search_shows_the_prompts_that_contain_the_words(tmp_path: Path, browser: Browser) -> None:
    browser.show(write_samples(tmp_path / "samples.html", rounds_to_look_at()).as_uri())
    browser.driver.find_element("css selector", "body").send_keys("/")
    browser.driver.switch_to.active_element.send_keys("TEXT 2")
    assert [one.split(" · ")[1] for one in seen(browser, "h2")] == ["p2"]
    assert seen(browser, ".count") == ["1 of 3 prompts"]


@pytest.mark.parametrize(("choice", "marked"), [("before", ["sat down"]), ("first", ["no"])])
def test_words_that_differ_from_another_text_are_marked(
    tmp_path: Path, browser: Browser, choice: str, marked: list[str]
) -> None:
    browser.show(write_samples(tmp_path / "samples.html", rounds_to_look_at()).as_uri())
    browser.driver.find_element("css selector", f"option[value={choice}]").click()
    browser.waited("[...CSS.highlights.get('changed')].map(String)", marked)
    browser.driver.find_element("css selector", "option[value='']").click()
    browser.waited("CSS.highlights.get('changed').size", 0)


def test_the_page_reads_the_same_without_its_script(tmp_path: Path, browser: Browser) -> None:
    page = write_samples(tmp_path / "samples.html", rounds_to_look_at()).as_uri()
    browser.show(page)
    with_script = seen(browser, "article")
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.driver.get(page)
        assert seen(browser, ".script") == []
        without = seen(browser, "article")
    finally:
        browser.cdp("Emulation.setScriptExecutionDisabled", value=False)
    assert without == with_script and len(without) == 3


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_its_screen(tmp_path: Path, browser: Browser, width: int) -> None:
    asks = ["good", "bad", "good tone", "bad tone", "refined 2", "fresh 2"]
    rounds = [
        (
            f"step {n}",
            [completion("p0", ask, "word " * 60 + "W" * 200, scores={"accuracy": 0.5, "reward": 1.0}) for ask in asks],
        )
        for n in range(20)
    ]
    with browser.screen(width, 800):
        browser.show(write_samples(tmp_path / "samples.html", rounds).as_uri())
        assert browser.js("return document.documentElement.scrollWidth") <= width
