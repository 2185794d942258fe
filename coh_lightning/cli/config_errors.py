"""Errors of the configuration in one sentence: the key, what is wrong with it, the nearest right key, file and line.

jsonargparse reports an error as a tree of lines, with one branch for each type of a union. The line that matters is
picked out here; a message of another form is passed on, on one line.

    Subcommand 'fit' does not accept option 'data.row_token'
      -> there is no key data.row_token; did you mean data.row_tokens? (conf/quickstart.yaml:4)
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from itertools import pairwise
from pathlib import Path, PurePath

import yaml

from coh_lightning import yaml_text
from coh_lightning.cli import config_paths as configurations
from coh_lightning.cli.key_synonyms import OURS
from coh_lightning.errors import NEAR, InputError, did_you_mean, first_line

UNKNOWN = re.compile(
    r"unrecognized arguments: (?P<word>.+)|Option '(?P<key>[^']+)' is not accepted$"
    r"|(?:Subcommand|Group) '(?P<group>[^']+)' does not accept option '(?P<option>[^']+)'"
)
EARLY = re.compile(r"Option '([^']+)' is not accepted before subcommand '?(\w+)")
KEY = re.compile(r'Parser key "([^"]+)"')
CLASS = re.compile(r"Problem with given class_path '([^']+)'")
FILE = re.compile(r"Unable to load config ['\"]([^'\"]+)['\"]|File does not exist: ['\"]([^'\"]+)['\"]")
NO_CLASS = re.compile(
    r"Expected a dot import path string: (\S+)|module '([^']+)' has no attribute '([^']+)'|No module named '([^']+)'"
)
BASE = re.compile(r"Subtypes: \[(?:list\[|<class ')?([\w.]+)")
EXPECTED = re.compile(r"Expected an? (?:<class '(?:\w+\.)*)?([\w\[\], .]+?)(?:'>)?(?:\. Got|$)")
LITERAL = re.compile(r"Literal\[(.*?)\]")
VALUE = re.compile(r"(?:Got value|Given value): (.*)")
LONGEST_NAME = 255
"""Bytes in the name of a file, at most."""
NOT_CONFIGURED = "NOT_CONFIGURED"
"""Attribute of a class: its arguments that are given in Python alone."""
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
KINDS |= {"list": "a list", "tuple": "a list", "dict": "keys with values"}


def keys_of(thing: Callable[..., object], *, prefix: str = "") -> Iterator[str]:
    """The keys of a class in a configuration, those of nested dataclasses with dots."""
    try:
        hints = typing.get_type_hints(thing.__init__ if inspect.isclass(thing) else thing)
    except NameError:  # a name imported only for type checkers
        hints = {}
    for name in inspect.signature(thing).parameters:
        if name in getattr(thing, NOT_CONFIGURED, ()):
            continue
        yield prefix + name
        for kind in (hints.get(name), *typing.get_args(hints.get(name))):
            if inspect.isclass(kind) and is_dataclass(kind):
                yield from keys_of(kind, prefix=f"{prefix}{name}.")


def nearest_key(key: str, known: Sequence[str]) -> str | None:
    """The known key nearest to a mistyped one, part by part; else one whose last part is nearly the same.

    With `model.lr` and `data.method.loss_on` known:
      modle.lr -> model.lr    data.metod.loss_onn -> data.method.loss_on    lr -> model.lr
    """
    found: list[str] = []
    for part in key.split("."):
        here = ".".join(found) + "." if found else ""
        parts = {name[len(here) :].split(".")[0] for name in known if name.startswith(here)}
        near = [part] if part in parts else difflib.get_close_matches(part, sorted(parts), n=1, cutoff=0.6)
        if not near:
            endings: dict[str, str] = {}
            for name in known:
                endings.setdefault(name.split(".")[-1], name)
            near = difflib.get_close_matches(key.split(".")[-1], list(endings), n=1, cutoff=0.8)
            return endings[near[0]] if near else None
        found.append(near[0])
    return ".".join(found)


@dataclass(frozen=True)
class Typed:
    """The command line and its working folder; jsonargparse changes into the folder of the file that it reads."""

    argv: Sequence[str] = ()
    folder: Path = Path()

    def configs(self) -> Iterator[Path]:
        """The YAML files named in the arguments, and those that they name in turn."""
        waiting = [
            self.folder / word.split("=", 1)[-1]
            for before, word in pairwise(["", *self.argv])
            if before == "--config" or word.startswith("--config=") or word.endswith((".yaml", ".yml"))
        ]
        seen: set[Path] = set()
        while waiting:
            file = waiting.pop(0)
            if file in seen or not file.is_file():
                continue
            seen.add(file)
            yield file
            text = file.read_text(encoding="utf-8", errors="replace")
            waiting += [file.parent / name for name in re.findall(r"[\w./-]+\.ya?ml", text)]

    def shown(self, file: Path) -> str:
        """A path as the user would write it."""
        return os.path.relpath(file, self.folder) if file.is_relative_to(self.folder) else str(file)

    def line_of(self, name: str) -> str:
        """` (file:line)` of the first place that sets a key of this name; nothing where the command line does."""
        if any(re.match(rf"--(?:[\w.]+\.)?{re.escape(name)}(?:=|\+|$)", word) for word in self.argv):
            return ""
        for file in self.configs():
            for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
                if re.search(rf"(?:^|[\s{{,]){re.escape(name)}\s*:", line.split("#")[0]):
                    return f" ({self.shown(file)}:{number})"
        return ""

    def broken(self) -> str | None:
        """What is wrong with the first file that isn't YAML or has no settings."""
        for file in self.configs():
            shown = self.shown(file)
            try:
                found = yaml.compose(file.read_bytes(), yaml.SafeLoader)  # its messages say more than the C loader's
                yaml_text.load(file.read_bytes())
            except yaml_text.DuplicateKeyError as error:
                return f"{shown}:{error.problem_mark.line + 1}: {error.problem}."
            except yaml.MarkedYAMLError as error:
                line = error.problem_mark.line + 1 if error.problem_mark else 1
                return f"{shown}:{line}: this is not YAML: {error.problem or error.context}."
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                return f"{shown}: this is not UTF-8 text: {first_line(error)}."
            if not isinstance(found, yaml.CollectionNode):
                what = "is empty" if found is None else "has no settings"
                return f"{shown}: this file {what}; settings are written as key: value."
        return None


def broken_reference(error: BaseException) -> InputError:
    """For a `${...}` in a configuration that names no setting."""
    reason = first_line(error).rstrip(".")
    if missing := re.search(r"Environment variable '([^']+)' not found", reason):
        return InputError(f"the configuration reads the environment variable {missing[1]}, which is not set.")
    return InputError(f"a reference in the configuration can't be resolved: {reason}; the text ${{ is written \\${{.")


def complaint(message: str, *, known: Sequence[str], typed: Typed) -> str:
    """One sentence for a message of jsonargparse; `known` are the right keys of this command."""
    lines = message.split("\n")
    if message.startswith("Unexpected config"):
        found: str | None = typed.broken() or "a file given with --config must hold settings, written as key: value."
    elif "Problems parsing config" in message:
        found = typed.broken()
    else:
        found = _unknown_key(lines, known, typed) or _missing_file(lines, typed)
        found = found or _unknown_class(lines) or _wrong_value(lines)
    return re.sub(r"\S{200,}", lambda word: f"{word[0][:80]}...", found or _on_one_line(lines))


def _unknown_key(lines: Sequence[str], known: Sequence[str], typed: Typed) -> str | None:
    path: list[str] = []
    inside = None
    for line in lines:
        if early := EARLY.search(line):
            return f"{early[1]} was given before the command; write {early[2]} first: {early[2]} --config FILE."
        if match := UNKNOWN.search(line):
            word = (match["word"] or match["option"] or match["key"]).split()[0]
            if match["word"] and not word.startswith("-"):
                return f"'{word}' is neither an option nor a value of one; options are written --key=value."
            parts = [*path, word.lstrip("-").split("=")[0].rstrip("+")]
            if "Group" in match[0]:
                parts.insert(-1, match["group"])
            key = ".".join(part for part in parts if part)
            where = typed.line_of(key.split(".")[-1])
            group, _, rest = key.partition(".")
            if group in ("model", "data") and rest.split(".")[0] in ("class_path", "init_args"):
                return f"there is no key {key}; write the keys directly under {group}.{where}"
            key = key.replace("init_args.", "")
            here = "".join(f"{part}." for part in path).replace("init_args.", "")
            right = [f"{here}{name}" for name in keys_of(_import(inside))] if inside else known
            ours = OURS.get(key.split(".")[-1].replace("-", "_"))
            near = ours if ours in known else nearest_key(key, right)
            return f"there is no key {key}; {f'did you mean {near}?' if near else '--help lists them all.'}{where}"
        if match := KEY.search(line):
            path.append(match[1])
        if match := CLASS.search(line):
            inside = match[1]
    return None


def _missing_file(lines: Sequence[str], typed: Typed) -> str | None:
    index, match = next(((index, match) for index, line in enumerate(lines) if (match := FILE.search(line))), (0, None))
    if match is None:
        return None
    key = _key(lines[: index + 1]) or "config"
    word = match[1] or match[2]
    try:
        value = yaml_text.load(word)
    except yaml.YAMLError as error:
        return f"{key} is not YAML: {getattr(error, 'problem', None) or first_line(error)}."
    if not isinstance(value, str) or len(os.fsencode(word)) > LONGEST_NAME:
        return f"{key} is {word:.60}; it must be settings, written as key: value, or the name of a file of them."
    file = Path.cwd() / word  # jsonargparse is in the folder of the file that names it
    if file.is_file():
        return Typed([f"--config={file}"], typed.folder).broken() or f"{key}: {word} can't be read as settings."
    # a bare word is most likely the name of one of our files
    last = key.split(".")[-1]
    folder = file.parent if file.suffix else typed.folder / "conf" / last
    shown = PurePath(typed.shown(folder))
    there = _yaml_files(folder, shown)
    for name in (shown, PurePath(word).parent):
        there = _yaml_files(configurations.ours(name), name) | there
    ours = _yaml_files(configurations.CONF / last, PurePath("conf", last)) | there
    if near := difflib.get_close_matches(file.stem, list(ours), n=1, cutoff=NEAR):
        return f"{key}: there is no file {typed.shown(file)}; did you mean {ours[near[0]]}?"
    listed = f"; there are {', '.join(there.values())}" if 0 < len(there) <= 12 else ""
    return f"{key}: there is no file {typed.shown(file)}{listed}."


def _yaml_files(folder: Path | None, shown: PurePath) -> dict[str, str]:
    """The YAML files of a folder: name without ending -> path as the user would write it."""
    return {path.stem: str(shown / path.name) for path in sorted(folder.glob("*.yaml"))} if folder else {}


def _unknown_class(lines: Sequence[str]) -> str | None:
    base, word = None, "this class"
    for index, line in enumerate(lines):
        if match := re.search(r"Expected a path but (\S+) either", line):
            word = match[1]
        if match := re.search(r"Import path does not correspond to a subclass of (\w+)", line):
            return f"{_key(lines[:index])}: {word} is not a {match[1]}."
        if match := BASE.search(line):
            base = match[1]
        if not (match := NO_CLASS.search(line)):
            continue
        key = _key(lines[:index])
        if match[4]:
            return f"{key}: there is no module {match[4]}."
        if match[2]:  # the parser has imported the module; nothing is imported for a message
            module = vars(sys.modules.get(match[2], object))
            near = did_you_mean(match[3], [name for name, value in module.items() if inspect.isclass(value)])
            return f"{key}: there is no class {match[2]}.{match[3]}{near}"
        near = did_you_mean(match[1], [kind.__name__ for kind in _subclasses(_import(base))] if base else [])
        return f"{key}: there is no class {match[1]}{near}"
    return None


def _wrong_value(lines: Sequence[str]) -> str | None:
    other = re.compile("NoneType|Expected a path")
    first = next((index for index, line in enumerate(lines) if "Expected a " in line and not other.search(line)), None)
    if first is None:
        return None
    key, rest = _key(lines[:first]), lines[first:]
    value = next((found[1] for line in rest if (found := VALUE.search(line))), "")
    depth = len(rest[0]) - len(rest[0].lstrip())
    same = [line for line in rest if len(line) - len(line.lstrip()) == depth]  # one line for each type of a union
    words = [word.strip(" '") for line in same if (found := LITERAL.search(line)) for word in found[1].split(",")]
    if words:
        near = did_you_mean(value, words)
        return f"{key} is {value!r}; it must be one of {', '.join(dict.fromkeys(words))}{near}"
    kinds = [KINDS.get(found[1], f"a {found[1]}") for line in same if (found := EXPECTED.search(line))]
    kinds = [kind for kind in dict.fromkeys(kinds) if kind != "a NoneType"]
    if kinds == [KINDS["str"]] and not isinstance(as_yaml(value), str):
        return f"{key} is {value}, and it must be text; in a file, write it in quotes."
    return f"{key} is {value!r}; it must be {' or '.join(kinds)}." if kinds else None


def as_yaml(text: str) -> object:
    """The value of a setting in YAML, or the text itself if it isn't YAML."""
    try:
        return yaml_text.load_setting(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _key(lines: Sequence[str]) -> str:
    """The dotted key of the `Parser key` lines so far; jsonargparse repeats some."""
    path: list[str] = []
    for line in lines:
        path += [part for part in KEY.findall(line) if path[-1:] != [part]]
    return ".".join(path).replace("init_args.", "")


def _on_one_line(lines: Sequence[str]) -> str:
    """A message of another form, without the lines about a union's other types."""
    noise = ("Does not validate against", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
    return " ".join(line.strip() for line in lines if line.strip() and not line.strip().startswith(noise))


def _import(path: str | None) -> type[object]:
    module, _, name = (path or "builtins.object").rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if inspect.isclass(found) else object


def _subclasses(kind: type[object]) -> Iterator[type[object]]:
    child: type[object]
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)
