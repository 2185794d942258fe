"""The page shell: what a template prints is escaped, the policy fits the page, and no template reaches elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest

from coh_lightning.errors import InputError
from coh_lightning.pages import page as pages
from helpers.browser import WATCH, Browser

BASE = Path(pages.__file__).parent / "templates"
CHILD = """{% extends "base.html.j2" %}
{% block title %}{{ words | visible }}{% endblock %}
{% block style %}{{ super() }}p { color: red }{% endblock %}
{% block script %}document.body.dataset.ran = "yes"{% endblock %}
{% block body %}<p title="{{ words | visible }}">{{ words }}</p>{% endblock %}
"""
NASTY = "<script>alert(1)</script>\"' &amp; {{ words }} {% raw %} \x1b[31m\u202e\ud83d tab\tend"


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A template of its own over the base: child.html.j2."""
    (tmp_path / "child.html.j2").write_text(CHILD)
    environment = pages.environment()
    monkeypatch.setattr(environment, "loader", jinja2.FileSystemLoader([tmp_path, BASE]))
    environment.cache.clear()
    yield
    environment.cache.clear()


def test_every_value_is_escaped_and_invisible_characters_are_shown(child: None) -> None:
    page = pages.render("child.html.j2", words=NASTY)
    sign = '<span class="control">U+{}</span>'
    shown = "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39; &amp;amp; {{ words }} {% raw %} "
    signs = f"{sign.format('001B')}[31m{sign.format('202E')}{sign.format('D83D')}"
    assert f">{shown}{signs} tab\tend</p>" in page
    attribute = re.search('<p title="([^"]*)"', page)
    assert attribute is not None and attribute[1].startswith(shown) and "<" not in attribute[1]
    assert not set("\x1b\u202e\ud83d") & set(page)


def test_the_policy_has_the_hashes_of_the_pages_style_and_script(child: None) -> None:
    page = pages.render("child.html.j2", words="x")
    for element in ("style", "script"):
        (inside,) = re.findall(f"<{element}>(.*?)</{element}>", page, flags=re.DOTALL)
        sha = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{sha}';" in page


def test_a_missing_value_is_an_error(child: None) -> None:
    with pytest.raises(jinja2.UndefinedError, match="words"):
        pages.render("child.html.j2")


def test_an_unwritable_page_is_refused_naming_the_file(child: None, tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(InputError, match=r"page\.html"):
        pages.write_page(tmp_path / "page.html", "child.html.j2", words="x")


@pytest.mark.parametrize("path", sorted(BASE.glob("*.*")), ids=lambda path: path.name)
def test_no_template_has_an_external_address_or_turns_escaping_off(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|\bon\w+=|\bstyle=|\|\s*safe|autoescape|innerHTML|eval\(", text)
    assert max(map(len, text.splitlines())) <= 120


def test_the_browser_runs_the_pages_script_and_no_other(child: None, tmp_path: Path, browser: Browser) -> None:
    path = pages.write_page(tmp_path / "page.html", "child.html.j2", words=NASTY.replace("\ud83d", ""))
    browser.forget()
    with browser.before_its_own_script(WATCH):
        browser.show(path.as_uri())
    assert browser.js("return [document.body.dataset.ran, violations, document.scripts.length]") == ["yes", [], 1]
    assert browser.console() == [] and browser.requested() == {path.as_uri()}
    path.write_text(path.read_text().replace("</p>", "</p><script>document.body.dataset.ran = 'twice'</script>"))
    with browser.before_its_own_script(WATCH):
        browser.show(path.as_uri())
    assert browser.js("return [document.body.dataset.ran, violations]") == ["yes", ["script-src-elem"]]
    browser.forget()


def test_jinja2_is_imported_only_when_a_page_is_made() -> None:
    code = "import sys, coh_lightning.pages.page, coh_lightning.generation.samples_page; print('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
