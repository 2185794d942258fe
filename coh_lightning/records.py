"""The records that go in and come out: `Feedback` (what people said of completions), `Completion` (what a model wrote),
`Judgement` (what a rater said of it).

Each is one JSON line, read strictly: whatever a line holds is either understood or refused by file, line and key. No
torch, no Lightning: everything that touches only files imports this and nothing heavier.
"""

from __future__ import annotations

import dataclasses
import difflib
import gzip
import hashlib
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, Protocol, Self, TypeVar, cast, get_args

from coh_lightning.checks import checked_object, checked_text, number, optional_text
from coh_lightning.content import is_parts, joined_parts
from coh_lightning.errors import InputError, did_you_mean, named, shown, words_of
from coh_lightning.files import written_aside

Role = Literal["system", "user", "assistant"]
Cut = Literal["never", "front", "back"]

ROLES: tuple[str, ...] = get_args(Role)
CUTS: tuple[str, ...] = get_args(Cut)
DEVELOPER = "developer"
"""The newer name that OpenAI's clients give to the system's role."""

LONGEST_LINE = 32 * 2**20
"""Bytes of one line that are read; a longer one is no record, and what it would take as Python objects is many times
that.
"""
LARGEST_WHOLE = 2**29
"""Bytes of a file that can't be read line by line (JSON, CSV, text)."""
MOST_VALUES = 10_000_000
"""Of a file of JSON that is read at once: a value of two letters is 60 bytes in Python."""
DEEPEST = 200
"""Levels of objects and lists in JSON; a tree of messages has two for each message."""
FREELY_UNPACKED = 32 * 2**20
MOST_UNPACKED = 100
"""A compressed file may unpack to so many bytes, or to so many times its own size if that is more; text packs ten times
or so, a bomb a thousand times.
"""

_PLACES: dict[str, tuple[str, ...]] = {
    "record": ("id", "prompt", "system", "completions", "scale", "task", "aspect", "reference", "source", "extra"),
    "completion": ("text", "rank", "rating", "thumb", "critique", "revision", "author"),
    "message": ("role", "content"),
    "part": ("text", "cut"),
}
"""The keys that each place of a feedback line knows."""

BESIDE_CONTENT = frozenset(
    "tool_calls tool_call tool_call_id function_call function_calls tools functions reasoning_content reasoning "
    "reasoning_details "
    "thinking thoughts thinking_blocks refusal audio image images image_url video videos".split()
)
"""Keys of a message that change what it says and that no text of ours holds: without them a model would learn to stop
where it should call or think.
"""
BESIDE_COMPLETION = frozenset(
    "tool_calls tool_call function_call function_calls reasoning_content reasoning_details thinking_blocks".split()
)
"""Likewise of a completion, where `reasoning` may as well be what a rater wrote."""
BESIDE_PROMPT = frozenset("tools functions image images video videos audio".split())
"""Likewise of a whole row."""


_BESIDE = {"record": BESIDE_PROMPT, "message": BESIDE_CONTENT, "completion": BESIDE_COMPLETION}


@dataclass(frozen=True)
class Part:
    """A piece of a turn's text, and from which end truncation may take tokens away: a post's body may be cut, a task
    sentence never.
    """

    text: str
    cut: Cut = "never"


@dataclass(frozen=True)
class Turn:
    """One turn of the prompt: its parts joined are its text."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Candidate:
    """One completion of a prompt, and what people said of it. Any mix of the kinds of feedback, any polarity."""

    text: str
    rank: float | None = None
    """Place among the candidates of the record: smaller is better, equal is a tie. None beside ranked candidates: this
    one was not ranked.
    """
    ratings: Mapping[str, float] = field(default_factory=dict)
    """Attribute -> value on its scale; a plain number stands under "overall"."""
    thumb: bool | None = None
    critique: str | None = None
    """What somebody said of it, in words."""
    revision: str | None = None
    """A better text that somebody wrote in its place."""
    author: str | None = None


@dataclass(frozen=True)
class Feedback:
    """One prompt, k >= 1 completions of it, and what people said of each.

    The constructor checks what every later stage relies on, so that it holds whoever made the record: a prompt that
    ends in a user turn with words in it, completions that are not empty, finite ranks, ratings inside their scales, and
    text that can be written as UTF-8.

    Raises:
        InputError: naming `where`, the key as in the JSON form, and what was found.

    As one JSON line (only `prompt` and `completions[].text` are required)::

        {"id": "7", "system": "Be brief.", "prompt": "Why is the sky blue?", "scale": [1, 5], "task": "answer",
        "aspect": "helpful",
         "completions": [{"text": "Air scatters blue light most.", "rank": 1, "rating": 5},
                         {"text": "It mirrors the sea.", "rank": 2, "rating": 1, "critique": "That is a myth.",
                         "revision": "Air scatters blue."}],
         "reference": "Because of Rayleigh scattering."}

    `prompt` may also be messages, `[{"role": "user", "content": "..."}, ...]`; a prompt text or a content may be a list
    of parts, `{"text": ..., "cut": ...}`, or of text parts as chat clients write them, `{"type": "text", "text": ...}`,
    which are joined. The role `developer` is read as `system`.
    """

    id: str
    prompt: tuple[Turn, ...]
    """An optional system turn first; the last turn is the user's."""
    candidates: tuple[Candidate, ...]
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Attribute -> (worst, best) value of its ratings."""
    task: str = "answer"
    """The noun for a completion: answer, summary, response, ... Wordings may speak differently of each."""
    aspect: str | None = None
    """What rank and thumb judged (helpful, harmless, ...); None is overall quality."""
    reference: str | None = None
    """A text written by a person to compare completions with (ROUGE); never trained on."""
    source: str = ""
    where: str = ""
    """File and line that it came from, for messages."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    copy: int = 1
    """Which repetition of the record this is, where a source's weight repeats it: 1 is the record itself. Made when
    sources are mixed; no part of the JSON form.
    """

    def __post_init__(self) -> None:
        where = self.where or f"record {self.id or '(no id)'}"
        for key, name in ((self.id, "id"), (self.task, "task")):
            checked_text(key, name, where)
        for optional, name in ((self.aspect, "aspect"), (self.reference, "reference")):
            if optional is not None:
                checked_text(optional, name, where)
        _check_prompt(self.prompt, where)
        if not self.candidates:
            raise InputError(f"{where}: completions is empty; a record needs at least one completion.")
        for attribute, (worst, best) in self.scales.items():
            if not math.isfinite(best - worst) or worst == best:
                raise InputError(
                    f"{where}: the scale of {attribute!r:.60} is [{worst:g}, {best:g}]; give two different finite "
                    "numbers, [worst, best]."
                )
        for index, candidate in enumerate(self.candidates):
            _check_candidate(candidate, f"completions[{index}]", self.scales, where)

    @classmethod
    def from_json(cls, obj: object, where: str) -> Feedback:
        """Read the JSON form (see the class). Raises InputError naming `where`, the key, what was found, and the
        nearest known key of a mistyped one.

        Unknown keys that resemble no known one are kept in `extra`; a record without an id gets one from its content,
        the same wherever it stands.
        """
        record = _known(obj, "record", "the line", where)
        extra = dict(checked_object(record.get("extra", {}), "extra", where)) | record["unknown"]
        for name in ("prompt", "completions"):
            if name not in record:
                raise InputError(
                    f"{where}: the key {name!r} is missing; a feedback line needs 'prompt' and 'completions'."
                )
        turns, unknown_by_turn = _prompt_from_json(record["prompt"], where)
        extra |= unknown_by_turn
        if record.get("system") is not None:
            if turns and turns[0].role == "system":
                raise InputError(
                    f"{where}: both the key 'system' and the first message of 'prompt' give a system turn; keep one "
                    "of them."
                )
            turns = (Turn("system", (Part(checked_text(record["system"], "system", where)),)), *turns)
        if not isinstance(record["completions"], list):
            raise InputError(
                f"{where}: completions is {shown(record['completions'])}; give a list of objects, each with 'text'."
            )
        candidates = []
        for index, item in enumerate(record["completions"]):
            candidate, unknown = _candidate_from_json(item, f"completions[{index}]", where)
            candidates.append(candidate)
            if unknown:
                extra[f"completions[{index}]"] = unknown
        feedback = cls(
            id=checked_text(record.get("id", ""), "id", where),
            prompt=turns,
            candidates=tuple(candidates),
            scales=_scales_from_json(
                record.get("scale"), {name for candidate in candidates for name in candidate.ratings}, where
            ),
            task=checked_text(record.get("task", "answer"), "task", where),
            aspect=optional_text(record.get("aspect"), "aspect", where),
            reference=optional_text(record.get("reference"), "reference", where),
            source=checked_text(record.get("source", ""), "source", where),
            where=where,
            extra=extra,
        )
        return feedback if feedback.id else dataclasses.replace(feedback, id=content_id(feedback))

    def to_json(self) -> dict[str, Any]:
        """The JSON form; `from_json` reads it back as an equal record, but for `where`, which says where a line was
        read.
        """
        out: dict[str, Any] = {"id": self.id, "prompt": [_turn_to_json(turn) for turn in self.prompt]}
        out["completions"] = [_candidate_to_json(candidate) for candidate in self.candidates]
        if self.scales:
            out["scale"] = {attribute: list(scale) for attribute, scale in self.scales.items()}
        out["task"] = self.task
        for name in ("aspect", "reference"):
            if getattr(self, name) is not None:
                out[name] = getattr(self, name)
        if self.source:
            out["source"] = self.source
        if self.extra:
            out["extra"] = dict(self.extra)
        return out


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one prompt under one feedback sentence, with all that is needed to write it again."""

    id: str
    prompt_id: str
    """Id of the record that the prompt came from."""
    system: str
    """Name of the model or run that wrote it."""
    prompt: str
    """The exact text that was continued, feedback sentence included."""
    prompt_sha: str
    """SHA-256 of the record's prompt without the feedback sentence: equal for all systems and asks that are
    compared.
    """
    ask: str
    """Which kind of output was asked for: "good", "bad", ... or "" for none."""
    marker: str
    """The feedback sentence itself."""
    text: str
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Temperature, top_p, max_new_tokens, ..."""
    stop: str = ""
    """Why it ended: "end" (the end token), "marker" (it went on with a feedback sentence, which is cut off), "length",
    ...
    """
    seed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reference: str | None = None
    task: str = "answer"
    source: str = ""
    shown: str | None = None
    """The prompt as people read it, without the feedback sentence: what a rater is shown."""
    human: str | None = None
    """In a pseudo-dialogue, what the user said last: the turns of `shown` before it hold what this system wrote
    itself.
    """
    scores: Mapping[str, float] = field(default_factory=dict)
    """What raters in code said of it."""

    _types: ClassVar[dict[str, tuple[type, ...]]] = {
        **dict.fromkeys(
            ("id", "prompt_id", "system", "prompt", "prompt_sha", "ask", "marker", "text", "stop", "task", "source"),
            (str,),
        ),
        **dict.fromkeys(("sampling", "scores"), (dict,)),
        **dict.fromkeys(("seed", "prompt_tokens", "completion_tokens"), (int,)),
        **dict.fromkeys(("reference", "shown", "human"), (str, type(None))),
    }

    @classmethod
    def from_json(cls, obj: object, where: str) -> Completion:
        """Read one line of `completions.jsonl`. Raises InputError naming `where` and the key."""
        values = _flat_from_json(cls, cls._types, obj, where)
        try:
            json.dumps(values.get("sampling"), ensure_ascii=False, allow_nan=False).encode("utf-8")
        except ValueError as error:
            raise InputError(
                f"{where}: sampling holds what no file can: a number that is not finite, or half a character."
            ) from error
        if "scores" in values:
            values["scores"] = {
                checked_text(name, "scores", where): number(value, f"scores.{named(name)}", where)
                for name, value in values["scores"].items()
            }
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def place_on_scale(value: float, worst: float, best: float) -> float:
    """Where a rating stands between the worst (0) and the best (1) value; rounded, so that binary fractions don't take
    it off a bound: 2.8 of 1 to 10 is 0.2.
    """
    return round((value - worst) / (best - worst), 9)


def prompt_sha(record: Feedback) -> str:
    """A hash of a record's whole prompt, roles included, that any system's completion of the same prompt carries."""
    return hashlib.sha256(
        json.dumps([(turn.role, turn.text) for turn in record.prompt]).encode("utf-8", "surrogatepass")
    ).hexdigest()


def read_prompt(turns: Sequence[Turn]) -> str:
    """A prompt as people read it: one turn bare, a conversation with its roles before its turns."""
    return turns[0].text if len(turns) == 1 else "\n\n".join(f"{turn.role.capitalize()}: {turn.text}" for turn in turns)


@dataclass(frozen=True)
class Judgement:
    """What one rater said of the two completions of one item, on one attribute: one line of `judgements.jsonl`."""

    item: str
    row: str
    """The very showing that was answered: a rater may see an item twice, its sides swapped."""
    prompt_id: str
    rater: str
    attribute: str
    choice: str
    """The name of the chosen system, or "tie"."""
    systems: tuple[str, ...]
    """The systems that were compared, in the order shown to the rater: left, right."""
    check: str = ""
    """What the row was there to test: "" (nothing: it counts), "swap" (shown again, sides swapped), "identical" (equal
    texts), "gold" (an obvious answer).
    """
    passed: bool | None = None
    """Whether the check was answered rightly; None where no one answer is right."""
    seconds: float | None = None
    comment: str = ""

    _types: ClassVar[dict[str, tuple[type, ...]]] = {
        **dict.fromkeys(("item", "row", "prompt_id", "rater", "attribute", "choice", "check", "comment"), (str,)),
        "systems": (list,),
        "passed": (bool, type(None)),
        "seconds": (int, float, type(None)),
    }

    @classmethod
    def from_json(cls, obj: object, where: str) -> Judgement:
        """Read one line of judgements. Raises InputError naming `where` and the key."""
        values = _flat_from_json(cls, cls._types, obj, where)
        if len(values["systems"]) != 2:
            raise InputError(
                f"{where}: systems is {shown(values['systems'])}; it must be the two that were compared, left and "
                "right."
            )
        values["systems"] = tuple(checked_text(name, "systems", where) for name in values["systems"])
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in (dataclasses.asdict(self) | {"systems": list(self.systems)}).items()
            if value is not None
        }


@dataclass(frozen=True)
class Rejected:
    """A row or record that was left out, and why: one line of `rejected.jsonl`."""

    reason: str
    where: str = ""
    source: str = ""
    id: str = ""
    detail: str = ""
    """What `reason`, which is the same for many rows, leaves out: which message, which character."""
    unreadable: bool = False
    """Whether the row was bad input (skipped by `on_bad_record: skip`) and not merely of no use here."""

    def to_json(self) -> dict[str, Any]:
        """A lone surrogate, in what a message quotes of a bad row, is spelt out: no file can hold it."""
        values = {
            name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
            for name, value in vars(self).items()
        }
        return {name: value for name, value in values.items() if value not in ("", False)}


class JsonRecord(Protocol):
    """Whatever `read_jsonl` and `write_jsonl` handle: Feedback, Completion, Judgement."""

    @classmethod
    def from_json(cls, obj: object, where: str) -> Self: ...

    def to_json(self) -> dict[str, Any]: ...


class Writable(Protocol):
    def to_json(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=JsonRecord)


def content_id(feedback: Feedback) -> str:
    """An id made of prompt, completions, what was said of them and the task: the same in every file and place,
    different for any other content.
    """
    content = feedback.to_json()
    for name in ("id", "source", "extra"):
        content.pop(name, None)
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode("ascii"), digest_size=8).hexdigest()


def read_jsonl(path: Path | str, kind: type[R]) -> Iterator[R]:
    """The records of a JSON-lines file (or .gz), one by one.

    Equal records without an id of their own are kept, as id, id#2, ...; an id that a file gives twice is refused.

    Raises:
        InputError: a missing or empty file, bytes that are no text, broken JSON, anything off schema, an id given
            twice; each naming file and line.
    """
    seen: dict[str, str] = {}
    for where, line in read_lines(path):
        if isinstance(line, InputError):
            raise line
        record = kind.from_json(parse_json(line, where), where)
        yield cast("R", unique(record, seen, where)) if isinstance(record, Feedback) else record


def unique(record: Feedback, seen: dict[str, str], where: str) -> Feedback:
    """The record with an id that `seen` (id -> where) does not hold yet, and note it there. Raises InputError when its
    own, given id is taken.
    """
    id = record.id
    if id in seen:
        if id != content_id(record):
            raise InputError(
                f"{where}: the id {id!r:.60} was given before, at {seen[id]}; every record needs an id of its own "
                "(or none: it is then made)."
            )
        copy = 2
        while (id := f"{record.id}#{copy}") in seen:
            copy += 1
        record = dataclasses.replace(record, id=id)
    seen[id] = where
    return record


def write_jsonl(path: Path | str, records: Iterable[Writable]) -> int:
    """Write the records beside the file and rename at the end, so that nobody ever reads half a file; returns how many.
    A name in .gz is compressed.

    Raises:
        InputError: the name asks for another compression, or the file can't be written.
    """
    if Path(path).suffix.lower() in PACKED[1:]:
        raise InputError(f"{path}: files are written plain or as .gz; give a name that ends in .jsonl or .jsonl.gz.")
    count = 0
    with written_aside(path) as aside, aside.open("wb") as plain:
        # Neither time nor name in a compressed file: the same records give the same bytes.
        compressed = gzip.GzipFile("", "wb", mtime=0, fileobj=plain) if Path(path).suffix.lower() == ".gz" else None
        file = cast("IO[bytes]", compressed or plain)
        for record in records:
            file.write((json.dumps(record.to_json(), ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"))
            count += 1
        if compressed is not None:
            compressed.close()
    return count


def read_lines(path: Path | str) -> Iterator[tuple[str, str | InputError]]:
    """("file:line", text) of each line with something in it; a line of bytes that are no text, or one that is far too
    long, comes as an InputError, so that a caller may skip it.

    Lines end at "\\n" alone: U+2028 and its kind are ordinary text.

    Raises:
        InputError: the file is missing, empty, or broken as a gzip file.
    """
    path = Path(path)
    any_line = False
    with open_bytes(path) as file:
        number = 0
        try:
            while raw := file.readline(LONGEST_LINE + 1):
                number += 1
                where = f"{path}:{number}"
                if len(raw) > LONGEST_LINE:
                    any_line = True
                    while raw and not raw.endswith(b"\n"):
                        raw = file.readline(LONGEST_LINE)
                    yield (
                        where,
                        InputError(
                            f"{where}: the line is longer than {LONGEST_LINE >> 20} MiB, so it is no record; end "
                            "each record with a line end."
                        ),
                    )
                    continue
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if not raw.strip():
                    continue
                any_line = True
                try:
                    yield where, raw.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    yield where, not_text(where, error)
        except UNREADABLE as error:
            raise InputError(
                f"{path}:{number + 1}: the file can't be read on ({words_of(error)}); is it whole?"
            ) from error
    if not any_line:
        raise InputError(f"{path}: the file is empty.")


def not_text(where: str, error: UnicodeDecodeError) -> InputError:
    bad = bytes(error.object[error.start : error.start + 1]).hex()
    return InputError(f"{where}: bytes that are no text (0x{bad} at byte {error.start + 1}); save the file as UTF-8.")


UNREADABLE = (EOFError, OSError, zlib.error)
"""What reading a damaged file, packed or not, may raise."""

PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Endings of compressed files that are read as what they hold."""


class _Unpacked(io.RawIOBase):
    """The content of a packed file, which is refused where it grows out of all proportion: a bomb of some kilobytes
    unpacks to gigabytes.
    """

    def __init__(self, path: Path) -> None:
        self._file = _unpacker(path)
        self._path = path
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._file.read(len(buffer))
        except UNREADABLE:
            raise
        except Exception as error:  # lzma and pyarrow have exceptions of their own for damaged data
            raise OSError(words_of(error)) from error
        buffer[: len(piece)] = piece
        self._count += len(piece)
        check_unpacked(self._path, self._count)
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()


def _unpacker(path: Path) -> IO[bytes]:
    """A file to read the content of a packed one from. Raises InputError where the package that unpacks it is
    missing.
    """
    suffix = path.suffix.lower()
    package = {".bz2": "Python's bz2", ".xz": "Python's lzma", ".zst": "pyarrow with zstd"}.get(suffix, "Python's gzip")
    try:
        if suffix == ".bz2":
            import bz2

            return cast("IO[bytes]", bz2.open(path, "rb"))
        if suffix == ".xz":
            import lzma

            return cast("IO[bytes]", lzma.open(path, "rb"))
        if suffix == ".zst":
            import pyarrow

            return cast("IO[bytes]", pyarrow.input_stream(str(path), compression="zstd"))
        return cast("IO[bytes]", gzip.open(path, "rb"))
    except (ImportError, NotImplementedError) as error:
        raise InputError(
            f"{path}: reading {suffix} needs {package}, which is not installed here; install it, or unpack the file."
        ) from error


def check_unpacked(path: Path, count: int) -> None:
    """Raises InputError where a compressed file has become `count` bytes and that is out of all proportion to its
    size.
    """
    most = max(FREELY_UNPACKED, MOST_UNPACKED * path.stat().st_size)
    if count > most:
        raise InputError(
            f"{path}: it unpacks to more than {most:,} bytes, {most // max(path.stat().st_size, 1)} times its size; "
            "unpack it yourself if it is right."
        )


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in one of `PACKED`. Raises InputError when it is missing (with the
    nearest name beside it) or no file.
    """
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{path}: there is no such file{did_you_mean(path.name, beside)}")
    if not path.is_file():
        raise InputError(f"{path}: this is not a file.")
    return io.BufferedReader(_Unpacked(path), 2**16) if path.suffix.lower() in PACKED else path.open("rb")


def read_text(path: Path) -> str:
    """The whole text of a file, packed or not, without a byte order mark.

    Raises:
        InputError: the file is missing, damaged, no text, or too large to be read at once.
    """
    raw = bytearray()
    with open_bytes(path) as file:
        try:
            while piece := file.read(2**20):
                raw += piece
                if len(raw) > LARGEST_WHOLE:
                    raise InputError(
                        f"{path}: it is larger than {LARGEST_WHOLE >> 20} MiB and would have to be read at once; "
                        "split it, or give JSON lines."
                    )
        except UNREADABLE as error:
            raise InputError(f"{path}: the file can't be read ({words_of(error)}); is it whole?") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise not_text(f"{path}:{line}", error) from error


def parse_json(text: str, where: str, *, whole: bool = False, unique: bool = False) -> Any:
    """The value of one line of JSON (or, with `whole`, of a whole file). Raises InputError naming `where` and the
    column (or the file's line and column).

    With `unique`, an object that has a key twice is refused; Python's reader would silently take the last.
    """
    if whole and (values := text.count(",") + text.count("[") + text.count("{")) > MOST_VALUES:
        raise InputError(
            f"{where}: it holds some {values:,} values, and more than {MOST_VALUES:,} are not read at once; split "
            "it, or give JSON lines."
        )
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys) if unique else json.loads(text)
    except _KeyTwice as error:
        raise InputError(
            f"{where}: the key {str(error)!r:.60} stands twice in one object; keep one of the two."
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}{f':{error.lineno}' if whole else ''}: broken JSON at column {error.colno} ({error.msg})."
        ) from error
    except RecursionError as error:
        raise InputError(f"{where}: broken JSON (nested too deeply).") from error
    except ValueError as error:  # Python reads no whole number of more than 4300 digits
        raise InputError(f"{where}: broken JSON (a number of too many digits).") from error
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise InputError(f"{where}: broken JSON (nested more than {DEEPEST} deep).")
    return value


class _KeyTwice(Exception):
    pass


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _KeyTwice(next(key for place, key in enumerate(keys) if key in keys[:place]))
    return values


def _is_deep(value: object) -> bool:
    """Whether a JSON value is nested so deeply that what walks through it by calling itself could meet Python's
    limit.
    """
    level: list[Any] = [[value]]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


# ----------------------------------------------------------------------------------------------------------------
# checks


def refuse_beside_content(message: Mapping[Any, Any], key: str, where: str, names: Set[str] = BESIDE_CONTENT) -> None:
    """Raises InputError where a message (or a completion, or a row: `names`) says something beside its text, such as
    the call of a tool.
    """
    for name in message:
        if name in names and message[name] not in (None, False, "", [], {}):
            raise InputError(
                f"{where}: {key} has {name!r} beside its text ({shown(message[name])}), which would be lost; write "
                "it into the text, or leave the row out."
            )


def _check_prompt(prompt: Sequence[Turn], where: str) -> None:
    if not any(turn.role == "user" for turn in prompt):
        raise InputError(f"{where}: prompt has no user turn; its last turn must be the user's.")
    for index, turn in enumerate(prompt):
        if turn.role not in ROLES:
            raise InputError(
                f"{where}: prompt[{index}].role is {turn.role!r:.60}; it must be one of {', '.join(ROLES)}."
            )
        if turn.role == "system" and index:
            raise InputError(
                f"{where}: prompt[{index}] is a system turn; a prompt has at most one, and it comes first."
            )
        for part in turn.parts:
            checked_text(part.text, f"prompt[{index}]", where)
            if part.cut not in CUTS:
                raise InputError(
                    f"{where}: prompt[{index}] has a part with cut {part.cut!r:.60}; it must be one of "
                    f"{', '.join(CUTS)}."
                )
    if prompt[-1].role != "user":
        raise InputError(f"{where}: prompt ends with the {prompt[-1].role}'s turn; its last turn must be the user's.")
    if not prompt[-1].text.strip():
        raise InputError(f"{where}: prompt ends with an empty user turn.")


def _check_candidate(candidate: Candidate, key: str, scales: Mapping[str, tuple[float, float]], where: str) -> None:
    if not checked_text(candidate.text, f"{key}.text", where).strip():
        raise InputError(f"{where}: {key}.text is empty; a completion needs words.")
    if candidate.rank is not None:
        number(candidate.rank, f"{key}.rank", where)
    for attribute, value in candidate.ratings.items():
        name = f"{key}.rating" if attribute == "overall" else f"{key}.rating.{named(attribute)}"
        number(value, name, where)
        if attribute not in scales:
            raise InputError(
                f"{where}: {name} is {value:g}, but nothing says on which scale; give 'scale': [worst, best], or one "
                "for each attribute by its name "
                "(in a Mapping, scales: {overall: [worst, best]})."
            )
        if not min(scales[attribute]) <= value <= max(scales[attribute]):
            worst, best = scales[attribute]
            raise InputError(f"{where}: {name} is {value:g}, outside its scale {worst:g} to {best:g}.")
    if candidate.thumb is not None and not isinstance(candidate.thumb, bool):
        raise InputError(f"{where}: {key}.thumb is {shown(candidate.thumb)}; it must be true or false.")
    for name, words in (("critique", candidate.critique), ("revision", candidate.revision)):
        if words is not None and not checked_text(words, f"{key}.{name}", where).strip():
            raise InputError(f"{where}: {key}.{name} is empty; leave the key out where there is none.")
    if candidate.author is not None:
        checked_text(candidate.author, f"{key}.author", where)


# ---------------------------------------------------------------------------------------------------------- the JSON
# form


def _known(obj: object, place: str, key: str, where: str) -> dict[str, Any]:
    """The object, its keys that this place does not know moved to "unknown"; one that is a slip of a known key is
    refused, naming that.
    """
    known = _PLACES[place]
    if place in _BESIDE:
        refuse_beside_content(checked_object(obj, key, where), key, where, _BESIDE[place])
    out: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for name, value in checked_object(obj, key, where).items():
        if name in known:
            out[name] = value
            continue
        nearest = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.75)
        if nearest:
            at = "" if place == "record" else f" in {key}"
            raise InputError(f"{where}: unknown key {name!r}{at}; did you mean {nearest[0]!r}?")
        unknown[checked_text(name, "a key", where)] = value
    out["unknown"] = unknown
    return out


def _parts_from_json(value: object, key: str, cut: Cut, where: str) -> tuple[Part, ...]:
    if isinstance(value, str):
        return (Part(value, cut),)
    if not isinstance(value, list):
        raise InputError(f"{where}: {key} is {shown(value)}; it must be text or a list of parts.")
    if is_parts(value):
        for index, item in enumerate(value):
            if beside := [
                name
                for name in item
                if name not in ("type", "text") and item["type"] == "text" and item[name] is not None
            ]:
                raise InputError(
                    f"{where}: unknown key {beside[0]!r:.60} in {key}[{index}]; a part with a 'type' has 'type' and "
                    "'text' alone."
                )
        return (Part(joined_parts(value, key, where), cut),)
    parts = []
    for index, item in enumerate(value):
        part = _known(item, "part", f"{key}[{index}]", where)
        if part["unknown"]:
            raise InputError(
                f"{where}: unknown key {next(iter(part['unknown']))!r:.60} in {key}[{index}]; a part has 'text' and "
                "'cut'."
            )
        if "text" not in part:
            raise InputError(f"{where}: {key}[{index}] has no 'text'.")
        parts.append(Part(checked_text(part["text"], f"{key}[{index}].text", where), part.get("cut", cut)))
    return tuple(parts)


def _prompt_from_json(value: object, where: str) -> tuple[tuple[Turn, ...], dict[str, Any]]:
    """Turns, and the unknown keys of messages by their place. A list whose items have a text and no role is one user
    turn of parts.
    """
    in_parts = (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and "text" in item and "role" not in item for item in value)
    )
    in_parts = in_parts or is_parts(value)
    if isinstance(value, str) or in_parts:
        return (Turn("user", _parts_from_json(value, "prompt", "front", where)),), {}
    if not isinstance(value, list):
        raise InputError(f"{where}: prompt is {shown(value)}; it must be text or a list of messages.")
    turns = []
    unknown: dict[str, Any] = {}
    for index, item in enumerate(value):
        key = f"prompt[{index}]"
        message = _known(item, "message", key, where)
        for name in ("role", "content"):
            if name not in message:
                raise InputError(f"{where}: {key} has no {name!r}; a message has 'role' and 'content'.")
        role: Any = "system" if message["role"] == DEVELOPER else message["role"]
        if role not in ROLES:
            raise InputError(
                f"{where}: {key}.role is {shown(role)}; it must be one of "
                f"{', '.join(ROLES)}{did_you_mean(str(role), ROLES)}"
            )
        turns.append(
            Turn(
                role,
                _parts_from_json(message["content"], f"{key}.content", "never" if role == "system" else "front", where),
            )
        )
        if message["unknown"]:
            unknown[key] = message["unknown"]
    return tuple(turns), unknown


def _candidate_from_json(item: object, key: str, where: str) -> tuple[Candidate, dict[str, Any]]:
    values = _known(item, "completion", key, where)
    if "text" not in values:
        raise InputError(f"{where}: {key} has no 'text'.")
    rating = values.get("rating")
    if rating is None:
        ratings: dict[str, float] = {}
    elif isinstance(rating, dict):
        ratings = {
            checked_text(name, f"{key}.rating", where): number(value, f"{key}.rating.{named(name)}", where)
            for name, value in rating.items()
        }
    else:
        ratings = {"overall": number(rating, f"{key}.rating", where)}
    candidate = Candidate(
        text=checked_text(values["text"], f"{key}.text", where),
        rank=None if values.get("rank") is None else number(values["rank"], f"{key}.rank", where),
        ratings=ratings,
        thumb=values.get("thumb"),
        critique=optional_text(values.get("critique"), f"{key}.critique", where),
        revision=optional_text(values.get("revision"), f"{key}.revision", where),
        author=optional_text(values.get("author"), f"{key}.author", where),
    )
    return candidate, values["unknown"]


def _scales_from_json(value: object, rated: Set[str], where: str) -> dict[str, tuple[float, float]]:
    """A scale for each attribute; one that is given without names is that of everything that the record rates."""
    if value is None:
        return {}
    by_attribute = value if isinstance(value, dict) else dict.fromkeys(sorted(rated) or ["overall"], value)
    scales = {}
    for attribute, ends in by_attribute.items():
        if not isinstance(ends, list) or len(ends) != 2:
            raise InputError(f"{where}: the scale of {attribute!r:.60} is {shown(ends)}; give [worst, best].")
        scales[checked_text(attribute, "scale", where)] = (
            number(ends[0], f"scale.{named(attribute)}", where),
            number(ends[1], f"scale.{named(attribute)}", where),
        )
    return scales


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    cut: Cut = "never" if turn.role == "system" else "front"
    if len(turn.parts) == 1 and turn.parts[0].cut == cut:
        return {"role": turn.role, "content": turn.text}
    return {"role": turn.role, "content": [{"text": part.text, "cut": part.cut} for part in turn.parts]}


def _candidate_to_json(candidate: Candidate) -> dict[str, Any]:
    out: dict[str, Any] = {"text": candidate.text}
    if candidate.rank is not None:
        out["rank"] = candidate.rank
    if candidate.ratings:
        out["rating"] = dict(candidate.ratings)
    for name in ("thumb", "critique", "revision", "author"):
        if getattr(candidate, name) is not None:
            out[name] = getattr(candidate, name)
    return out


def _flat_from_json(cls: type, types: Mapping[str, tuple[type, ...]], obj: object, where: str) -> dict[str, Any]:
    """The values of a flat record, each of one of its types. Unknown and missing keys are refused."""
    values = checked_object(obj, "the line", where)
    for name, value in values.items():
        if name not in types:
            raise InputError(f"{where}: unknown key {name!r:.60} for a {cls.__name__}{did_you_mean(name, types)}")
        kinds = types[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise InputError(f"{where}: {name} is {shown(value)}; it must be {wanted}.")
        if isinstance(value, str):
            checked_text(value, name, where)
        if isinstance(value, float):
            number(value, name, where)
    for entry in dataclasses.fields(cls):
        if (
            entry.default is dataclasses.MISSING
            and entry.default_factory is dataclasses.MISSING
            and entry.name not in values
        ):
            raise InputError(f"{where}: the key {entry.name!r} of a {cls.__name__} is missing.")
    return dict(values)
