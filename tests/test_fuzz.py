"""Broken input of every kind is accepted, or refused with file, line and reason: never a traceback, a hang, a silently
lost row, or unbounded memory.

    rows      good rows of every format with one to three changes, as JSON lines; accepted + refused = lines
    values    the same with values made up by hypothesis, which shrinks a failure
    files     good files of every kind (json, jsonl, csv, tsv, parquet, txt, each also compressed) with changed bytes
    ...       completions, judgments, studies, sheets, replies of a judge, configurations

A sample of what is accepted is processed further: chains, tokens and trees of every method, or `Unusable`. `make test`
runs a part of the cases, `make test-all` all of them (counts in `CASES`), always the same ones. A failure names seed
and case.
"""

from __future__ import annotations

import bz2
import csv
import dataclasses
import gzip
import io
import json
import lzma
import math
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import coh_lightning.feedback.sources.mix as mix
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl, write_jsonl
from coh_lightning.feedback.judgments import Judgment
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources import Source, load
from coh_lightning.feedback.sources.files import read_rows
from coh_lightning.feedback.sources.texts import read_texts
from coh_lightning.generation.answers import PendingCompletion
from coh_lightning.generation.offline_inference import read_completions
from coh_lightning.human_eval.export import export_study
from coh_lightning.human_eval.items import match, read_gold
from coh_lightning.human_eval.rater_checks import excluded_raters, rater_table
from coh_lightning.human_eval.ratings import import_ratings
from coh_lightning.human_eval.report import report_numbers
from coh_lightning.human_eval.results import read_results
from coh_lightning.human_eval.study import read_study
from coh_lightning.human_eval.systems import read_systems
from coh_lightning.judge.client import Endpoint
from coh_lightning.judge.prompts import JudgedPair, comparisons_of_study, questions
from coh_lightning.judge.report import show
from coh_lightning.judge.run import Reply, judge
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer
from coh_lightning.sequences.chains import Unusable
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.record_planner import RecordPlanner
from helpers.completions import filled, lines_of, own, save
from helpers.feedback import CONF, METHODS, WORDINGS, method, wording
from helpers.mutants import ROWS, line_of, mutated, mutated_bytes, source_of, within
from helpers.tokenizers import byte_level

CASES = {
    "rows": (2600, 64_000),
    "values": (300, 6_000),
    "files": (800, 15_000),
    "texts": (200, 2_000),
    "answers": (300, 4_000),
    "systems": (300, 4_000),
    "judgments": (300, 4_000),
    "sheets": (120, 1_200),
    "studies": (120, 1_200),
    "replies": (160, 600),
    "configurations": (16, 200),
}
"""Kind -> cases in `make test`, and in `make test-all` in their place."""
PER_FILE = 20
SECONDS = 10.0
"""For one file; the largest take some milliseconds."""


def share(kind: str) -> pytest.MarkDecorator:
    """The test with the cases of `make test`, and again with all cases."""
    few, all_of_them = CASES[kind]
    return pytest.mark.parametrize("cases", [few, pytest.param(all_of_them, marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def nothing_stops_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most rows are bad here, and `load` would refuse to lose more than half."""
    monkeypatch.setattr(mix, "stop_if_too_many_are_lost", lambda *_: None)


class Tally(Counter[str]):
    """accepted, refused, files refused, ... Neither may be everything: then nothing would be tested."""

    def check(self, kind: str, cases: int, *, accepted: float, refused: float) -> None:
        print(f"{kind}: {cases:,} cases, {dict(self)}")
        told = self["accepted"] + self["refused"]
        assert self["accepted"] >= accepted * told and self["refused"] >= refused * told, dict(self)


# --- -
# feedback


def played(source: Source) -> tuple[list[Feedback], list[Rejected]]:
    """The result of a source with `on_bad_record: skip`."""
    rejected: list[Rejected] = []
    records = load([source], seed=0, on_bad_record="skip", rejected=rejected)
    return records, rejected


def check_told(rejected: Sequence[Rejected], path: Path) -> None:
    """Each names the place and a reason on one line of bounded length, and can be written to a file."""
    for one in rejected:
        assert one.where.startswith(str(path)) and one.reason.isprintable() and 0 < len(one.reason) < 1000, one
        assert not one.unreadable or one.reason.startswith(one.where.split(" (")[0]), one
        json.dumps(one.to_json(), ensure_ascii=False, allow_nan=False).encode("utf-8")  # as write_jsonl does


def lines_named(where: str, path: Path) -> int:
    return int(re.match(rf"{re.escape(str(path))}:(\d+)", where)[1])  # type: ignore[index]


def check_lines(source: Source, path: Path, lines: Sequence[str]) -> tuple[list[Feedback], int]:
    """The records of a file of these lines after checking them, and the number of refused lines."""
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
    """check(lines); on a failure, the first line that fails by itself."""
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


PLANNERS: list[RecordPlanner] = []


def go_on(record: Feedback, number: int, _: object = None) -> bool:
    """Chains, tokens and trees of a record, with methods and wordings in turn; whether it could be used."""
    if not PLANNERS:
        encoder = Encoder(byte_level())
        shapes = {
            (marked, reviews): ChainTokenizer(
                encoder, PromptFormat(), max_prompt_tokens=128, marked=marked, reviews=reviews
            )
            for marked in (True, False)
            for reviews in (True, False)
        }
        for chosen, words in product(map(method, METHODS), map(wording, WORDINGS)):
            tokens = shapes[chosen.sentences != "none", chosen.reviews]
            PLANNERS.append(RecordPlanner(tokens, chosen, words, seed=0, max_chain_tokens=256, row_tokens=300))
    planner = PLANNERS[number % len(PLANNERS)]
    try:
        one = planner.plan(record)
    except Unusable as unusable:
        assert str(unusable).isprintable()
        return False
    for item in planner.items(0, one):
        for epoch in (0, 1):
            tree = planner.tree(one, item, epoch)
            assert 0 < tree.tokens <= 300 and math.isfinite(tree.learned.sum() + tree.unlearned.sum())
            plain = [planner.tokens.chain(one.prompt, chain) for chain in planner.chains(one, epoch)]
            assert [tree.ids[path].tolist() for path in tree.paths] == [plain[i].ids.tolist() for i in item.chains]
            learned = sum(float(plain[number].learned.sum()) for number in item.chains)
            assert math.isclose(learned, tree.learned.sum(), abs_tol=1e-6)
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
def test_any_value_in_a_row_is_accepted_or_refused(cases: int, tmp_path: Path) -> None:
    tally = Tally()
    path = tmp_path / "f.jsonl"

    @settings(
        max_examples=cases, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
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


# --- files
# of feedback


def file_of(rows: Sequence[dict[str, Any]], kind: str) -> bytes:
    """The rows as a file of this kind; CSV and TSV only of plain rows."""
    if kind in ("jsonl", "ndjson"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if kind == "json":
        return json.dumps(rows, indent=1).encode()
    if kind == "parquet":
        out = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), out)
        return out.getvalue()
    if kind == "arrow":
        table, out = pyarrow.Table.from_pylist(list(rows)), io.BytesIO()
        with pyarrow.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=1)
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
KINDS = ("jsonl", "json", "csv", "tsv", "parquet", "ndjson", "arrow")
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": partial(gzip.compress, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pyarrow.Codec("zstd").compress(content, asbytes=True),
}


@share("files")
def test_changed_files_are_accepted_or_refused_by_line(cases: int, tmp_path: Path) -> None:
    tally = Tally()
    for number in range(cases):
        chance = Random(f"files {number}")
        kind = KINDS[number % len(KINDS)]
        name = chance.choice(
            list(
                FLAT if kind in ("csv", "tsv") else ROWS.keys() - {"records"} if kind in ("parquet", "arrow") else ROWS
            )
        )
        rows = FLAT[name] if kind in ("csv", "tsv") else [chance.choice(ROWS[name]) for _ in range(3)]
        if kind in ("parquet", "arrow"):
            rows = [rows[0]] * 3  # their columns have one type each
        packed = chance.choice(list(PACKERS)) if chance.random() < 0.4 else ""
        content = file_of(rows, kind)
        if not packed or chance.random() < 0.5:
            content = mutated_bytes(content, chance)
        if packed:
            content = PACKERS[packed](content)
            if chance.random() < 0.5:
                content = mutated_bytes(content, chance, most=2)
        path = tmp_path / f"f.{kind}{f'.{packed}' if packed else ''}"
        path.write_bytes(content)
        source = source_of(name, path)
        try:
            with within(SECONDS, f"files, seed {number}"):
                try:
                    records, rejected = played(source)
                except InputError as error:
                    assert str(error).startswith(str(path)) and str(error).isprintable() and len(str(error)) < 1000, (
                        error
                    )
                    tally.update(("refused", "whole files refused"))
                    continue
                check_told(rejected, path)
                kept = sum(len(one.extra.get("merged", (one,))) for one in records)
                assert name == "oasst" or kept + len(rejected) == sum(1 for _ in read_rows(path))
                if kind in ("jsonl", "ndjson") and not packed and name != "oasst":
                    assert kept + len(rejected) == sum(
                        bool(line.strip()) for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
                    )
                tally["refused" if rejected else "accepted"] += 1
        except Exception as error:
            raise AssertionError(
                f"files, seed {number} ({name}, {path.name}): {type(error).__name__}: {error}\n{content[:1500]!r}"
            ) from error
    tally.check("files", cases, accepted=0.1, refused=0.4)


@share("texts")
def test_changed_pretraining_texts_are_read_or_refused(cases: int, tmp_path: Path) -> None:
    tally = Tally()
    for number in range(cases):
        chance = Random(f"texts {number}")
        kind = chance.choice(("txt", "jsonl", "json", "csv", "parquet"))
        content = mutated_bytes(file_of([{"text": f"It rained on day {n}.\nü"} for n in range(4)], kind), chance)
        packed = chance.random() < 0.3
        path = tmp_path / f"t.{kind}{'.gz' if packed else ''}"
        path.write_bytes(mutated_bytes(gzip.compress(content), chance) if packed else content)
        try:
            with within(SECONDS, f"texts, seed {number}"):
                try:
                    assert all(text.strip() for text in read_texts(str(path)))
                    tally["accepted"] += 1
                except InputError as error:
                    told(error, path)
                    tally["refused"] += 1
        except Exception as error:
            raise AssertionError(
                f"texts, seed {number} ({path.name}): {type(error).__name__}: {error}\n{content[:1500]!r}"
            ) from error
    tally.check("texts", cases, accepted=0.1, refused=0.3)


REAL = {
    "hh": "hh_harmless_1000",
    "oasst": "oasst_en_100_trees",
    "pandalm": "pandalm_200",
    "summeval": "summeval_20",
    "feedbackqa": "feedbackqa_who_train",
    "defacto": "defacto_train",
    "llmbar": "llmbar_natural_100",
    "kto": "kto_en_demo_300",
    "dpo": "dpo_en_demo_300",
    "hh_helpful_ai": "hh_helpful_ai_pref_363",
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL)
def test_changed_rows_of_real_data_are_accepted_or_refused_by_line(name: str, real_data: Path, tmp_path: Path) -> None:
    with gzip.open(real_data / f"{REAL[name]}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, 20)]
    tally = Tally()
    path = tmp_path / "f.jsonl"
    source = source_of(name, path)
    for number in range(15):
        chance = Random(f"real {name} {number}")
        lines = [line_of(mutated(chance.choice(rows), chance), chance) for _ in range(PER_FILE)]
        records, refused = found(f"real {name}", number, lines, partial(check_lines, source, path))
        tally += Counter(accepted=PER_FILE - refused, refused=refused)
        for record in records[:2]:
            found(name, number, [json.dumps(record.to_json())], partial(go_on, record, number))
    tally.check(f"real rows of {name}", 15 * PER_FILE, accepted=0.05, refused=0.1)


# --- -
# completions, judgments, studies


def told(error: InputError, path: Path, *, lines: int = 1) -> None:
    """A refusal names a file of the folder, and has no more lines than it may, each of bounded length."""
    assert (
        str(path) in str(error)
        or str(error).startswith("None of the completions")
        or any(words in str(error) for words in (" no prompt id in common", " ids have different prompts"))
    ), error
    assert len(str(error).split("\n")) <= lines and all(
        line.isprintable() and len(line) < 1500 for line in str(error).split("\n")
    ), error


def lines_or_bytes(lines: Sequence[Any], chance: Random) -> bytes:
    """Lines of JSON, one to three of them changed as values or bytes; or all unchanged."""
    lines = list(lines)
    kind = chance.random()
    if kind < 0.7:
        for _ in range(chance.choice((1, 1, 2))):
            place = chance.randrange(len(lines))
            lines[place] = mutated(lines[place], chance)
    if 0.6 < kind < 0.7 and len(lines) > 1:
        lines.insert(chance.randrange(len(lines)), chance.choice(lines))
    content = "".join(line_of(line, chance if kind < 0.7 else None) + "\n" for line in lines).encode()
    return mutated_bytes(content, chance) if 0.7 < kind < 0.97 else content


def each(
    kind: str,
    cases: int,
    path: Path,
    lines: Sequence[Any],
    read: Callable[[], Any],
    *,
    accepted: float,
    refused: float,
    most_lines: int = 1,
) -> None:
    """Runs the cases of one kind of JSON-lines file; `read` checks what was read."""
    tally = Tally()
    for number in range(cases):
        content = lines_or_bytes(lines, Random(f"{kind} {number}"))
        path.write_bytes(content)
        try:
            with within(SECONDS, f"{kind}, seed {number}"):
                try:
                    read()
                    tally["accepted"] += 1
                except InputError as error:
                    told(error, path, lines=most_lines)
                    tally["refused"] += 1
        except Exception as error:
            raise AssertionError(
                f"{kind}, seed {number}: {type(error).__name__}: {error}\n{content[:3000]!r}"
            ) from error
    tally.check(kind, cases, accepted=accepted, refused=refused)


BLANKS = [
    PendingCompletion(
        Completion(
            f"{n}:good:0",
            str(n),
            "run",
            f"<s>Name {n}.",
            f"sha {n}",
            "good",
            "A good answer:",
            "",
            sampling={"temperature": 0.7},
            reference="Apple",
        ),
        (1, 20 + n),
        lead=" ",
    )
    for n in range(3)
]


@share("answers")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_foreign_completions_are_accepted_or_refused(cases: int, tmp_path: Path) -> None:
    plain = [
        {
            "id": one.completion.id,
            "prompt_sha": one.completion.prompt_sha,
            "completion": " An apple",
            "finish_reason": "stop",
        }
        for one in BLANKS
    ]
    usage = {"completion_tokens": 3, "prompt_tokens": 2}
    served = [
        {
            "id": "b",
            "custom_id": one.custom_id,
            "response": {
                "status_code": 200,
                "body": {"choices": [{"text": " An apple", "finish_reason": "length"}], "usage": usage},
            },
            "error": None,
        }
        for one in BLANKS
    ]
    path = tmp_path / "answers.jsonl"

    def read() -> None:
        got = read_completions(path, BLANKS, count=lambda text: len(text.split()), stop=("A good answer:",))
        assert [one.id for one in got] == [one.completion.id for one in BLANKS]
        write_jsonl(tmp_path / "completions.jsonl", got)
        assert list(read_jsonl(tmp_path / "completions.jsonl", Completion)) == got

    for name, lines in (("plain", plain), ("served", served)):
        each(f"answers, {name}", cases // 2, path, lines, read, accepted=0.05, refused=0.3, most_lines=6)


@share("systems")
def test_completion_files_of_a_study_are_accepted_or_refused(cases: int, tmp_path: Path) -> None:
    other = lines_of(
        tmp_path / "y.jsonl", [{"id": f"p{n}", "prompt": f"Question {n}?", "completion": f"y {n}"} for n in range(4)]
    )
    forms: dict[str, list[dict[str, Any]]] = {
        "plain": [
            {"id": f"p{n}", "prompt": f"Question {n}?", "completion": f"x {n}", "reference": "so"} for n in range(4)
        ],
        "own": [own(f"p{n}", f"x {n}", shown=f"Question {n}?", prompt_sha=None) for n in range(4)],
        "gold": [{"id": f"g{n}", "prompt": f"{n} + {n}?", "good": str(2 * n), "bad": "no"} for n in range(4)],
        "dialogue": [
            {
                "id": f"d#{n}",
                "prompt": [{"role": "user", "content": "Hi"}] if n == 1 else [{"role": "user", "content": "Why?"}],
                "completion": "So.",
            }
            for n in (1, 2)
        ],
    }

    def read(name: str, path: Path) -> None:
        if name == "gold":
            assert len(read_gold(path)) == lines_in(path)
            return
        systems = (
            read_systems([path, other], seed=0, dialogues=False)
            if name != "dialogue"
            else read_systems([path], seed=0, dialogues=True)
        )
        if name != "dialogue":
            matched = match(systems, seed=0)
            for system in systems:
                paired = {pair.prompt_id for pair in matched.pairs if system.name in pair.systems}
                assert paired | set(matched.unmatched[system.name]) == set(system.outputs)

    for name, lines in forms.items():
        path = tmp_path / "x.jsonl"
        each(f"systems, {name}", cases // 4, path, lines, partial(read, name, path), accepted=0.05, refused=0.2)


def lines_in(path: Path) -> int:
    return sum(bool(line.strip()) for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"))


JUDGED = [
    Judgment("i1", f"r{n}", "p1", "rater-1", "overall", choice, ("x", "y"), seconds=2.5, comment="so").to_json()
    for n, choice in enumerate(("x", "y", "tie"))
]


@share("judgments")
def test_judgments_and_completions_are_read_or_refused(cases: int, tmp_path: Path) -> None:
    completions = [replace(one.completion, text="Apple", scores={"polite": 0.5}).to_json() for one in BLANKS]
    kinds: tuple[tuple[type[Completion] | type[Judgment], list[Any]], ...] = (
        (Judgment, JUDGED),
        (Completion, completions),
    )
    for kind, lines in kinds:
        path = tmp_path / f"{kind.__name__}.jsonl"

        def read(kind: type[Completion] | type[Judgment] = kind, path: Path = path) -> None:
            found = list(read_jsonl(path, kind))
            assert len(found) == lines_in(path)
            write_jsonl(tmp_path / "again.jsonl", found)
            assert list(read_jsonl(tmp_path / "again.jsonl", kind)) == found

        each(f"judgments, {kind.__name__}", cases // 2, path, lines, read, accepted=0.05, refused=0.3)


@pytest.fixture(scope="module")
def a_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two systems by two raters, and their sheets in every form in `filled`."""
    folder = tmp_path_factory.mktemp("study")
    files = [
        lines_of(
            folder / f"{name}.jsonl",
            [{"id": f"p{n}", "prompt": f"Question {n}?", "completion": f"{name}; {n}\n- so"} for n in range(4)],
        )
        for name in "xy"
    ]
    gold = lines_of(folder / "gold.jsonl", [{"id": "g", "prompt": "2 + 2?", "good": "4", "bad": "5"}])
    study = export_study(files, folder / "study", raters=2, overlap=99, attributes=("accuracy", "overall"), gold=gold)
    cells = filled(study, "rater-1", lambda attribute, prompt, a, b: "tie" if attribute == "overall" else "A")
    (folder / "filled").mkdir()
    save(folder / "filled" / "sheet.csv", cells)
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in cells:
        book.active.append(row)
        for cell in book.active[book.active.max_row]:
            cell.data_type = "s"
    book.save(folder / "filled" / "sheet.xlsx")
    rows = [(row.row, row.text_hash(item)) for row, item in study.rater_rows("rater-1")]
    tasks = [
        {
            "data": {"row_id": row, "text_hash": sha},
            "annotations": [
                {
                    "completed_by": 3,
                    "lead_time": 7.5,
                    "result": [{"type": "choices", "from_name": "overall", "value": {"choices": ["A"]}}],
                }
            ],
        }
        for row, sha in rows
    ]
    (folder / "filled" / "label_studio.json").write_text(json.dumps(tasks))
    labels = {
        row: [[{"schema": "comparison", "name": "overall"}, "A"], [{"schema": "comment", "name": "c"}, "so"]]
        for row, _ in rows
    }
    state = {
        "instance_id_to_label_to_value": labels,
        "instance_id_to_behavioral_data": {row: {"total_time_ms": 9000} for row, _ in rows},
    }
    (folder / "filled" / "user_state.json").write_text(json.dumps(state))
    return folder


def changed_file(content: bytes, name: str, chance: Random) -> bytes:
    """A file changed as a value if it is JSON, or as bytes; an archive sometimes in one of its members."""
    if name.endswith(".json") and chance.random() < 0.7:
        return line_of(mutated(json.loads(content), chance), chance).encode()
    if name.endswith(".xlsx") and chance.random() < 0.8:
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
            names = old.namelist()
            hit = chance.choice([one for one in names if "sheet1" in one or "shared" in one.lower()] * 4 + names)
            for one in names:
                new.writestr(one, mutated_bytes(old.read(one), chance) if one == hit else old.read(one))
        return out.getvalue()
    return mutated_bytes(content, chance)


@share("sheets")
def test_changed_rating_files_are_accepted_or_refused(cases: int, a_study: Path, tmp_path: Path) -> None:
    tally = Tally()
    study = read_study(a_study / "study")
    sent = sorted((a_study / "filled").iterdir())
    for number in range(cases):
        chance = Random(f"sheets {number}")
        one = sent[number % len(sent)]
        path = tmp_path / one.name
        path.write_bytes(changed_file(one.read_bytes(), one.name, chance))
        folder = a_study / "study"
        (folder / "judgments.jsonl").unlink(missing_ok=True)
        try:
            with within(SECONDS, f"sheets, seed {number}"):
                try:
                    imported = import_ratings(folder, [path])
                except InputError as error:
                    told(error, path)
                    tally["refused"] += 1
                    continue
                sentences = (
                    *imported.invalid,
                    *imported.foreign,
                    *imported.conflicts,
                    *imported.duplicates,
                    *imported.missing,
                )
                assert all(sentence.isprintable() and len(sentence) < 1500 for sentence in sentences), sentences
                assert imported.judgments <= imported.expected and (imported.refused > 0) == bool(
                    imported.invalid or imported.foreign or imported.conflicts
                )
                # an answer that is not counted is reported as bad or as missing
                assert imported.judgments + len(imported.missing) > 0
                if imported.judgments:
                    assert len(list(read_jsonl(folder / "judgments.jsonl", Judgment))) == imported.judgments
                tally["refused" if imported.refused else "accepted"] += 1
        except Exception as error:
            raise AssertionError(f"sheets, seed {number} ({one.name}): {type(error).__name__}: {error}") from error
    assert len(study.rows)
    tally.check("sheets", cases, accepted=0.1, refused=0.3)


@share("studies")
def test_a_study_with_a_damaged_file_is_read_or_refused(cases: int, a_study: Path, tmp_path: Path) -> None:
    tally = Tally()
    folder = tmp_path / "study"
    shutil.copytree(a_study / "study", folder)
    sheet = a_study / "filled" / "sheet.csv"
    (folder / "judgments.jsonl").unlink(missing_ok=True)
    import_ratings(folder, [sheet])
    names = ("key.json", "study.json", "items.jsonl", "judgments.jsonl")
    whole = {name: (folder / name).read_bytes() for name in names}
    for number in range(cases):
        chance = Random(f"studies {number}")
        name = names[number % len(names)]
        for each_name, content in whole.items():
            (folder / each_name).write_bytes(content)
        lines = [json.loads(line) for line in whole[name].splitlines()] if name.endswith(".jsonl") else []
        (folder / name).write_bytes(lines_or_bytes(lines, chance) if lines else changed_file(whole[name], name, chance))
        try:
            with within(SECONDS, f"studies, seed {number}"):
                try:
                    import_ratings(folder, [sheet])
                    comparisons_of_study(read_study(folder))
                    answers = read_results(folder)
                    table = rater_table(answers)
                    excluded_raters(table, answers.key.get("exclusion") or {})
                    if number % 10 == 0:
                        report_numbers(answers)
                    tally["accepted"] += 1
                except InputError as error:
                    assert (
                        any(one in str(error) for one in names) and str(error).isprintable() and len(str(error)) < 1500
                    ), error
                    tally["refused"] += 1
        except Exception as error:
            raise AssertionError(
                f"studies, seed {number} ({name}): {type(error).__name__}: "
                f"{error}\n{(folder / name).read_bytes()[:3000]!r}"
            ) from error
    tally.check("studies", cases, accepted=0.05, refused=0.3)


@share("replies")
def test_changed_judge_records_are_read_or_refused(cases: int, tmp_path: Path) -> None:
    compared = [JudgedPair(f"i{n}", f"p{n}", f"Question {n}?", ("x", "y"), (f"x {n}", f"y {n}")) for n in range(3)]
    asked = questions(compared, {"overall": "Which is better?"}, model="m", seed=0)
    nobody = Endpoint("http://127.0.0.1:1/v1", attempts=1, timeout=0.1)
    output = tmp_path / "judgments.jsonl"
    log = tmp_path / "judgments.jsonl.replies.jsonl"
    replies = [Reply(one.row, "A", "Verdict: A", 0.5).to_json() for one in asked]

    def read(kept: Path) -> None:
        for path in (output, log):
            if path != kept:
                path.unlink(missing_ok=True)
        try:
            show(judge(asked, nobody, {"model": "m"}, output=output, progress=False))
        except InputError as error:
            if "can't be reached" not in str(error):  # a lost reply is requested again
                raise

    each("replies, log", cases // 2, log, replies, partial(read, log), accepted=0.05, refused=0.2)
    each(
        "replies, judgments",
        cases // 2,
        output,
        [one.judgment("A", 0.5).to_json() for one in asked],
        partial(read, output),
        accepted=0.05,
        refused=0.2,
    )


# --- -
# configurations


@share("configurations")
def test_changed_configurations_are_built_or_refused_in_one_line(
    cases: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Builds the Trainer, the data module and the module through the real parser, without running them."""
    from coh_lightning.__main__ import main
    from coh_lightning.cli import lightning_cli as cli

    files = [
        CONF / "quickstart.yaml",
        *sorted((CONF / "data").glob("*.yaml")),
        *sorted((CONF / "callbacks").glob("*.yaml")),
        *sorted((CONF / "experiment").glob("world_*.yaml")),
    ]
    for kind in ("method", "wording"):
        (tmp_path / kind).symlink_to(CONF / kind)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COH_REAL_DATA", str(tmp_path))
    monkeypatch.setattr(cli.CoHCLI, "_run_subcommand", lambda self, command: None)
    tally = Tally()
    for number in range(cases):
        chance = Random(f"configurations {number}")
        content = files[number % len(files)].read_bytes()
        if chance.random() < 0.7:
            content = yaml.safe_dump(mutated(yaml.safe_load(content), chance), allow_unicode=True).encode()
        else:
            content = mutated_bytes(content, chance)
        (tmp_path / "c.yaml").write_bytes(content)
        words = [
            "fit",
            "--config=c.yaml",
            "--trainer.accelerator=cpu",
            "--trainer.devices=1",
            f"--trainer.default_root_dir={tmp_path / 'runs'}",
        ]
        monkeypatch.setattr("sys.argv", ["coh_lightning", *words])
        monkeypatch.delenv(cli.RUN_FOLDER, raising=False)
        try:
            with within(60, f"configurations, seed {number}"):
                status = main()
            complaints = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
            assert status in (0, 2) and len(complaints) == (status == 2) and len("".join(complaints)) < 2000, complaints
        except BaseException as error:
            raise AssertionError(
                f"configurations, seed {number}: {type(error).__name__}: "
                f"{error}\n{content.decode('utf-8', 'replace')[:3000]}"
            ) from error
        tally["refused" if status else "accepted"] += 1
    with capsys.disabled():
        tally.check("configurations", cases, accepted=0.1, refused=0.2)
