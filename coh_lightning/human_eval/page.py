"""`rate.html`: one file to rate in, offline, from a phone or a desk, which saves the very CSV that the sheets are.

The file holds the texts as JSON in a block that no browser runs, and its one script and one style are named by their
hashes in a strict Content-Security-Policy:

    prompts, answers --JSON--> <script type="application/json"> --textContent--> the page     (never markup, never a request)

It is blind: it knows row ids, text hashes, texts and sides, and neither systems nor checks.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import InputError
from coh_lightning.files import written_aside
from coh_lightning.human_eval.guard import PATTERN

if TYPE_CHECKING:
    from coh_lightning.human_eval.study import Study

POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; connect-src 'none'; base-uri "
    "'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing is loaded, nothing is sent, no other script runs, and no text can become markup."""

_ESCAPED = re.compile(
    "[<>&\x7f-\xa0\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufdd0-\ufdef\ufeff\ufff9-\uffff]"
)
"""What could end the block (`</script>`, `<!--`), or what a parser or an editor could change or hide; JSON has the same
text with an escape.
"""


def write_page(study: Study, path: Path) -> None:
    """Write the page of all raters of a study, aside and renamed at the end.

    Raises:
        InputError: a text has a lone surrogate, which no file can hold.
    """
    path = Path(path)
    try:
        page = page_of(study).encode("utf-8")
    except UnicodeEncodeError as error:
        broken = ascii(error.object[error.start : error.end])
        raise InputError(
            f"{path}: a text of the study has the lone surrogate {broken}, which UTF-8 can't hold; repair that "
            "completion."
        ) from error
    with written_aside(path) as aside:
        aside.write_bytes(page)


def page_of(study: Study) -> str:
    """The page as text: the template with its policy and the study's data."""
    template = resources.files("coh_lightning.human_eval").joinpath("page.html").read_text(encoding="utf-8")
    policy = POLICY.format(
        script=_hash(_inside(template, "<script>", "</script>")), style=_hash(_inside(template, "<style>", "</style>"))
    )
    before, after = template.replace("@POLICY@", policy).split("@DATA@")
    return before + _embedded(data_of(study)) + after


def data_of(study: Study) -> dict[str, Any]:
    """What the page knows of the study: `items` is a list of [prompt, text 0, text 1], a row is [row id, text hash,
    number of its item, index of the text shown as A].
    """
    numbers = {item.item: number for number, item in enumerate(study.items)}
    raters = []
    for name, order in study.orders.items():
        rows = [[row.row, row.text_hash(item), numbers[item.item], row.left] for row, item in study.rater_rows(name)]
        raters.append({"name": name, "order": list(order), "rows": rows})
    return {
        "study": study.id,
        "title": study.title,
        "definitions": dict(study.definitions),
        "guard": PATTERN,
        "items": [[item.prompt, *item.texts] for item in study.items],
        "raters": raters,
    }


def _embedded(data: object) -> str:
    """JSON that stays within its block whatever the texts are."""
    return _ESCAPED.sub(
        lambda found: f"\\u{ord(found[0]):04x}", json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    )


def _inside(text: str, start: str, end: str) -> str:
    return text.split(start, 1)[1].split(end, 1)[0]


def _hash(text: str) -> str:
    """A source of a Content-Security-Policy: the browser runs the text that has this hash, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"
