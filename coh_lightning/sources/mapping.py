"""Any other format, by a mapping of fields: where in a row the prompt, the completions and what people said of them
stand. `conf/data/` has worked examples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from coh_lightning.errors import InputError
from coh_lightning.records import Candidate, Feedback, Rejected
from coh_lightning.sources.base import Source
from coh_lightning.sources.dialogue import is_messages, turn_of_message, turns_of_messages, turns_of_text
from coh_lightning.sources.fields import BESIDE, DOWN, ITSELF, KEY, PLACES, UP, Fields, Piece, paths_of
from coh_lightning.sources.files import Row
from coh_lightning.sources.history import turns_of_history
from coh_lightning.sources.items import Item, items_of
from coh_lightning.sources.paths import has_column, steps_of, value_at
from coh_lightning.sources.preferences import NO_VOTE, Preferences
from coh_lightning.sources.reader import Reader
from coh_lightning.sources.values import Table, normal
from coh_lightning.sources.votes import Pairs, best_and_worse
from coh_lightning.turns import Part, Turn, is_typed_parts, user_turn


@dataclass(frozen=True)
class Mapping(Source):
    """Rankings, ratings, critiques, thumbs and votes in files of any shape.

    A path is the name of a column, or names and list places with dots between: `annotations.helpfulness.Rating`,
    `references.0`, `chat.-1.content`, `chat.:-1`, `votes.*.score`, `systems."gpt-3.5".text`; `sources/paths.py` has the
    grammar. A name that a row lacks is refused with the nearest one. A value that is null, blank or one of `missing`
    means that nobody said this. Several raters' ratings (a list) count with their mean, several critiques are joined by
    spaces::

        {"question": "q", "answers": [{"text": "a", "stars": 4}, {"text": "b", "stars": "N/A"}]}

        prompt: question                                      user turn "q"
        each: answers                                         completions "a" (overall 4 of 1 to 5), "b" (no rating)
        completions: [{text: text, rating: stars}]
        scales: {overall: [1, 5]}
        missing: [N/A]

    Systems by name, and which of them somebody preferred::

        {"q": "Hi", "systems": {"gpt-3.5": {"text": "Hello!"}, "llama": {"text": "What?"}}, "best": "gpt-3.5"}

        prompt: q
        each: systems                                         "Hello!" by gpt-3.5, rank 1; "What?" by llama, rank 2
        completions: [{text: text, author: .key}]
        votes: [best]

    How strongly one of two was preferred, by several raters, and what they said of the one that won::

        {"context": [{"role": "user", "content": "Hi"}], "response1": "Hello!", "response2": "What?",
         "raters": [{"score": -3, "why": "Kind."}, {"score": -1, "why": "Fits."}]}

        prompt: context                                       user turn "Hi"
        completions: [{text: response1}, {text: response2}]   "Hello!" rank 1, critique "Kind. Fits."; "What?" rank 2
        strength: raters.*.score                              extra {"margin": 2.0}
        winner_critique: raters.*.why

    Settings are compared with the values of a row as `sources/values.py` says, whatever types YAML, the command line
    and the file gave them: 1, "1" and 1.0 are the same, and so are yes, "yes", true and a cell "True". This holds for
    the entries of `values`, `vote_for`, `up`, `down` and `missing`, and between the paths of `equal`. Two entries that
    are the same value and mean different things are refused. Values that are in no entry are counted, and entries that
    no row uses are named, on the screen and in data.json.

    Texts are kept to the character (`strip` removes the blanks at their ends). The turns of a conversation inside one
    text (`turn_markers`) lose their markers, one space behind a marker and one line end before it, and no other blank.

    Args:
        prompt: path of a text, of a message or of a list of messages; or the pieces that make up the user's turn.
        system: path of a system prompt.
        history: path of earlier turns: a list of [user, assistant] pairs, of objects, of messages, or of texts that
            alternate.
        history_keys: the keys of the user's and the assistant's text in the objects of `history`.
        turn_markers: [user's, assistant's] marker of a prompt that holds a whole conversation in one text, with the
            line ends and blanks that belong to it (`dialogue.turns_of_text` has the rule).
        completions: the completions, one by one; with `each` a single entry, for all elements.
        each: path of a list of completions, or of an object of completions by name.
        drop_prompt: remove the prompt from the front of completions that repeat it. Those that do and those that don't
            are counted.
        votes: paths of votes, or of lists of votes, on two or more completions. The most votes win; no majority is a
            tie.
        vote_for: vote -> the place of its completion, counted from 0, or "tie". A vote that is no entry may be the
            author of a completion.
        pairs: votes on two of the completions at a time, which become one ranking (`sources/votes.py`).
        matrix: path of a square table, as lists or as objects by author: how often, or how strongly, the completion of
            the row was preferred to that of the column.
        strength: path of a number, or of several, of which the mean counts: how strongly one of two completions was
            preferred; 0 is a tie. Its size is kept in the record's `extra` as `margin`.
        strength_for: the place, 0 or 1, of the completion that a `strength` above 0 prefers.
        winner_critique: path, or several, of what was said of the completion that won. In a tie it is left out and
            counted.
        loser_critique: the same for those that lost.
        rater_preference: path of what each rater preferred, as a `strength` or a vote, in the order of their critiques;
            not needed where `strength` or `votes` is a list of as many. The words of a rater who did not prefer the
            completion that won are left out and counted: they would be said of the wrong one.
        id: path of an id; without it one is made from the content.
        reference: path of a text to compare with (ROUGE).
        scales: attribute -> [worst, best] of its ratings.
        values: a rating as it stands in the file -> its number. Where some entries are numbers, a number without an
            entry is refused. Ranks and strengths use it for words alone.
        missing: values that mean "not given".
        equal: paths that must hold the same in a row; a row where they differ is rejected and counted.
        keep: paths whose values are kept in the record's `extra`.
        scalars_as_text: write true, 3 and the like as text where a text is asked for (some files have lost the quotes);
            otherwise they are errors.
    """

    prompt: str | list[Piece] = ""
    system: str | None = None
    history: str | None = None
    history_keys: list[str] = field(default_factory=lambda: ["user", "assistant"])
    turn_markers: list[str] | None = None
    completions: list[Fields] = field(default_factory=list)
    each: str | None = None
    drop_prompt: bool = False
    votes: list[str] = field(default_factory=list)
    vote_for: dict = field(default_factory=dict)
    pairs: list[Pairs] = field(default_factory=list)
    matrix: str | None = None
    strength: str | None = None
    strength_for: int = 1
    winner_critique: str | list[str] | None = None
    loser_critique: str | list[str] | None = None
    rater_preference: str | None = None
    id: str | None = None
    reference: str | None = None
    scales: dict[str, list[float]] = field(default_factory=dict)
    values: dict = field(default_factory=dict)
    missing: list = field(default_factory=list)
    equal: list[str] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    scalars_as_text: bool = False
    nested_cells: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = self._owner
        if not self.prompt or not self.completions:
            raise InputError(f"{owner}: 'prompt' and 'completions' must say where they stand in a row.")
        if self.each is not None and len(self.completions) != 1:
            raise InputError(f"{owner}: with 'each' give one entry of 'completions', for all elements alike.")
        if self.each is None and any(
            path in (ITSELF, KEY, *PLACES) or path.startswith(BESIDE)
            for one in self.completions
            for path in one.paths()
        ):
            raise InputError(
                f"{owner}: {ITSELF}, {KEY}, {' and '.join(PLACES)} mean elements of a list; name the list by 'each'."
            )
        if self.turn_markers is not None and (len(self.turn_markers) != 2 or not all(self.turn_markers)):
            raise InputError(
                f"{owner}: turn_markers has {len(self.turn_markers)} entries; give the user's and the assistant's "
                "marker."
            )
        if len(self.history_keys) != 2:
            raise InputError(
                f"{owner}: history_keys has {len(self.history_keys)} entries; give the user's and the assistant's key."
            )
        for attribute, scale in self.scales.items():
            if len(scale) != 2:
                raise InputError(f"{owner}: the scale of {attribute!r} has {len(scale)} entries; give [worst, best].")
        rated = {
            name
            for one in self.completions
            for name in (*one.ratings, *(["overall"] if one.rating is not None else []))
        }
        if unused := sorted(set(self.scales) - rated):
            known = f"the attributes are {', '.join(sorted(rated))}" if rated else "no completion has ratings"
            raise InputError(
                f"{owner}: 'scales' has {unused[0]!r:.60}, which nothing rates; {known} (a `rating` is 'overall')."
            )
        if self._preferences.given and any(one.rank is not None for one in self.completions):
            raise InputError(
                f"{owner}: a 'rank' of 'completions' says which is better, and so do votes, pairs, a matrix or a "
                "strength; give one of them."
            )
        for place, (up, down) in enumerate(self._thumbs):
            for entry in self.completions[place].up:
                if entry in down:
                    raise InputError(
                        f"{owner}: {entry!r} is both in 'up' and in 'down' of completions[{place}]; keep it in one "
                        "of them."
                    )
            up.never_found(), down.never_found()

    @property
    def _owner(self) -> str:
        return f"Mapping of {self.path}"

    @cached_property
    def _reader(self) -> Reader:
        return Reader(
            self.values, self.missing, scalars_as_text=self.scalars_as_text, notes=self.notes, owner=self._owner
        )

    @cached_property
    def _preferences(self) -> Preferences:
        return Preferences(
            votes=self.votes,
            vote_for=self.vote_for,
            pairs=self.pairs,
            matrix=self.matrix,
            strength=self.strength,
            strength_for=self.strength_for,
            rater_preference=self.rater_preference,
            reader=self._reader,
            count=None if self.each is not None else len(self.completions),
            owner=self._owner,
        )

    @cached_property
    def _thumbs(self) -> list[tuple[Table, Table]]:
        return [(Table("up", one.up, self._owner), Table("down", one.down, self._owner)) for one in self.completions]

    def columns(self) -> Sequence[str]:
        """The paths of the prompt and the completions, which every row has."""
        pieces = (
            [self.prompt]
            if isinstance(self.prompt, str)
            else [piece.field for piece in self.prompt if piece.field and not piece.optional]
        )
        return [*pieces, *([one.text for one in self.completions] if self.each is None else [self.each])]

    def fits(self, header: Sequence[str]) -> bool:
        return all(has_column(dict.fromkeys(header), path) for path in self.columns())

    def structured(self) -> set[str]:
        """The columns into which a path leads, or that are read as a list or an object as a whole."""
        inside = [path for one in self.completions for path in one.paths()]
        paths = [
            *self.columns(),
            *self.votes,
            *self.equal,
            *self.keep,
            self.system,
            self.reference,
            self.id,
            self.strength,
            self.rater_preference,
        ]
        paths += [
            *paths_of(self.winner_critique),
            *paths_of(self.loser_critique),
            *(inside if self.each is None else []),
        ]
        for pair in [one for one in self.pairs if one.each is None]:
            paths += [pair.vote, *(side for side in pair.sides if isinstance(side, str))]
        whole = [self.each, self.matrix, self.history, *(pair.each for pair in self.pairs)]
        whole += [path.removeprefix(BESIDE) for path in inside if path.startswith(BESIDE)]
        steps = [steps_of(path) for path in paths if path]
        return {one[0].name for one in steps if len(one) > 1} | {steps_of(path)[0].name for path in whole if path}

    def after_rows(self) -> None:
        """Notes the entries of tables that no value was equal to."""
        thumbs: list[Table] = []
        for one, (up, down) in zip(self.completions, self._thumbs, strict=True):
            thumbs += [up] * (one.thumb is not None and one.up != UP) + [down] * (
                one.thumb is not None and one.down != DOWN
            )
        for table in (self._reader.values, self._reader.missing, *thumbs, *self._preferences.tables):
            unused = [
                entry
                for entry in table.never_found()
                if table is not self._reader.missing or normal(entry) != normal(None)
            ]
            if unused:  # that a null is missing needs no entry
                self.notes.say(f"entries of '{table.name}' that no row uses: {', '.join(unused)}")

    def feedback(self, row: Row, where: str) -> Feedback | Rejected:
        if self.equal and len({normal(value_at(row, path, where)) for path in self.equal}) > 1:
            return self.rejected(f"{', '.join(self.equal)} differ", where)
        items = items_of(row, self.each, len(self.completions), where)
        if not items:
            return self.rejected("no completions", where)
        prompt, fronts = self._prompt(row, where)
        candidates = [self._candidate(item, 0 if self.each is not None else item.place, fronts) for item in items]
        extra = {path: _plain(value_at(row, path, where)) for path in self.keep}
        if self._preferences.given:
            preference = self._preferences.of(row, candidates, where)
            if preference.ranks is None:
                return self.rejected(NO_VOTE, where)
            candidates = [
                dataclasses.replace(one, rank=rank) for one, rank in zip(candidates, preference.ranks, strict=True)
            ]
            extra |= preference.extra
        return self.record(
            prompt,
            self._with_critiques(candidates, row, where),
            where=where,
            task="answer",
            id="" if self.id is None else self._reader.id(value_at(row, self.id, where), self.id, where),
            scales={attribute: (float(worst), float(best)) for attribute, (worst, best) in self.scales.items()},
            reference=None
            if self.reference is None
            else self._reader.text(value_at(row, self.reference, where), self.reference, where),
            extra=extra,
        )

    def _prompt(self, row: Row, where: str) -> tuple[tuple[Turn, ...], list[str]]:
        """The turns, and the texts by which a completion may repeat them."""
        turns: tuple[Turn, ...]
        raw = ""
        if not isinstance(self.prompt, str):
            turns = (Turn("user", tuple(part for piece in self.prompt for part in self._parts(piece, row, where))),)
        else:
            value = value_at(row, self.prompt, where)
            if is_messages(value) and not is_typed_parts(value):
                turns = turns_of_messages(value, self.prompt, where, self.notes)
            elif isinstance(value, dict):
                turns = (turn_of_message(value, self.prompt, where, self.notes),)
            else:
                raw = self._reader.text(value, self.prompt, where) or ""
                turns = (
                    (user_turn(raw),)
                    if self.turn_markers is None
                    else turns_of_text(raw, self.turn_markers[0], self.turn_markers[1])
                )
        fronts = [text for text in (raw, turns[-1].text if turns else "") if text.strip()]
        if self.history is not None:
            turns = (
                *turns_of_history(
                    value_at(row, self.history, where), self.history_keys, self.history, where, self.notes
                ),
                *turns,
            )
        system = (
            None if self.system is None else self._reader.text(value_at(row, self.system, where), self.system, where)
        )
        return turns if system is None else (Turn("system", (Part(system, "never"),)), *turns), fronts

    def _parts(self, piece: Piece, row: Row, where: str) -> list[Part]:
        fixed = [Part(piece.text, "never")] if piece.text else []
        if piece.field is None:
            return fixed
        if piece.optional and not has_column(row, piece.field):
            return []
        text = self._reader.text(value_at(row, piece.field, where), piece.field, where)
        if text is None:
            if not piece.optional:
                raise InputError(
                    f"{where}: {piece.field} is empty; mark the piece of the prompt as optional if it may be."
                )
            return []
        return [*fixed, Part(text, piece.cut)]

    def _candidate(self, item: Item, number: int, fronts: Sequence[str]) -> Candidate:
        fields = self.completions[number]
        reader = self._reader
        text = reader.text(item.at(fields.text), fields.text, item.where) or ""
        paths = ({} if fields.rating is None else {"overall": fields.rating}) | fields.ratings
        ratings = {attribute: reader.number(item.at(path), path, item.where) for attribute, path in paths.items()}
        said = [words for path in paths_of(fields.critique) for words in reader.texts(item.at(path), path, item.where)]
        return Candidate(
            text=self._without_prompt(text, fronts, item.where) if self.drop_prompt else text,
            rank=self._rank(item, fields.rank),
            ratings={attribute: value for attribute, value in ratings.items() if value is not None},
            thumb=None
            if fields.thumb is None
            else reader.thumb(item.at(fields.thumb), fields.thumb, *self._thumbs[number], item.where),
            critique=" ".join(said) or None,
            revision=None
            if fields.revision is None
            else reader.text(item.at(fields.revision), fields.revision, item.where),
            author=None if fields.author is None else reader.text(item.at(fields.author), fields.author, item.where),
        )

    def _rank(self, item: Item, rank: float | str | None) -> float | None:
        if isinstance(rank, str):
            return self._reader.number(item.at(rank), rank, item.where, only_words=True)
        return None if rank is None else float(rank)

    def _without_prompt(self, text: str, fronts: Sequence[str], where: str) -> str:
        for front in fronts:
            for words in (front, front.strip()):
                if text.startswith(words):
                    self.notes.count("drop_prompt: the prompt was taken off the front of a completion", where)
                    return text[len(words) :]
        self.notes.count("drop_prompt: a completion does not begin with the prompt, and was left as it is", where)
        return text

    def _with_critiques(self, candidates: Sequence[Candidate], row: Row, where: str) -> list[Candidate]:
        """The completions with what was said of the one that won, and of those that lost."""
        out = list(candidates)
        best, worse = best_and_worse([one.rank for one in out])
        for name, setting, places in (("winner", self.winner_critique, best), ("loser", self.loser_critique, worse)):
            said = [words for path in paths_of(setting) for words in self._said(row, path, out, best, where)]
            if said and not places:
                self.notes.count(f"{name}_critique: no completion won, so that the critique was left out", where)
            for place in places if said else ():
                out[place] = dataclasses.replace(
                    out[place], critique=" ".join([*filter(None, [out[place].critique]), *said])
                )
        return out

    def _said(
        self, row: Row, path: str, candidates: Sequence[Candidate], best: Collection[int], where: str
    ) -> list[str]:
        """The words at a path; of several raters' words those of the raters who preferred what won."""
        value = value_at(row, path, where)
        if best and isinstance(value, list) and not is_typed_parts(value):
            agree = self._preferences.agree(row, candidates, best, len(value), where)
            others = len(
                self._reader.texts([one for one, kept in zip(value, agree, strict=True) if not kept], path, where)
            )
            if others:
                self.notes.count(
                    "the critique of a rater who did not prefer the completion that won was left out", where
                )
            value = [one for one, kept in zip(value, agree, strict=True) if kept]
        return self._reader.texts(value, path, where)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: what is no number becomes null, and dates and the like text."""
    if isinstance(value, AnyMapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
