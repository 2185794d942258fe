"""Rows of every kind of file, with file and line, and every way in which a file can be bad."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import write_jsonl
from coh_lightning.feedback.sources import Fields, Mapping, TRLPairs, load
from coh_lightning.feedback.sources.files import Reading, read_rows
from coh_lightning.feedback.sources.folders import chosen_files, is_local
from coh_lightning.feedback.sources.notes import SourceNotes

ROWS = [
    {"prompt": 'He said: "a,\tb"\n\nand left', "chosen": "ü\u2028x", "rejected": "no"},
    {"prompt": "p2", "chosen": "c", "rejected": "r"},
]
PACKED = gzip.compress(b'{"a": 1}\n{"a": 2}\n', mtime=0)


def as_bytes(kind: str) -> bytes:
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    if kind == "json":
        return json.dumps(ROWS).encode()
    out = io.BytesIO()
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), out)
        return out.getvalue()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter="," if kind == "csv" else "\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str, packed: bool) -> None:
    path = tmp_path / f"rows.{kind}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(as_bytes(kind)) if packed else as_bytes(kind))
    assert [row for _, row in read_rows(path)] == ROWS
    places = {
        "jsonl": [":1", ":2"],
        "json": [": item 1", ": item 2"],
        "parquet": [": row 1", ": row 2"],
        "csv": [":2", ":5"],
        "tsv": [":2", ":5"],
    }
    assert [where for where, _ in read_rows(path)] == [f"{path}{place}" for place in places[kind]]
    assert [one.candidates[0].text for one in load([TRLPairs(str(path))], seed=0)] in (
        ["ü\u2028x", "c"],
        ["c", "ü\u2028x"],
    )


PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pyarrow.Codec("zstd").compress(content, asbytes=True),
}


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "txt"])
@pytest.mark.parametrize("packing", PACKERS)
def test_every_compression_is_read_and_damage_is_refused(
    tmp_path: Path, packing: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"one\ntwo\n" if kind == "txt" else as_bytes(kind)
    packed = PACKERS[packing](content)
    path = tmp_path / f"Rows.{kind.upper()}.{packing.upper()}"
    path.write_bytes(packed)
    assert [row for _, row in read_rows(path)] == ([{"text": "one"}, {"text": "two"}] if kind == "txt" else ROWS)
    for damaged in (packed[:-3], b"rubbish", packed[: len(packed) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            list(read_rows(path))
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    monkeypatch.setattr("coh_lightning.feedback.compressed.FREELY_UNPACKED", 10_000)
    path.write_bytes(PACKERS[packing](b"x" * 1_000_000))
    with pytest.raises(InputError, match="it decompresses to more than"):
        list(read_rows(path))


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for packing, module, name in (
        ("bz2", "bz2", "Python's bz2"),
        ("xz", "lzma", "Python's lzma"),
        ("zst", "pyarrow", "pyarrow with zstd"),
    ):
        path = tmp_path / f"a.jsonl.{packing}"
        path.write_bytes(PACKERS[packing](b'{"a": 1}\n'))
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(InputError, match=rf"a\.jsonl\.{packing}: \.{packing} needs {name}; install it"):
            list(read_rows(path))
    with pytest.raises(InputError, match=r"out\.jsonl\.zst: files are written plain or as \.gz"):
        write_jsonl(tmp_path / "out.jsonl.zst", [])


def arrow_bytes(form: str, compression: str | None = None, rows: list[dict[str, Any]] = ROWS) -> bytes:
    table, out = pyarrow.Table.from_pylist(rows), io.BytesIO()
    options = pyarrow.ipc.IpcWriteOptions(compression=compression)
    with (pyarrow.ipc.new_file if form == "file" else pyarrow.ipc.new_stream)(
        out, table.schema, options=options
    ) as writer:
        writer.write_table(table, max_chunksize=1)
    return out.getvalue()


@pytest.mark.parametrize("end", ["arrow", "feather", "ipc", "arrow.gz"])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("form", ["file", "stream"])
def test_arrow_files_are_read_in_both_forms(tmp_path: Path, form: str, compression: str | None, end: str) -> None:
    path = tmp_path / f"a.{end}"
    content = arrow_bytes(form, compression)
    path.write_bytes(gzip.compress(content) if end.endswith("gz") else content)
    assert list(read_rows(path)) == [(f"{path}: row {number}", row) for number, row in enumerate(ROWS, start=1)]


@pytest.mark.parametrize("form", ["file", "stream"])
def test_a_truncated_arrow_file_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.arrow"
    content = arrow_bytes(form, "zstd")
    for length in range(0, len(content), 4):  # messages begin at every eighth byte
        path.write_bytes(content[:length])
        try:
            rows = [row for _, row in read_rows(path)]
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            raise AssertionError(f"{rows} of {length} bytes")
    path.write_bytes(b"FEA1" + content)
    with pytest.raises(InputError, match="Feather's first version"):
        list(read_rows(path))


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("form", ["file", "stream"])
def test_an_arrow_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, compression: str
) -> None:
    monkeypatch.setattr("coh_lightning.feedback.compressed.FREELY_UNPACKED", 10_000)
    path = tmp_path / "a.arrow"
    path.write_bytes(arrow_bytes(form, compression, [{"a": "x" * 2_000_000}]))
    monkeypatch.setattr(pyarrow.ipc, "open_stream", None)  # the package that decompresses it
    with pytest.raises(InputError, match=r"a\.arrow: it decompresses to more than"):
        list(read_rows(path))


PAIR = {"prompt": "p", "chosen": "c", "rejected": "r"}
fits = TRLPairs("t").fits


@pytest.mark.parametrize(
    ("content", "rows", "said"),
    [
        (json.dumps(PAIR, indent=2), [(": item 1", PAIR)], []),
        (json.dumps(PAIR), [(": item 1", PAIR)], []),
        (json.dumps({**PAIR, "more": [{"a": 1}]}, indent=2), [(": item 1", {**PAIR, "more": [{"a": 1}]})], []),
        (
            json.dumps({"x": PAIR, "y": PAIR}),
            [(": x", {"id": "x", **PAIR}), (": y", {"id": "y", **PAIR})],
            ["a.json is an object of 2 rows"],
        ),
        (
            json.dumps({"x": {"id": "own", **PAIR}}, indent=1),
            [(": x", {"id": "own", **PAIR})],
            ["a.json is an object of 1 row"],
        ),
        (
            json.dumps({"version": 1, "data": [PAIR, PAIR]}, indent=1),
            [(": data, item 1", PAIR), (": data, item 2", PAIR)],
            ["the rows of a.json are its list data"],
        ),
        (json.dumps({"a": 1}), [(": item 1", {"a": 1})], []),
        (json.dumps(PAIR) + "\n" + json.dumps(PAIR) + "\n", [(":1", PAIR), (":2", PAIR)], []),
        ("\ufeff" + json.dumps({"x": PAIR}), [(": x", {"id": "x", **PAIR})], ["a.json is an object of 1 row"]),
    ],
)
def test_a_json_object_is_a_row_or_has_rows(
    tmp_path: Path, content: str, rows: list[tuple[str, Any]], said: list[str]
) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    told: list[str] = []
    assert list(read_rows(path, Reading(fits=fits, say=told.append))) == [
        (f"{path}{place}", row) for place, row in rows
    ]
    assert told == said


def test_a_json_object_is_a_row_if_the_columns_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for value, rows in (
        ({"prompt": "p", "completions": [{"text": "a"}, {"text": "b"}]}, 1),
        ({"data": [PAIR, PAIR]}, 2),
        ({"x": PAIR, "y": PAIR, "z": PAIR}, 3),
    ):
        path.write_text(json.dumps(value, indent=1))
        assert len(list(read_rows(path))) == rows


def test_a_broken_json_object_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n "prompt": "p",\n "chosen": }')
    with pytest.raises(InputError, match=rf"{path}:3: broken JSON at column 12"):
        list(read_rows(path, Reading(fits=fits)))


def delimited(separator: str, *, first: str = "") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerows([["n", *PAIR], ["1", "a,b;c", "d\te", "f|g"]])
    return first + text.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_the_one_that_gives_the_header_all_columns(tmp_path: Path, name: str, separator: str) -> None:
    path = tmp_path / name
    told: list[str] = []
    row = {"n": "1", "prompt": "a,b;c", "chosen": "d\te", "rejected": "f|g"}
    for content, setting in (
        (delimited(separator), None),
        (delimited(separator, first=f"sep={separator}\n"), None),
        (delimited(separator), separator),
    ):
        path.write_text(content)
        line = 3 if content.startswith("sep=") else 2
        assert list(read_rows(path, Reading(separator=setting, fits=fits, say=told.append))) == [
            (f"{path}:{line}", row)
        ]
    usual = "\t" if name.endswith("tsv") else ","
    assert told == ([] if separator == usual else [f"the separator of {name} is {separator!r}"] * 2)
    path.write_text(delimited(separator))
    assert (next(iter(read_rows(path)))[1] == row) == (separator == usual)  # without a source, no columns are known


def test_an_ambiguous_separator_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,chosen,rejected,x|prompt|chosen|rejected\n1,2,3,4\n")
    with pytest.raises(InputError) as caught:
        load([TRLPairs(str(path))], seed=0)
    assert str(caught.value) == (
        f"{path}:1: the separators ',' and '|' both give all columns; set the source's separator."
    )
    assert load([TRLPairs(str(path), separator=",")], seed=0)[0].candidates[0].text == "2"
    path.write_text("text\na;b\n")  # one column: the separator does not matter
    assert [row for _, row in read_rows(path, Reading(fits=lambda names: "text" in names))] == [{"text": "a;b"}]
    for wrong in ("", ";;", '"', "\n"):
        with pytest.raises(InputError, match=r"TRLPairs\.separator is .*; it must be one character"):
            TRLPairs("a.csv", separator=wrong)


def test_a_mapping_knows_its_columns_for_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question;answer,1;stars\nq;a;4\n")
    source = Mapping(
        str(path), prompt="question", completions=[Fields(text="answer,1", rating="stars")], scales={"overall": [1, 5]}
    )
    noticed: list[SourceNotes] = []
    assert load([source], seed=0, noticed=noticed)[0].candidates[0].ratings == {"overall": 4.0}
    assert noticed[0].lines() == ["a: the separator of a.csv is ';'"]


def test_plain_text_is_one_row_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo\n")
    assert list(read_rows(path)) == [(f"{path}:1", {"text": "one"}), (f"{path}:3", {"text": "two"})]


def test_a_json_file_of_lines_is_read_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(as_bytes("jsonl"))
    assert [where for where, _ in read_rows(path)] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"", ": the file is empty."),
        ("a.json", b" \n", ": the file is empty."),
        ("a.csv", b"", ": the file is empty."),
        ("a.json", b"[]", ": the file has no rows."),
        ("a.csv", b"a,b\n", ": the file has no rows."),
        ("a.json", b'[{"a": 1},\n {"a": }]', ":2: broken JSON at column 8 (Expecting value)."),
        ("a.json", b'[{"a":\n"\xff"}]', ":2: not UTF-8 (0xff at byte 9); save the file as UTF-8."),
        ("a.csv", b'a,b\n1,2\n"x,3\n', ":3: broken CSV (unexpected end of data)."),
        ("a.csv", b"a,a\n1,2\n", ":1: two columns have the same name (a, a)."),
        ("a.csv", b"a,b\n1,2\n\xe9,3\n", ":3: not UTF-8 (0xe9 at byte 9); save the file as UTF-8."),
        ("a.parquet", b"PAR1 not really", ": this is not a complete Parquet file ("),
        ("a.parquet", b"", ": this is not a complete Parquet file ("),
        ("a.json", b"[" * 5000 + b"]" * 5000, ": broken JSON (nested too deeply)."),
        ("a.json", b'[{"a": ' + b"[" * 300 + b"]" * 300 + b"}]", ": broken JSON (nested more than 200 deep)."),
        ("a.json", b'[{"a": ' + b"1" * 5000 + b"}]", ": broken JSON (a number of too many digits)."),
        ("a.jsonl.gz", PACKED[:-9] + b"\xff" + PACKED[-8:], ":1: the rest of the file can't be read ("),
        ("a.json.gz", PACKED[:-9] + b"\xff" + PACKED[-8:], ": the file can't be read ("),
        ("a.jsonl.gz", PACKED[:-1], ":1: the rest of the file can't be read ("),
        ("a.jsonl.gz", b"not packed", ":1: the rest of the file can't be read ("),
        ("a.json.gz", b"not packed", ": the file can't be read ("),
        ("a.xlsx", b"x", ": the file has no known suffix; rename it to end in one of .jsonl,"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(f"{path}{says}")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n{"a": 2}\n', ":2: broken JSON at column 7 (Expecting value)."),
        (
            "a.jsonl",
            b'{"a": 1}\n"\xff"\n{"a": 2}\n',
            ":2: not UTF-8 (0xff at byte 2); save the file as UTF-8.",
        ),
        (
            "a.jsonl",
            b'{"a": 1}\n[1]\n{"a": 2}\n',
            ":2: this row is a list of 1; it must be a JSON object with named fields.",
        ),
        (
            "a.json",
            b'[{"a": 1}, 7, {"a": 2}]',
            ": item 2: this row is an int; it must be a JSON object with named fields.",
        ),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": ' + b"1" * 5000 + b'}\n{"a": 2}\n',
            ":2: broken JSON (a number of too many digits).",
        ),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": ' + b"[" * 300 + b"]" * 300 + b'}\n{"a": 2}\n',
            ":2: broken JSON (nested more than 200 deep).",
        ),
        ("a.csv", b"a\n1\nx,y\n2\n", ":3: 2 cells for 1 column; quote cells with ',' or a line end."),
        ("a.txt", b"1\n\xff\n2\n", ":2: not UTF-8 (0xff at byte 1); save the file as UTF-8."),
    ],
)
def test_a_bad_row_is_yielded_as_an_error_in_its_place(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    first, bad, last = [row for _, row in read_rows(path)]
    assert isinstance(first, dict) and isinstance(last, dict)
    assert str(bad) == f"{path}{says}"


def test_a_parquet_value_that_python_lacks_makes_a_bad_row(tmp_path: Path) -> None:
    text = pyarrow.array([b"one", b"\xff", b"two"], pyarrow.binary()).view(pyarrow.string())
    day = pyarrow.array([0, 0, 2**31 - 1], pyarrow.int32()).view(pyarrow.date32())
    pyarrow.parquet.write_table(pyarrow.table({"text": text, "day": day}), tmp_path / "a.parquet")
    first, second, third = [row for _, row in read_rows(tmp_path / "a.parquet")]
    assert isinstance(first, dict) and first["text"] == "one"
    assert str(second).startswith(
        f"{tmp_path / 'a.parquet'}: row 2: it has a value that can't be read ('utf-8' codec can't decode byte 0xff"
    )
    assert str(third).startswith(f"{tmp_path / 'a.parquet'}: row 3: it has a value that can't be read (")


def test_two_parquet_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: two columns have the same name \(text, text\)"):
        list(read_rows(tmp_path / "a.parquet"))


def test_a_line_that_is_too_long_is_a_bad_row_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coh_lightning.feedback.jsonl.LONGEST_LINE", 2**20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "' + b"x" * (3 * 2**20) + b'"}\n{"a": 2}\n')
    first, long, last = read_rows(path)
    assert (first[1], last) == ({"a": 1}, (f"{path}:3", {"a": 2}))
    assert str(long[1]) == f"{path}:2: the line is longer than 1 MiB; put each record on a line."


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coh_lightning.feedback.compressed.FREELY_UNPACKED", 10_000)
    for kind in ("jsonl", "json", "csv", "parquet", "txt"):
        path = tmp_path / f"a.{kind}.gz"
        path.write_bytes(gzip.compress(b"[1]\n" * 100_000))
        with pytest.raises(
            InputError,
            match=rf"a\.{kind}\.gz: it decompresses to more than [\d,]+ bytes, \d+ times its size; ",
        ):
            list(read_rows(path))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x" * 5000] * 500}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: it decompresses to more than"):
        list(read_rows(tmp_path / "a.parquet"))


def test_a_file_that_must_be_read_at_once_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coh_lightning.feedback.compressed.LARGEST_WHOLE", 2**20)
    (tmp_path / "a.csv").write_bytes(b"a\n" + b"x" * 2**20)
    with pytest.raises(
        InputError,
        match=r"a\.csv: it is larger than 1 MiB, and must be read at once; split it, or use JSON lines\.",
    ):
        list(read_rows(tmp_path / "a.csv"))


def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"trian\.jsonl\.gz: there is no such file; did you mean 'train\.jsonl\.gz'\?"):
        load([TRLPairs(str(tmp_path / "trian.jsonl.gz"))], seed=0)


def test_a_folder_gives_the_files_of_a_split(tmp_path: Path) -> None:
    for name in (
        "one/train-00000-of-2.jsonl",
        "one/train-00001-of-2.jsonl",
        "one/test.jsonl.gz",
        "one/README.md",
        "two/test.csv",
        "three/pretrained.csv",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")

    def names(**options: Any) -> list[str]:
        return [str(file.relative_to(tmp_path)) for file in chosen_files(str(tmp_path), **options).files]

    assert names() == ["one/train-00000-of-2.jsonl", "one/train-00001-of-2.jsonl"]
    assert names(split="test") == ["one/test.jsonl.gz", "two/test.csv"]
    assert names(subset="two", split="test") == ["two/test.csv"]
    assert names(subset="three", split="train") == ["three/pretrained.csv"]
    assert [file.name for file in chosen_files(f"{tmp_path}/one/train*").files] == [
        "train-00000-of-2.jsonl",
        "train-00001-of-2.jsonl",
    ]
    for options, says in (
        ({"split": "validation"}, "no file of the split 'validation'; there is train, test"),
        ({"subset": "tow"}, "there is no subfolder 'tow'; did you mean 'two'"),
    ):
        with pytest.raises(InputError, match=says):
            names(**options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no data file here"):
        chosen_files(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no file matches this pattern"):
        chosen_files(f"{tmp_path}/*.parquet")


def test_hub_names_and_local_paths_are_distinguished(tmp_path: Path) -> None:
    assert not is_local("Anthropic/hh-rlhf") and not is_local("imdb")
    assert all(map(is_local, ["a.jsonl", "x/y.csv.gz", "./a", "/a/b", "~/a", "a/b/c", "*.json", str(tmp_path)]))


def test_a_hub_that_does_not_answer_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(**arguments: Any) -> None:
        assert arguments == {"path": "someone/pairs", "name": "small", "split": "test", "revision": None}
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(InputError) as caught:
        load([TRLPairs("someone/pairs", subset="small", split="test")], seed=0)
    assert str(caught.value).startswith(
        "someone/pairs: there is no such local file, and loading it from the hub failed (ConnectionError: no route); "
        "check the name and the network, or give a local file"
    )


def test_rows_of_the_hub_are_read_like_local_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda **_: datasets.Dataset.from_list(ROWS))
    records = load([TRLPairs("someone/pairs")], seed=0)
    assert sorted((one.where, one.candidates[0].text) for one in records) == [
        ("someone/pairs[train]: row 1", "ü\u2028x"),
        ("someone/pairs[train]: row 2", "c"),
    ]
