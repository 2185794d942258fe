"""Broken input of every kind is accepted, or refused with file, line and reason: never a traceback, a hang, a row that is gone without a word, or memory without bound.

    rows         good rows of every format, one to three things in them changed, as JSON lines         accepted + refused = lines, each by its line
    values       the same, what is put in made up by hypothesis, which looks for a smaller example
    files        good files of every kind (json, jsonl, csv, tsv, parquet, txt, each also packed), bytes of them changed
    ...          completions, judgements, studies, sheets, replies of a judge, configurations

What is accepted goes on, in a sample: chains, tokens and trees of every method, or `Unusable`. `make test` plays a share of the cases, `make test-all` all of them
(the counts are in `CASES`); both play the same ones each time. A failure names seed and case.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from feedback_for_tests import METHODS, WORDINGS, method, wording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutants_for_tests import ROWS, line_of, mutated, mutated_bytes, source_of, within
from tokenizers_for_tests import byte_level

import coh_lightning.sources.mix as mix
from coh_lightning.chains import Unusable
from coh_lightning.errors import InputError
from coh_lightning.formats import PromptFormat
from coh_lightning.prepare import Preparer
from coh_lightning.records import Feedback, Rejected
from coh_lightning.sources import Source, load
from coh_lightning.sources.files import read_rows
from coh_lightning.tokens import ChainTokenizer, Encoder

CASES = {"rows": (2600, 68_000), "values": (400, 8_000), "files": (1200, 16_000)}
"""Kind -> cases in `make test`, and in `make test-all` in their place."""
PER_FILE = 20
SECONDS = 10.0
"""For one file; the largest take some milliseconds."""


def share(kind: str) -> pytest.MarkDecorator:
    """The test with the cases of `make test`, and again with all."""
    few, all_of_them = CASES[kind]
    return pytest.mark.parametrize("cases", [few, pytest.param(all_of_them, marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def nothing_stops_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most rows are bad here; that more than half are lost is what `load` would say of all of it."""
    monkeypatch.setattr(mix, "stop_if_half_is_lost", lambda *_: None)


class Tally(Counter[str]):
    """accepted, refused, files refused, ... Neither side may be all of it: then nothing would be tested."""

    def check(self, kind: str, cases: int, *, accepted: float, refused: float) -> None:
        print(f"{kind}: {cases:,} cases, {dict(self)}")
        told = self["accepted"] + self["refused"]
        assert self["accepted"] >= accepted * told and self["refused"] >= refused * told, dict(self)


# ---------------------------------------------------------------------------------------------------------------- feedback


def played(source: Source) -> tuple[list[Feedback], list[Rejected]]:
    """What a run with `on_bad_record: skip` makes of a source."""
    rejected: list[Rejected] = []
    records = load([source], seed=0, on_bad_record="skip", rejected=rejected)
    return records, rejected


def check_told(rejected: Sequence[Rejected], path: Path) -> None:
    """Each names the place and a reason, on one line of bounded length, and can be written down."""
    for one in rejected:
        assert one.where.startswith(str(path)) and one.reason.isprintable() and 0 < len(one.reason) < 1000, one
        assert not one.unreadable or one.reason.startswith(one.where.split(" (")[0]), one
        json.dumps(one.to_json(), ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")  # as write_jsonl does


def lines_named(where: str, path: Path) -> int:
    return int(re.match(rf"{re.escape(str(path))}:(\d+)", where)[1])  # type: ignore[index]


def check_lines(source: Source, path: Path, lines: Sequence[str]) -> tuple[list[Feedback], int]:
    """The records of a file of these lines, after everything that must hold; and how many lines were refused."""
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    records, rejected = played(source)
    check_told(rejected, path)
    kept = {lines_named(where, path) for one in records for where in one.extra.get("merged", [one.where])}
    lost = {lines_named(one.where, path) for one in rejected}
    assert kept | lost == set(range(1, len(lines) + 1)), "a line is gone without a word"
    for one in records:
        bare = dataclasses.replace(one, extra={})
        assert Feedback.from_json(json.loads(json.dumps(bare.to_json())), one.where) == bare
    unreadable = [one.reason for one in rejected if one.unreadable]
    if unreadable:
        with pytest.raises(InputError) as stopped:
            load([source], seed=0)
        assert str(stopped.value) == unreadable[0]
    return records, len(lost)


def found(what: str, seed: int, lines: Sequence[str], check: Callable[[Sequence[str]], Any]) -> Any:
    """check(lines), and of a failure the first single line that fails by itself."""
    try:
        with within(SECONDS, f"{what}, seed {seed}"):
            return check(lines)
    except Exception as error:
        for line in lines:
            try:
                check([line])
            except Exception as alone:
                raise AssertionError(f"{what}, seed {seed}: {type(alone).__name__}: {alone}\n{line[:2000]}") from alone
        raise AssertionError(f"{what}, seed {seed}: {type(error).__name__}: {error}") from error


PREPARERS: list[Preparer] = []


def go_on(record: Feedback, number: int, _: object = None) -> bool:
    """Chains, tokens and trees of a record, with one of the methods and wordings in turn; whether it could be used."""
    if not PREPARERS:
        tokens = ChainTokenizer(Encoder(byte_level()), PromptFormat(), max_prompt_tokens=128)
        spoken = [(one, other) for one in METHODS for other in WORDINGS]
        PREPARERS.extend(Preparer(tokens, method(one), wording(other), seed=0, max_chain_tokens=256, row_tokens=300) for one, other in spoken)
    preparer = PREPARERS[number % len(PREPARERS)]
    try:
        one = preparer.prepare(record)
    except Unusable as unusable:
        assert str(unusable).isprintable()
        return False
    for item in preparer.items(0, one):
        for epoch in (0, 1):
            tree = preparer.tree(one, item, epoch)
            assert 0 < tree.tokens <= 300 and math.isfinite(tree.learned.sum() + tree.unlearned.sum())
    return True


@share("rows")
def test_changed_rows_are_accepted_or_refused_by_line(cases: int, tmp_path: Path) -> None:
    tally = Tally()
    for number in range(cases // PER_FILE):
        chance = Random(f"rows {number}")
        name = list(ROWS)[number % len(ROWS)]
        path = tmp_path / "f.jsonl"
        source = source_of(name, path)
        lines = [line_of(mutated(chance.choice(ROWS[name]), chance), chance) for _ in range(PER_FILE)]
        records, refused = found(name, number, lines, partial(check_lines, source, path))
        tally += Counter(accepted=PER_FILE - refused, refused=refused)
        for record in records[:3]:
            used = found(name, number, [json.dumps(record.to_json())], partial(go_on, record, number))
            tally["usable" if used else "unusable"] += 1
    tally.check("rows", cases, accepted=0.15, refused=0.3)
    assert tally["usable"] > 0.3 * tally["unusable"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@share("values")
def test_whatever_value_stands_in_a_row_is_accepted_or_refused(cases: int, tmp_path: Path) -> None:
    tally = Tally()
    path = tmp_path / "f.jsonl"

    @settings(max_examples=cases, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(list(ROWS)), st.data())
    def play(name: str, data: st.DataObject) -> None:
        row = json.loads(json.dumps(data.draw(st.sampled_from(ROWS[name]))))
        spot = row
        while isinstance(spot, dict | list) and spot:
            key = data.draw(st.sampled_from(list(spot) if isinstance(spot, dict) else range(len(spot))))
            if not isinstance(spot[key], dict | list) or not data.draw(st.booleans()):
                spot[key] = data.draw(st.text(st.characters(codec=None), min_size=1, max_size=30) | json_values)
                break
            spot = spot[key]
        records, refused = check_lines(source_of(name, path), path, [json.dumps(row)])
        tally.update(accepted=1 - refused, refused=refused)
        for record in records[:1]:
            go_on(record, tally.total())

    play()
    tally.check("values", cases, accepted=0.15, refused=0.3)


# ---------------------------------------------------------------------------------------------------------------- files of feedback


def file_of(rows: Sequence[dict[str, Any]], kind: str) -> bytes:
    """The rows as a file of this kind; CSV and TSV of plain rows alone."""
    if kind in ("jsonl", "ndjson"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if kind == "json":
        return json.dumps(rows, indent=1).encode()
    if kind == "parquet":
        out = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), out)
        return out.getvalue()
    if kind == "txt":
        return "\n\n".join(str(row) for row in rows).encode()
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="," if kind == "csv" else "\t", lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return text.getvalue().encode()


FLAT = {
    "trl": [{"prompt": f"Question {n}?", "chosen": f'"Yes", {n}\tand\nso', "rejected": "No ü"} for n in range(4)],
    "kto": [{"prompt": f"Question {n}?", "completion": f"It is {n}.", "label": "true"} for n in range(4)],
    "hh": [{**ROWS["hh"][0], "n": str(n)} for n in range(3)],
    "llmbar": [{"input": f"Why {n}?", "output_1": "So.", "output_2": "No.", "label": "2"} for n in range(4)],
}
KINDS = ("jsonl", "json", "csv", "tsv", "parquet", "ndjson")


@share("files")
def test_changed_files_are_accepted_or_refused_by_line(cases: int, tmp_path: Path) -> None:
    tally = Tally()
    for number in range(cases):
        chance = Random(f"files {number}")
        kind = KINDS[number % len(KINDS)]
        name = chance.choice(list(FLAT if kind in ("csv", "tsv") else ROWS.keys() - {"records"} if kind == "parquet" else ROWS))
        rows = FLAT[name] if kind in ("csv", "tsv") else [chance.choice(ROWS[name]) for _ in range(3)]
        if kind == "parquet":
            rows = [rows[0]] * 3  # its columns have one type each
        packed = chance.random() < 0.4
        content = file_of(rows, kind)
        if not packed or chance.random() < 0.5:
            content = mutated_bytes(content, chance)
        if packed:
            content = gzip.compress(content, mtime=0)
            if chance.random() < 0.5:
                content = mutated_bytes(content, chance, most=2)
        path = tmp_path / f"f.{kind}{'.gz' if packed else ''}"
        path.write_bytes(content)
        source = source_of(name, path)
        try:
            with within(SECONDS, f"files, seed {number}"):
                try:
                    records, rejected = played(source)
                except InputError as error:
                    assert str(error).startswith(str(path)) and str(error).isprintable() and len(str(error)) < 1000, error
                    tally.update(("refused", "whole files refused"))
                    continue
                check_told(rejected, path)
                kept = sum(len(one.extra.get("merged", (one,))) for one in records)
                assert name == "oasst" or kept + len(rejected) == sum(1 for _ in read_rows(path))
                if kind in ("jsonl", "ndjson") and not packed and name != "oasst":
                    assert kept + len(rejected) == sum(bool(line.strip()) for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
                tally["refused" if rejected else "accepted"] += 1
        except Exception as error:
            raise AssertionError(f"files, seed {number} ({name}, {path.name}): {type(error).__name__}: {error}\n{content[:1500]!r}") from error
    tally.check("files", cases, accepted=0.1, refused=0.4)
