"""A study: who rates which pair of answers, on which side; and its files `items.jsonl`, `study.json` and `key.json`.

Which system wrote which text, which rows are checks, and the seed (which would tell both) are in `key.json` alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.checks import number
from coh_lightning.errors import InputError, named
from coh_lightning.feedback.compressed import read_text
from coh_lightning.feedback.jsonl import parse_json, read_values, write_jsonl
from coh_lightning.feedback.judgments import TIE
from coh_lightning.human_eval.form import DEFAULT_FORM, RatingForm, every_definition
from coh_lightning.io import atomic_write

ITEMS, STUDY, KEY, JUDGMENTS = "items.jsonl", "study.json", "key.json", "judgments.jsonl"

DEFINITIONS = every_definition()
"""Attribute -> what raters are asked, unless the export gives its own words or a set of questions."""

TITLE = "Which answer is better?"

RULES = {
    "min_gold": ("gold", "gold items answered correctly"),
    "min_identical": ("identical", "identical pairs called a tie"),
    "min_consistency": ("swap", "swapped duplicates answered the same way"),
}
"""Exclusion rule -> the check whose share must reach it, and what that share counts."""


HASH_LETTER = "h"
"""Begins a text hash on the sheets. Row ids begin with r, study ids with s."""


def digest(*texts: str) -> str:
    """First 16 hex digits of the SHA-256 of the texts as an ASCII JSON list: ties an answer to the texts shown."""
    return hashlib.sha256(json.dumps(list(texts)).encode("ascii")).hexdigest()[:16]


@dataclass(frozen=True)
class StudyItem:
    """Two answers to one prompt, in an order that reveals nothing: one line of `items.jsonl`."""

    item: str
    prompt: str
    """Without any feedback sentence."""
    texts: tuple[str, ...]
    """Two, or three to five that are ranked."""
    sha: str
    """`digest(prompt, *texts)`."""

    def to_json(self) -> dict[str, Any]:
        return {"item": self.item, "prompt": self.prompt, "texts": list(self.texts), "sha": self.sha}


@dataclass(frozen=True)
class RatingRow:
    """One item shown once to one rater."""

    row: str
    """Unique in the study; reveals neither kind nor systems."""
    item: str
    rater: str
    left: int
    """Index of the text that is shown as A."""
    order: tuple[int, ...] = ()
    """Indices of the texts shown as A, B, C, ... if there are more than two."""

    @property
    def places(self) -> tuple[int, ...]:
        """Indices of the texts as they are shown."""
        return self.order or (self.left, 1 - self.left)

    def shown(self, item: StudyItem) -> tuple[str, ...]:
        """The texts of A, B, ..."""
        return tuple(item.texts[place] for place in self.places)

    def text_hash(self, item: StudyItem) -> str:
        """`digest` of the prompt, A and B, after a letter: without it, spreadsheets read some as numbers (12e4...)."""
        return HASH_LETTER + digest(item.prompt, *self.shown(item))


@dataclass(frozen=True)
class Study:
    """What export makes, and import and report read."""

    id: str
    seed: int
    title: str
    attributes: tuple[str, ...]
    definitions: Mapping[str, str]
    """Attribute -> the sentence that raters read."""
    orders: Mapping[str, tuple[str, ...]]
    """Rater -> order of the attributes on that rater's sheet."""
    items: tuple[StudyItem, ...]
    rows: tuple[RatingRow, ...]
    """In each rater's order."""
    key: Mapping[str, Any]
    """The content of `key.json`."""
    form: RatingForm = DEFAULT_FORM

    @property
    def raters(self) -> tuple[str, ...]:
        return tuple(self.orders)

    def rater_rows(self, rater: str) -> list[tuple[RatingRow, StudyItem]]:
        """The rows of one rater in that rater's order, each with its item."""
        items = {item.item: item for item in self.items}
        return [(row, items[row.item]) for row in self.rows if row.rater == rater]


# --- files


def write_study(study: Study, folder: Path) -> None:
    """Write items.jsonl, study.json and key.json."""
    write_jsonl(folder / ITEMS, study.items)
    blind: dict[str, Any] = {
        "id": study.id,
        "title": study.title,
        "attributes": list(study.attributes),
        "definitions": dict(study.definitions),
        "orders": {rater: list(order) for rater, order in study.orders.items()},
        "rows": [_row_line(row) for row in study.rows],
    }
    if form := study.form.to_json():
        blind["form"] = form
    for name, value in ((STUDY, blind), (KEY, study.key)):
        with atomic_write(folder / name) as aside:
            aside.write_text(json.dumps(value, allow_nan=False, indent=1) + "\n", encoding="utf-8", newline="\n")


def _row_line(row: RatingRow) -> dict[str, Any]:
    line: dict[str, Any] = {"row": row.row, "item": row.item, "rater": row.rater, "left": row.left}
    return line | ({"order": list(row.order)} if row.order else {})


def read_items(folder: Path) -> list[StudyItem]:
    """The items of a study, their texts compared with their hashes."""
    path = _existing(folder, ITEMS)
    items: dict[str, StudyItem] = {}
    for where, value in read_values(path):
        match value:
            case {"item": str(id), "prompt": str(prompt), "texts": [*texts], "sha": str(sha)} if 2 <= len(
                texts
            ) <= 5 and all(isinstance(text, str) for text in texts):
                if (found := digest(prompt, *texts)) != sha:
                    changed = f"the texts of item {id!r:.60} were changed (their hash is {found}, not {sha!r:.20})"
                    raise InputError(f"{where}: {changed}; restore the file.")
                if id in items:
                    raise _not_exported(where, f"it repeats item {id!r:.60}")
                items[id] = StudyItem(id, prompt, tuple(texts), sha)
            case _:
                raise _not_exported(where, "the line doesn't have item, prompt, two to five texts and sha")
    return list(items.values())


def read_key(folder: Path) -> dict[str, Any]:
    """The content of key.json, checked."""
    path = _existing(folder, KEY)
    key = _read_object(path)
    for name, kind in (("study", str), ("seed", int), ("systems", list), ("items", dict), ("rows", dict)):
        if not isinstance(key.get(name), kind):
            raise _not_exported(path, f"the key {name!r} is missing or not of type {kind.__name__}")
    for name, outer, inner in (
        ("systems", list, str),
        ("warnings", list, str),
        ("unmatched", dict, list),
        ("sampling", dict, dict | None),
        ("exclusion", dict, object),
    ):
        value = key.get(name) or outer()
        if not isinstance(value, outer) or not all(
            isinstance(one, inner) for one in (value.values() if isinstance(value, dict) else value)
        ):
            raise _not_exported(path, f"the value of {name!r} has another type")
    for name, bound in (key.get("exclusion") or {}).items():
        if name != "note" and bound is not None:
            number(bound, f"exclusion.{named(name)}", str(path))
    for item, about in key["items"].items():
        match about:
            case {"prompt_id": str(), "systems": [str(), str(), *more]} if about.get("expected") in (None, 0, 1, TIE):
                if all(isinstance(name, str) for name in more) and isinstance(about.get("kind", ""), str):
                    continue
        raise _not_exported(path, f"item {item!r:.60} has no prompt id and two systems")
    for row, about in key["rows"].items():
        match about:
            case {"check": "" | "swap"} if isinstance(about.get("of", ""), str):
                continue
            case {"check": "identical" | "gold"}:
                continue
        raise _not_exported(path, f"row {row!r:.60} has no known check")
    return key


def read_study(folder: Path) -> Study:
    """The study in a folder. Raises InputError if one of its files is missing, damaged, or of another study."""
    items, key, path = read_items(folder), read_key(folder), _existing(folder, STUDY)
    study = _read_object(path)
    match study:
        case {
            "id": str(),
            "title": str(),
            "attributes": [*names],
            "definitions": {**sentences},
            "orders": {**orders},
            "rows": [*_],
        } if all(isinstance(name, str) and isinstance(sentences.get(name), str) for name in names) and all(
            isinstance(order, list) and sorted(map(str, order)) == sorted(names) for order in orders.values()
        ):
            pass
        case _:
            raise _not_exported(path, "it lacks id, title, attributes, definitions, orders or rows")
    if study["id"] != key["study"]:
        raise _mixed(path, f"it is of study {named(study['id'])}, the {KEY} beside it of {named(key['study'])}")
    return Study(
        id=study["id"],
        seed=key["seed"],
        title=study["title"],
        attributes=tuple(study["attributes"]),
        definitions=study["definitions"],
        orders={rater: tuple(order) for rater, order in study["orders"].items()},
        items=tuple(items),
        rows=tuple(_rows(study, {item.item: len(item.texts) for item in items}, key, path)),
        key=key,
        form=RatingForm.from_json(study.get("form", {}), str(path)),
    )


def _rows(
    study: Mapping[str, Any], sizes: Mapping[str, int], key: Mapping[str, Any], path: Path
) -> Iterator[RatingRow]:
    """The rows; `sizes`: item -> number of its texts."""
    for place, line in enumerate(study["rows"]):
        match line:
            case {"row": str(row), "item": str(item), "rater": str(rater), "left": int(left)} if (
                left in (0, 1) or "order" in line
            ):
                pass
            case _:
                raise _not_exported(path, f"rows[{place}] lacks row, item or rater, or its left is not 0 or 1")
        if item not in sizes or item not in key["items"] or row not in key["rows"] or rater not in study["orders"]:
            raise _mixed(path, f"rows[{place}], {row!r:.60}, has no item in {ITEMS} and {KEY}, or no rater")
        order = line.get("order", [])
        shown = order if isinstance(order, list) and len(order) > 2 else [left, 1 - left]
        whole = all(type(one) is int for one in shown) and sorted(shown) == [*range(sizes[item])]
        if not whole or shown[0] != left or len(key["items"][item]["systems"]) != sizes[item]:
            raise _not_exported(path, f"rows[{place}], {row!r:.60}, doesn't show the texts of its item")
        if key["rows"][row]["check"] in ("identical", "gold") and key["items"][item].get("expected") is None:
            raise _mixed(path, f"rows[{place}], {row!r:.60}, is a check without a right answer in {KEY}")
        yield RatingRow(row, item, rater, left, tuple(shown) if len(shown) > 2 else ())


def _not_exported(where: object, what: str) -> InputError:
    return InputError(f"{where}: {what}; this is not the file that export wrote.")


def _mixed(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}; put the files of one export together.")


def _existing(folder: Path, name: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder that human-eval export wrote, with all its files.")
    return path


def _read_object(path: Path) -> dict[str, Any]:
    value = parse_json(read_text(path), str(path), whole=True, unique=True)
    if not isinstance(value, dict):
        raise _not_exported(path, "it is not a JSON object")
    return value
