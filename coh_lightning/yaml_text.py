"""Settings in YAML, read and written by one set of rules: what is written reads back unchanged.

Reading follows YAML 1.2 where PyYAML (YAML 1.1) would change what people wrote:

    1e-4  1e5          numbers                      (PyYAML: text)
    yes  no  on  off   text; a setting that is true or false takes them all the same  (PyYAML: booleans)
    010                ten                          (PyYAML: eight)
    12:30              text                         (PyYAML: 750)
    2026-01-31         text                         (PyYAML: a date)
    {a: 1, a: 2}       an error                     (PyYAML: the last one counts)

Keys that differ in YAML and are equal in Python (true and 1, 1 and 1.0) count as duplicates.

Writing quotes every text that this reader, PyYAML or OmegaConf could read as something else, and escapes every
character that is not printable.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import yaml

INT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+")
FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
TAG = "tag:yaml.org,2002:"


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader with the rules above."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


class Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which also quotes what `Loader` would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class DuplicateKeyError(yaml.MarkedYAMLError):
    """A mapping has a key twice. The mark is the place of the second."""


for kind, pattern, first in (
    ("bool", re.compile("true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("int", INT, "-+0123456789"),
    ("float", FLOAT, "-+.0123456789"),
    ("null", re.compile("~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("merge", re.compile("<<"), "<"),
):
    whole = re.compile(f"(?:{pattern.pattern})$")
    Loader.add_implicit_resolver(TAG + kind, whole, list(first))
    if kind != "merge":
        Dumper.add_implicit_resolver(TAG + kind, whole, list(first))


def _unreadable(node: yaml.ScalarNode, wanted: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, f"{node.value!r} is not {wanted}", node.start_mark)


def _int(loader: Any, node: yaml.ScalarNode) -> int:
    text = node.value
    try:
        return int(text) if text.lstrip("-+0_").isdecimal() or not text.strip("-+0_") else int(text, 0)
    except ValueError as error:  # under an explicit tag: !!int x
        raise _unreadable(node, "a whole number") from error


def _float(loader: Any, node: yaml.ScalarNode) -> float:
    text = node.value.replace("_", "").lower()
    try:
        return float(re.sub(r"\.(inf|nan)$", r"\1", text))
    except ValueError as error:
        raise _unreadable(node, "a number") from error


Loader.add_constructor(TAG + "int", _int)
Loader.add_constructor(TAG + "float", _float)


def _text(dumper: Dumper, data: str) -> yaml.ScalarNode:
    plain = all(character.isprintable() for character in data)
    return dumper.represent_scalar(TAG + "str", str(data), style=None if plain else '"')


Dumper.add_representer(str, _text)
Dumper.add_multi_representer(str, _text)


def load(text: str | bytes) -> Any:
    """The value of a YAML text. Raises DuplicateKeyError if a mapping has a key twice, compared as Python does (1, 1.0
    and true are equal), and yaml.YAMLError if it is not YAML.
    """
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_keys(loader, node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deep") from error
    finally:
        loader.dispose()


def _check_keys(loader: Any, root: yaml.Node) -> None:
    """Raises a `DuplicateKeyError` for the first duplicate key, before construction merges `<<` into the nodes."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)
        elif isinstance(node, yaml.MappingNode):
            waiting += [value for _, value in reversed(node.value)]
            first: dict[Any, yaml.ScalarNode] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag == TAG + "merge":
                    continue
                before = first.setdefault(loader.construct_object(key), key)
                if before is not key:
                    line = before.start_mark.line + 1
                    same = before.value == key.value
                    name = repr(key.value) if same else f"{key.value!r} counts as {before.value!r}, which"
                    again = f"on line {line} already"
                    if line == key.start_mark.line + 1:
                        again = "twice" if same else "there already"
                    raise DuplicateKeyError(
                        problem=f"the key {name} is set {again}; leave one out", problem_mark=key.start_mark
                    )


def load_setting(text: str) -> Any:
    """`load` for the value of a setting: a word before a colon, or words in braces, are text, not keys without values.

    "Answer:"  ->  "Answer:"        "{rating}"  ->  "{rating}"        "{rating: 5}"  ->  {"rating": 5}
    """
    value = load(text)
    if isinstance(value, Mapping) and value and "\n" not in text.strip() and all(one is None for one in value.values()):
        return text
    return value


def dump(data: Any) -> str:
    """`data` as YAML, in the order of its keys, one line for each text."""
    return yaml.dump(
        data, Dumper=Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False, width=sys.maxsize
    )


def escaped(data: Any) -> Any:
    """`data` with each `${` in its texts escaped: unescaped, `${name}` is a reference to that setting."""
    if isinstance(data, str):
        return re.sub(r"(\\*)\$\{", lambda found: "\\" * (2 * len(found[1])) + r"\${", data) if "${" in data else data
    if isinstance(data, Mapping):
        return {key: escaped(value) for key, value in data.items()}
    return [escaped(value) for value in data] if isinstance(data, (list, tuple)) else data


def key_lines(text: str) -> dict[tuple[Any, ...], int]:
    """Path of each key and list item of a YAML text -> its line, from 1.

    a:          {(): 1, ("a",): 1, ("a", "b"): 2, ("a", "b", 0): 2}
      b: [c]
    """
    loader = Loader(text)
    try:
        root = loader.get_single_node()
        found: dict[tuple[Any, ...], int] = {}
        waiting: list[tuple[tuple[Any, ...], yaml.Node, int]] = [] if root is None else [((), root, 1)]
        while waiting:
            path, node, line = waiting.pop()
            found[path] = line
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    name = loader.construct_object(key) if isinstance(key, yaml.ScalarNode) else None
                    waiting.append(((*path, name), value, key.start_mark.line + 1))
            elif isinstance(node, yaml.SequenceNode):
                for place, value in enumerate(node.value):
                    waiting.append(((*path, place), value, value.start_mark.line + 1))
        return found
    finally:
        loader.dispose()
