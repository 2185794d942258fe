"""Markdown as HTML that can do nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coh_lightning.pages.markdown import markdown_html

HARMLESS = {
    "p",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "ul",
    "ol",
    "li",
    "pre",
    "code",
    "em",
    "strong",
    "blockquote",
    "hr",
    "br",
}
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](https://example.invalid/x.png)",
    "<https://example.invalid>",
    "[a]: https://example.invalid\n\n[a]",
    '```js" onclick="alert(1)\ncode\n```',
    "<!-- a --> &lt;script&gt; &#60;b&#62;",
    "> " * 200 + "deep",
    "*" * 3000,
    "\x00\u202e\u2028",
)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes |= {f"{name}={value}" for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text() | st.lists(st.sampled_from(HOSTILE) | st.text("*_`#->1. \n", max_size=9)).map("".join))
def test_no_text_gives_anything_but_harmless_elements(text: str) -> None:
    seen = Tags(markdown_html(text))
    assert seen.found <= HARMLESS
    assert all(re.fullmatch(r"start=\d+", attribute) for attribute in seen.attributes)


@pytest.mark.parametrize("text", [HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3], HOSTILE[4], "&lt;b&gt;"])
def test_what_is_not_rendered_stays_as_it_was_written(text: str) -> None:
    seen = Tags(markdown_html(text))
    assert seen.text.strip() == text and seen.found == {"p"}


def test_common_markdown_is_rendered() -> None:
    html = markdown_html("# Title\n\n1. **one**\n2. *two*\n\n```python\nx < 1\n```\n\n> quoted `code`")
    assert html == (
        "<h1>Title</h1>\n<ol>\n<li><strong>one</strong></li>\n<li><em>two</em></li>\n</ol>\n"
        "<pre><code>x &lt; 1\n</code></pre>\n<blockquote>\n<p>quoted <code>code</code></p>\n</blockquote>\n"
    )
