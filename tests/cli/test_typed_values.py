"""What is set is what is read: on the command line, in a file, in a sweep, and in the configuration that a run
keeps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonargparse import ActionConfigFile
from omegaconf import OmegaConf

from coh_lightning.cli import typed_values as parsing
from coh_lightning.cli.config_parser import CoHParser
from coh_lightning.cli.sweep_file import command_words, read_sweep
from coh_lightning.errors import InputError
from coh_lightning.yaml_text import DuplicateKeyError, dump, escaped, load


@dataclass(frozen=True)
class Format:
    before: str = "\n"
    after: str | None = None


class Tool:
    def __init__(self, name: str = "tool", **more: Any) -> None:
        self.name, self.more = name, more


class Thing:
    """A class with a setting of every kind that may be text."""

    def __init__(
        self,
        text: str = "x",
        maybe: str | None = None,
        number_or_text: int | str = 0,
        anything: bool | int | str = False,
        texts: list[str] | None = None,
        mixed: list[bool | int | float | str] | None = None,
        values: dict[str, int | str | None] | None = None,
        free: dict[str, Any] | None = None,
        text_or_texts: str | list[str] = "",
        kind: Literal["a", "no", 1] = "a",
        flag: bool = True,
        number: float = 0.5,
        format: Format = Format(),
        tool: Tool | str | None = None,
    ) -> None:
        for key, value in list(locals().items()):
            setattr(self, key, value)


def parser() -> CoHParser:
    made = CoHParser(parser_mode="omegaconf+")
    made.add_argument("--config", action=ActionConfigFile)
    made.add_argument("--run.name", type=str, default="run")
    made.add_subclass_arguments(Thing, "thing", required=False)
    made.set_defaults(
        {"thing": {"class_path": f"{__name__}.Thing", "init_args": {"format": {"before": "\n", "after": None}}}}
    )
    CoHParser.known = ["thing.text"]
    return made


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoHParser]:
    """The parser, in an empty folder: examples follow each other faster than a new folder is made."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("empty"))
    yield parser()
    os.chdir(before)


def read(one: CoHParser, *words: str) -> Any:
    """The settings of `Thing` that a command line gives, and what the class itself was given."""
    config = one.parse_args(list(words))
    made = one.instantiate(config).thing
    for key, value in config.thing.init_args.as_dict().items():
        if key not in ("format", "tool"):
            assert getattr(made, key) == value and type(getattr(made, key)) is type(value)
    kept = one.dump(config, skip_unset=False)
    again = one.parse_args(["--config", kept])
    assert again.clone(with_meta=False).as_dict() | {"config": None} == config.clone(with_meta=False).as_dict() | {
        "config": None
    }
    assert yaml.safe_load(kept) == load(kept)
    return config.thing.init_args.as_dict() | {"run.name": config.run.name}


ODD = (
    "yes no on off null None ~ Null true True 1 -1 007 0x1f 0o7 0b1 1_000 1e-4 1e5 1. .5 +.5e3 .inf .NaN 12:30 1:2.5 "
    "2026-01-31 = << - -- --x ? : # % @ ` ! & * | > "
    "[a] [ {a} {a:1} {rating} a: 'a' \"a\" \\N \\n \\ \\\\ ${ \\${ ${a} \\${a} $a {{}} *a &a !!int !!int-x - - x,y "
    "a=b cpu conf/x.yaml ???"
).split(" ")
TEXTS = st.one_of(
    st.sampled_from(
        [
            *ODD,
            " ",
            "\n",
            "\r\n",
            "\t",
            "\x85",
            "\u2028",
            "\u00a0",
            "\ufeff",
            "\x07",
            "\x1b[0m",
            "\U0001f600",
            "a\n\nb ",
            "- a\n- b",
            "a: b\nc: d",
            "# x",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text("${}\\.[]'\":,#-\n ab1eE_~", max_size=12),
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(text=TEXTS)
@example("\\N")
@example("1e-4")
def test_a_text_setting_is_taken_literally_from_the_command_line(one: CoHParser, text: str) -> None:
    word = escaped(text)  # ${ names another setting, there too
    found = read(one, f"--run.name={word}", f"--thing.text={word}", f"--thing.format.before={word}")
    assert (found["run.name"], found["text"], found["format"]["before"]) == (text, text, text)


@QUICK
@given(text=TEXTS)
def test_text_in_lists_and_mappings_on_the_command_line_is_kept(one: CoHParser, text: str) -> None:
    word = escaped(text)
    words = {"texts": [word], "mixed": [word, 1, True], "values": {"a": word, "b": None, "c": 3}, "free": {"a": [word]}}
    found = read(one, *(f"--thing.{key}={dump(value)}" for key, value in words.items()))
    assert [found[key] for key in words] == [[text], [text, 1, True], {"a": text, "b": None, "c": 3}, {"a": [text]}]


@QUICK
@given(text=TEXTS)
@example("1e-4")
def test_text_of_a_sweep_reaches_the_trial_unchanged(one: CoHParser, text: str) -> None:
    word = escaped(text)
    command = ["${interpreter}", "coh_lightning", "fit", "${args}"]
    source = {
        "method": "grid",
        "metric": {"name": "x", "goal": "minimize"},
        "command": command,
        "parameters": {"thing.text": {"values": [word, None, 1]}},
    }
    file = Path("sweep.yaml")
    file.write_text(dump(source), encoding="utf-8")
    sweep = read_sweep(file)
    assert [value["thing.text"] for value in sweep.combinations] == [word, None, 1]
    assert read(one, *command_words(sweep, sweep.combinations[0])[3:])["text"] == text


@QUICK
@given(text=TEXTS)
@example("\\N")
@example("1e-4")
@example("null")
def test_text_in_a_file_stays_text_in_a_union(one: CoHParser, text: str) -> None:
    maybe = "x" if text == "None" else text
    said = {
        "text": text,
        "maybe": maybe,
        "number_or_text": text,
        "anything": text,
        "texts": [text, "1"],
        "mixed": [text, "1", 1, "true", True, "0.5", 0.5],
        "values": {"a": text, "b": "1", "c": 1, "d": None},
        "free": {"a": text, "b": {"c": [text, "1", 1]}},
        "text_or_texts": text,
        "format": {"before": text, "after": maybe},
    }
    found = read(one, "--config", dump(escaped({"thing": said, "run": {"name": text}})))
    assert found["run.name"] == text
    assert {key: found[key] for key in said} == said
    assert all(str(type(value)) == str(type(said[key])) for key, value in found.items() if key in said)


@QUICK
@given(text=TEXTS)
def test_written_yaml_reads_back_in_every_reader(text: str) -> None:
    data = {"a": text, text: [text, {"b": text}]}
    assert load(dump(data)) == yaml.safe_load(dump(data)) == data
    assert (
        OmegaConf.to_container(OmegaConf.create(dump(escaped(data))), resolve=True) == data or "${" in text
    )  # a key is never resolved
    assert OmegaConf.to_container(OmegaConf.create({"a": escaped(text)}), resolve=True) == {"a": text}


@QUICK
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
        lambda some: st.lists(some) | st.dictionaries(TEXTS, some),
        max_leaves=5,
    )
)
def test_values_of_every_kind_read_back(value: Any) -> None:
    assert load(dump([value])) == yaml.safe_load(dump([value])) == [value]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *[
            ("1e-4", 1e-4),
            ("1e5", 1e5),
            ("-.5", -0.5),
            ("1_000", 1000),
            ("010", 10),
            ("-7", -7),
            ("0x1f", 31),
            ("0o17", 15),
            ("1_0.5", 10.5),
            (".inf", float("inf")),
        ],
        *[("true", True), ("FALSE", False), ("~", None), ("", None), ("null", None)],
        *[
            (word, word)
            for word in (
                "yes",
                "no",
                "On",
                "off",
                "y",
                "12:30",
                "2026-01-31",
                "1:30.5",
                "=",
                "1.2.3",
                "e5",
                "0b",
                "_1",
                "1__0",
            )
        ],
        *[("'1'", "1"), ('"null"', "null"), ('"\\N"', "\x85")],
    ],
)
def test_a_word_in_a_file_is_a_number_a_boolean_null_or_text(written: str, value: Any) -> None:
    assert load(f"a: {written}") == {"a": value}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' is set on line 1 already; leave one out"),
        ("{1: a, 1: b}", 1, "the key '1' is set twice; leave one out"),
        ("1: a\ntrue: b", 2, "the key 'true' counts as '1', which is set on line 1 already; leave one out"),
        ("{1: a, 1.0: b}", 1, "the key '1.0' counts as '1', which is set there already; leave one out"),
        ("{0: a, no: b, false: c}", 1, "the key 'false' counts as '0', which is set there already; leave one out"),
        ("{null: a, ~: b}", 1, "the key '~' counts as 'null', which is set there already; leave one out"),
        ("x:\n- y: [{c: 1}]\n- y: [{c: 1,\n  'c': 2}]", 4, "the key 'c' is set on line 3 already; leave one out"),
    ],
)
def test_a_duplicate_key_is_refused(text: str, line: int, message: str) -> None:
    with pytest.raises(DuplicateKeyError) as error:
        load(text)
    assert (error.value.problem_mark.line + 1, error.value.problem) == (line, message)


def test_a_merged_mapping_may_be_overridden_and_keys_may_be_alike_elsewhere() -> None:
    assert load("x: &x {k: 1, l: 2}\ny: {<<: *x, k: 3}\nz: {<<: [*x, *x]}\n'1': {1: a, yes: b}\n1: []") == {
        "x": {"k": 1, "l": 2},
        "y": {"k": 3, "l": 2},
        "z": {"k": 1, "l": 2},
        "1": {1: "a", "yes": "b"},
        1: [],
    }


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.getpid []", "!!python/name:os.getpid", "!!int x", "!!float x", "a: {b", "\x00"]
)
def test_yaml_that_is_not_plain_data_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        load(text)


def test_a_mapping_may_override_merged_keys() -> None:
    text = (
        "a: &a {k: 1, l: 1}\nb: &b\n  <<: *a\n  k: 2\nc:\n  <<: *b\n  k: 3\nd: [{k: 1}, {k: 2}, {1: 1, '1': 2, yes: 3}]"
    )
    assert load(text) == {
        "a": {"k": 1, "l": 1},
        "b": {"k": 2, "l": 1},
        "c": {"k": 3, "l": 1},
        "d": [{"k": 1}, {"k": 2}, {1: 1, "1": 2, "yes": 3}],
    }


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("number_or_text=5", "number_or_text", 5),
        ("number_or_text=1e-4", "number_or_text", "1e-4"),
        ("anything=true", "anything", True),
        ("anything=yes", "anything", "yes"),
        ("anything=1", "anything", 1),
        ('mixed=["1", 1, yes, true, "true"]', "mixed", ["1", 1, "yes", True, "true"]),
        ("maybe=null", "maybe", None),
        ("flag=no", "flag", False),
        ("kind=no", "kind", "no"),
        ("kind=1", "kind", 1),
        ("number=1e-4", "number", 1e-4),
        ("values.a=1", "values", {"a": 1}),
        ("values.a=x", "values", {"a": "x"}),
        ("free.a=[1, '1']", "free", {"a": [1, "1"]}),
        ("text_or_texts=[a, '1']", "text_or_texts", ["a", "1"]),
        ("format={before: '1'}", "format", {"before": "1", "after": None}),
        ("number=${thing.init_args.number_or_text}", "number", 0.0),
    ],
)
def test_a_command_line_value_is_yaml_unless_the_setting_is_text(
    one: CoHParser, words: str, key: str, value: Any
) -> None:
    found = read(one, f"--thing.{words}")[key]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("written", ["flag: no", "flag: 'no'", "flag: off", "flag: false"])
def test_a_boolean_may_be_written_as_people_write_it(one: CoHParser, written: str) -> None:
    assert read(one, "--config", f"thing: {{{written}}}")["flag"] is False


def test_null_is_null_and_the_text_none_is_refused(one: CoHParser) -> None:
    assert read(one, "--thing.maybe=x", "--thing.maybe=null")["maybe"] is None
    for words in (
        ["--thing.maybe=None"],
        ["--config", "thing: {maybe: None}"],
        ["--thing.format.after=None"],
        ["--config", "thing: {format: {after: None}}"],
    ):
        with pytest.raises(
            InputError, match=r"^thing\.(maybe|format\.after) is the text 'None'; write null for no value\.$"
        ):
            one.parse_args(words)


@pytest.mark.parametrize("value", ["1e-4", "5", "true", "[a]"])
def test_other_values_are_refused_for_a_text_setting(one: CoHParser, value: str) -> None:
    with pytest.raises(InputError, match=r"^run\.name is .*it must be text"):
        one.parse_args(["--config", f"run: {{name: {value}}}"])


def test_a_reference_starts_at_the_root_and_a_backslash_escapes_it(one: CoHParser) -> None:
    words = ["--thing.text=${thing.init_args.maybe}", "--thing.maybe=a\\${b}"]
    assert read(one, *words)["text"] == "a${b}"
    with pytest.raises(InputError, match=r"nothing\.there"):
        one.parse_args(["--thing.text=${nothing.there}"])


# Files


def test_a_text_setting_is_never_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x", "a", "1", "some.txt", "records.json", "rows.yaml", "true", "0.5"):
        (tmp_path / name).write_text("[content]\n")
    one = parser()
    for name in ("x", "a", "1", "some.txt", "records.json", "rows.yaml"):
        for given_as in (
            [f"--thing.text={name}", f"--thing.maybe={name}", f"--thing.text_or_texts={name}"],
            ["--config", dump({"thing": dict.fromkeys(("text", "maybe", "text_or_texts"), name)})],
        ):
            found = read(one, *given_as)
            assert (found["text"], found["maybe"], found["text_or_texts"]) == (name, name, name)
    found = read(
        one,
        "--thing.kind=a",
        "--thing.flag=true",
        "--thing.number=0.5",
        "--thing.number_or_text=1",
        "--thing.tool=x",
        "--thing.anything=some.txt",
    )
    assert [found[key] for key in ("kind", "flag", "number", "number_or_text", "tool", "anything")] == [
        "a",
        True,
        0.5,
        1,
        "x",
        "some.txt",
    ]
    with pytest.raises(InputError, match=r"thing\.texts is 'some.txt'; it must be a list"):
        one.parse_args(["--thing.texts=some.txt"])


def test_a_nested_config_is_found_beside_its_file_then_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "format.yaml").write_text("before: deep\n")
    (tmp_path / "format.yaml").write_text("before: top\n")
    (tmp_path / "deep" / "all.yaml").write_text("thing: {format: format.yaml}\n")
    one = parser()
    assert read(one, "--config", "deep/all.yaml")["format"]["before"] == "deep"
    assert read(one, "--thing.format=format.yaml")["format"]["before"] == "top"
    packaged = tmp_path / "package"
    (packaged / "format").mkdir(parents=True)
    (packaged / "format" / "ours.yaml").write_text("before: ours\n")
    monkeypatch.setattr(parsing.configurations, "CONF", packaged)
    (tmp_path / "deep" / "all.yaml").write_text("thing: {format: conf/format/ours.yaml}\n")
    assert read(one, "--config", "deep/all.yaml")["format"]["before"] == "ours"
    (tmp_path / "deep" / "conf" / "format").mkdir(parents=True)
    (tmp_path / "deep" / "conf" / "format" / "ours.yaml").write_text("before: nearer\n")
    assert read(one, "--config", "deep/all.yaml")["format"]["before"] == "nearer"
