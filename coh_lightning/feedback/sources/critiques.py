"""Critiques of the winner and of the losers, in rows that give them beside the preference."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from coh_lightning.feedback.records import RatedCompletion
from coh_lightning.feedback.sources.fields import paths_of
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.sources.paths import value_at
from coh_lightning.feedback.sources.preferences import Preferences
from coh_lightning.feedback.sources.reader import Reader
from coh_lightning.feedback.sources.votes import best_and_worse
from coh_lightning.feedback.turns import is_typed_parts

if TYPE_CHECKING:
    from coh_lightning.feedback.sources.mapping import Mapping as Settings


class CritiqueReader:
    """Adds critiques to ranked completions."""

    def __init__(self, settings: Settings, preferences: Preferences, reader: Reader) -> None:
        self.winner, self.loser = settings.winner_critique, settings.loser_critique
        self.preferences, self.reader = preferences, reader

    def paths(self) -> list[str]:
        return [*paths_of(self.winner), *paths_of(self.loser)]

    def added(self, candidates: Sequence[RatedCompletion], row: SourceRow, where: str) -> list[RatedCompletion]:
        """The completions with the critiques of the row."""
        out = list(candidates)
        best, worse = best_and_worse([one.rank for one in out])
        for name, setting, places in (("winner", self.winner, best), ("loser", self.loser, worse)):
            texts = [words for path in paths_of(setting) for words in self._texts(row, path, out, best, where)]
            if texts and not places:
                self.reader.notes.count(f"{name}_critique: no completion won, so the critique was left out", where)
            for place in places if texts else ():
                critique = " ".join([*filter(None, [out[place].critique]), *texts])
                out[place] = dataclasses.replace(out[place], critique=critique)
        return out

    def _texts(
        self, row: SourceRow, path: str, candidates: Sequence[RatedCompletion], best: Collection[int], where: str
    ) -> list[str]:
        """The texts at a path; of several raters' texts only those of the raters who preferred the winner."""
        value = value_at(row, path, where)
        if best and isinstance(value, list) and not is_typed_parts(value):
            agree = self.preferences.agree(row, candidates, best, len(value), where)
            others = [one for one, kept in zip(value, agree, strict=True) if not kept]
            if self.reader.texts(others, path, where):
                self.reader.notes.count("the critique of a rater who did not prefer the winner was left out", where)
            value = [one for one, kept in zip(value, agree, strict=True) if kept]
        return self.reader.texts(value, path, where)
