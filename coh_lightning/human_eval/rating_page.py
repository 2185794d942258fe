"""`rate.html`: one file to rate in, offline, on a phone or a desktop, which saves the same CSV as the sheets.

    prompts, answers ──JSON──> <script type="application/json"> ──textContent──> the page     (never markup)

It is blind: it holds row ids, text hashes, texts and sides, but neither systems nor checks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import InputError
from coh_lightning.human_eval.guard import PATTERN
from coh_lightning.pages.page import write_page

if TYPE_CHECKING:
    from coh_lightning.human_eval.study import Study


def write_rating_page(study: Study, path: Path | str) -> Path:
    """Write the page for all raters of a study; returns its path.

    Raises:
        InputError: a text has a lone surrogate, which no UTF-8 file can hold; or the page can't be written.
    """
    path, data = Path(path), rating_data(study)
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        broken = ascii(error.object[error.start : error.end])
        raise InputError(
            f"{path}: a text of the study has the lone surrogate {broken}, which UTF-8 can't encode; repair that "
            "completion."
        ) from error
    return write_page(path, "rating.html.j2", data=data)


def rating_data(study: Study) -> dict[str, Any]:
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
