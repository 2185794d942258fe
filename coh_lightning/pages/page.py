"""Every HTML page of the package: a Jinja2 template of `templates/`, rendered to one self-contained file.

    templates/base.html.j2 <── samples.html.j2, preview.html.j2, report.html.j2, rating.html.j2, demo.html.j2
              base.css         samples.css, samples.js, ...             put into the page, never linked

All text in a page may be hostile: every value that a template prints is escaped, and invisible characters become signs
(U+202E). A page loads nothing and sends nothing; its Content-Security-Policy names its one style and its one script by
their hashes, and the browser runs no other.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import counted, visible
from coh_lightning.io import atomic_write
from coh_lightning.pages.markdown import markdown_html

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Render a template and write it atomically; returns `path`. Raises InputError if it can't be written."""
    text = render(template, **values)
    with atomic_write(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")
    return path


def render(template: str, **values: Any) -> str:
    """The page as text. A name that the template uses and `values` lacks is an error."""
    return environment().get_template(template).render(**values)


class _Signs(dict[int, str]):
    """Code point -> how a page shows it, for `str.translate`; filled as characters occur."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        hidden = character not in "\n\t" and visible(character) != character
        self[code] = f'<span class="control">U+{code:04X}</span>' if hidden else character
        return self[code]


_SIGNS = _Signs()


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Jinja2's environment of all pages, imported here since most commands make no page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("coh_lightning.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(policy=_policy, asset=_asset)
    environment.filters.update(
        visible=visible, counted=counted, image=_image, dark_image=_dark_image, markdown=_markdown
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}  # ASCII: no character is hidden in it
    return environment


def _printed(value: Any) -> Any:
    """What a template prints for a value: text becomes HTML, HTML stays."""
    from markupsafe import Markup, escape

    if isinstance(value, str) and not isinstance(value, Markup):
        return Markup(str(escape(value)).translate(_SIGNS))
    return value


def _markdown(text: str) -> Markup:
    """A text in Markdown as HTML, invisible characters as signs."""
    from markupsafe import Markup

    return Markup(markdown_html(text).translate(_SIGNS))


def _policy(style: str, script: str) -> Markup:
    """The Content-Security-Policy of a page with this style and this script ("" for none)."""
    from markupsafe import Markup

    sources = [("style-src", style), *([("script-src", script)] if script else [])]
    hashes = "; ".join(
        f"{name} 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for name, text in sources
    )
    return Markup(
        f"default-src 'none'; {hashes}; img-src data:; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _asset(name: str) -> Markup:
    """A style or a script of `templates/`, as it is."""
    from markupsafe import Markup

    return Markup(resources.files("coh_lightning.pages").joinpath("templates", name).read_text(encoding="utf-8"))


def _image(path: Path) -> str:
    """An SVG file as the address of an image, in which no script runs."""
    return _address(path.read_bytes())


DARK = {
    "#ffffff": "#1c1f23",
    "#343a40": "#e9e6e1",
    "#ced4da": "#4a4f57",
    "#6c757d": "#9aa0a6",
    "#e9ecef": "#31353b",
    "#0b7285": "#74c7d1",
    "#5c636a": "#b9b4ac",
}
"""Colors of figures (human_eval/figures.py) -> those of a page in dark mode (base.css)."""


def _dark_image(path: Path) -> str:
    """The same image for a page in dark mode."""
    content = re.sub(
        rb"#[0-9a-f]{6}\b", lambda found: DARK.get(found[0].decode(), found[0].decode()).encode(), path.read_bytes()
    )
    return _address(content)


def _address(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
