"""Markdown of anybody as HTML that can do nothing: no raw HTML, no links, no images; all of that stays text.

**bold**, lists, headings, quotes, code     become elements without any attribute but a list's first number
<b>, [a](b), ![a](b), <http://a.b>, &lt;    stay as they were written
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

OFF = ("link", "image", "autolink", "reference", "html_inline", "html_block", "entity")
"""Rules of CommonMark that are switched off."""


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).disable(list(OFF))


def markdown_html(text: str) -> str:
    """A text as HTML. What it says stands in no attribute."""
    parser = _parser()
    tokens = parser.parse(text)
    for token in tokens:
        token.info = ""  # the language of a block of code would become a class
    return str(parser.renderer.render(tokens, parser.options, {}))
