"""Any other format: paths to the prompt, the completions and the feedback in a row. `conf/data/` has examples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback, Rejected
from coh_lightning.feedback.sources.base import Source
from coh_lightning.feedback.sources.critiques import CritiqueReader
from coh_lightning.feedback.sources.fields import BESIDE, Fields, Piece
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.sources.mapped_completions import CompletionReader
from coh_lightning.feedback.sources.mapped_prompt import PromptReader
from coh_lightning.feedback.sources.paths import has_column, steps_of, value_at
from coh_lightning.feedback.sources.preferences import Preferences
from coh_lightning.feedback.sources.reader import Reader
from coh_lightning.feedback.sources.values import normal
from coh_lightning.feedback.sources.votes import PairVotes


@dataclass(frozen=True)
class Mapping(Source):
    """Rankings, ratings, critiques, thumbs and votes in files of any shape.

    A path is the name of a column, or names and list places joined by dots: `annotations.helpfulness.Rating`,
    `references.0`, `chat.-1.content`, `chat.:-1`, `votes.*.score`, `systems."gpt-3.5".text`; `sources/paths.py` has the
    grammar. A missing name is refused with the nearest one. A value that is null, blank or in `missing` counts as not
    given. A list of ratings (of several raters) counts as its mean, several critiques are joined with spaces::

        {"question": "q", "answers": [{"text": "a", "stars": 4}, {"text": "b", "stars": "N/A"}]}

        prompt: question                                      user turn "q"
        each: answers                                         completions "a" (overall 4 of 1 to 5), "b" (no rating)
        completions: [{text: text, rating: stars}]
        scales: {overall: [1, 5]}
        missing: [N/A]

    Systems by name, and the preferred one::

        {"q": "Hi", "systems": {"gpt-3.5": {"text": "Hello!"}, "llama": {"text": "What?"}}, "best": "gpt-3.5"}

        prompt: q
        each: systems                                         "Hello!" by gpt-3.5, rank 1; "What?" by llama, rank 2
        completions: [{text: text, author: .key}]
        votes: [best]

    How strongly several raters preferred one of two, and their critiques of the winner::

        {"context": [{"role": "user", "content": "Hi"}], "response1": "Hello!", "response2": "What?",
         "raters": [{"score": -3, "why": "Kind."}, {"score": -1, "why": "Fits."}]}

        prompt: context                                       user turn "Hi"
        completions: [{text: response1}, {text: response2}]   "Hello!" rank 1, critique "Kind. Fits."; "What?" rank 2
        strength: raters.*.score                              extra {"margin": 2.0}
        winner_critique: raters.*.why

    Entries of `values`, `vote_for`, `up`, `down` and `missing`, and the paths of `equal`, are compared by value
    whatever their types (`sources/values.py`): 1, "1" and 1.0 are equal, and so are yes, "yes", true and a cell "True".
    Values without an entry, and entries that no row uses, are noted on the screen and in data.json.

    Texts are kept exactly (`strip` removes whitespace at their ends). The turns of a conversation in one text
    (`turn_markers`) lose their markers, one space after a marker and one line end before it, and no other whitespace.

    Args:
        prompt: path of a text, a message or a list of messages; or the pieces of the user's turn.
        system: path of a system prompt.
        history: path of earlier turns: a list of [user, assistant] pairs, objects, messages, or alternating texts.
        history_keys: the keys of the user's and the assistant's text in the objects of `history`.
        turn_markers: [user's, assistant's] marker of a prompt that is a whole conversation in one text, with its line
            ends and spaces (`dialogue.turns_of_text` has the rule).
        completions: the completions; with `each` one entry, for all elements.
        each: path of a list of completions, or of an object of completions by name.
        drop_prompt: remove the prompt from the front of completions that repeat it; both kinds are counted.
        votes: paths of votes, or of lists of votes, on two or more completions. The most votes win; a draw is a tie.
        vote_for: vote -> the place of its completion, counted from 0, or "tie". A vote without an entry may be the
            author of a completion.
        pairs: votes on pairs of completions, which become one ranking (`sources/votes.py`).
        matrix: path of a square table, as lists or as objects by author: how often, or how strongly, the completion of
            the row was preferred to that of the column.
        strength: path of a number, or of several that are averaged: how strongly one of two completions was preferred;
            0 is a tie. The record's `extra` keeps its absolute value as `margin`.
        strength_for: the place, 0 or 1, of the completion that a positive `strength` prefers.
        winner_critique: path or paths of a critique of the winner. In a tie it is left out and counted.
        loser_critique: the same for the losers.
        rater_preference: path of each rater's preference, as a `strength` or a vote, in the order of their critiques;
            not needed if `strength` or `votes` is a list of the same length. The critique of a rater who did not prefer
            the winner is left out and counted.
        id: path of an id; without it one is made from the content.
        reference: path of a text to compare with (ROUGE).
        scales: attribute -> [worst, best] of its ratings.
        values: a rating in the file -> its number. If some entries are numbers, a number without an entry is refused.
            Ranks and strengths use only entries that are words.
        missing: values that mean "not given".
        equal: paths that must be equal in a row; other rows are rejected and counted.
        keep: paths whose values are kept in the record's `extra`.
        scalars_as_text: convert true, 3 and the like where a text is needed (some files have lost the quotes);
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
    pairs: list[PairVotes] = field(default_factory=list)
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
        owner = self._reader.owner
        if not self.prompt or not self.completions:
            raise InputError(f"{owner}: set 'prompt' and 'completions' to where they are in a row.")
        rated = self._completions.rated()  # making the readers checks their settings
        self._prompt.columns()
        for attribute, scale in self.scales.items():
            if len(scale) != 2:
                raise InputError(f"{owner}: the scale of {attribute!r} has {len(scale)} entries; give [worst, best].")
        if unused := sorted(set(self.scales) - rated):
            known = f"the attributes are {', '.join(sorted(rated))}" if rated else "no completion has ratings"
            raise InputError(f"{owner}: 'scales' has {unused[0]!r:.60}; {known} (a `rating` is 'overall').")
        if self._preferences.given and any(one.rank is not None for one in self.completions):
            raise InputError(f"{owner}: both a 'rank' and votes, pairs, a matrix or a strength rank; give one of them.")

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self)

    @cached_property
    def _prompt(self) -> PromptReader:
        return PromptReader(self, self._reader)

    @cached_property
    def _completions(self) -> CompletionReader:
        return CompletionReader(self, self._reader)

    @cached_property
    def _preferences(self) -> Preferences:
        return Preferences(self, self._reader)

    @cached_property
    def _critiques(self) -> CritiqueReader:
        return CritiqueReader(self, self._preferences, self._reader)

    def columns(self) -> Sequence[str]:
        """The paths of the prompt and the completions, which every row has."""
        return [*self._prompt.columns(), *self._completions.columns()]

    def fits(self, header: Sequence[str]) -> bool:
        return all(has_column(dict.fromkeys(header), path) for path in self.columns())

    def structured(self) -> set[str]:
        """The columns into which a path leads, or that are read as a list or an object as a whole."""
        inside = [path for one in self.completions for path in one.paths()]
        single = (self.system, self.reference, self.id, self.strength, self.rater_preference)
        paths = [*self.columns(), *self.votes, *self.equal, *self.keep, *self._critiques.paths(), *single]
        paths += inside if self.each is None else []
        for pair in [one for one in self.pairs if one.each is None]:
            paths += [pair.vote, *(side for side in pair.sides if isinstance(side, str))]
        whole = [self.each, self.matrix, self.history, *(pair.each for pair in self.pairs)]
        whole += [path.removeprefix(BESIDE) for path in inside if path.startswith(BESIDE)]
        steps = [steps_of(path) for path in paths if path]
        return {one[0].name for one in steps if len(one) > 1} | {steps_of(path)[0].name for path in whole if path}

    def after_rows(self) -> None:
        """Notes the entries of tables that no value was equal to."""
        reader = self._reader
        for table in (reader.values, reader.missing, *self._completions.tables(), *self._preferences.tables):
            unused = [
                entry
                for entry in table.never_found()
                if table is not reader.missing or normal(entry) != normal(None)  # null is missing without an entry
            ]
            if unused:
                self.notes.say(f"entries of '{table.name}' that no row uses: {', '.join(unused)}")

    def feedback(self, row: SourceRow, where: str) -> Feedback | Rejected:
        if self.equal and len({normal(value_at(row, path, where)) for path in self.equal}) > 1:
            return self.rejected(f"{', '.join(self.equal)} differ", where)
        elements = self._completions.elements(row, where)
        if not elements:
            return self.rejected("no completions", where)
        prompt, fronts = self._prompt.of(row, where)
        candidates = self._completions.of(elements, fronts)
        extra = {path: _as_json(value_at(row, path, where)) for path in self.keep}
        if self._preferences.given:
            preference = self._preferences.of(row, candidates, where)
            if preference is None:
                return self.rejected("nobody said which completion is better", where)
            ranks, kept = preference
            candidates = [dataclasses.replace(one, rank=rank) for one, rank in zip(candidates, ranks, strict=True)]
            extra |= kept
        id, reference = (None if path is None else value_at(row, path, where) for path in (self.id, self.reference))
        return self.record(
            prompt,
            self._critiques.added(candidates, row, where),
            where=where,
            task="answer",
            id=self._reader.id(id, str(self.id), where),
            scales={attribute: (float(worst), float(best)) for attribute, (worst, best) in self.scales.items()},
            reference=self._reader.text(reference, str(self.reference), where),
            extra=extra,
        )


def _as_json(value: Any) -> Any:
    """A value for JSON: non-finite numbers become null; dates and the like become text."""
    if isinstance(value, AnyMapping):
        return {str(key): _as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
